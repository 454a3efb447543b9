"""`asmk-engine calibrate`, and the option of `query` that leaves out answers by their verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Console, plural, quiet_option, threads_option
from asmk_engine.errors import AsmkError

if TYPE_CHECKING:
    from asmk_engine.indexes.answers import Hit
    from asmk_engine.indexes.calibrations import StoredCalibration
    from asmk_engine.verification.reranking import Reranking

VERIFIED = 50
"""Images that are verified if --rerank does not say how many."""
_KEPT = {"matches": ("match",), "maybes": ("match", "maybe")}
FEATURES = {"learned": "learned features", "rootsift": "RootSIFT", "several": "several kinds of features"}

only_option = click.option(
    "--only",
    type=click.Choice([*_KEPT]),
    help="Leave out images that are no match, or no match and no maybe. Their stated precision is 99 %, that "
    "of both together 90 %, see `calibrate`. Verifies the first 50 images unless --rerank gives "
    "another number.",
)


def added_verification(search: dict[str, Any], only: str | None, other_path: Path | None) -> dict[str, Any]:
    """Return the search options with verification if --only needs it; UsageError for what excludes it."""
    if only is None:
        return search
    if other_path:
        raise click.UsageError("--only and --fuse exclude each other; give one of them")
    if search["rerank_by"] != "places":
        raise click.UsageError("--only needs --rerank-by places, which verdicts are of; leave one of the two out")
    return {**search, "rerank": search["rerank"] or VERIFIED}


def tell_calibration(searcher: Any, reranking: Reranking | None, console: Console) -> None:
    """Say once where verdicts come from, unless they are learned from the index as it is.

    searcher  a `RerankingSearcher` if there is a `reranking`
    """
    from asmk_engine.indexes.base import Collection
    from asmk_engine.verification.verdict import is_judged

    if reranking is None or not is_judged(reranking.verification):
        return
    searcher, index = searcher.searcher, searcher.index
    try:
        stored = searcher.stored_calibration()
    except AsmkError:
        return  # the first answer warns of it
    if stored is None:
        features = FEATURES[searcher.calibration().features]
        cure = f"; `asmk-engine calibrate {index.path}` learns what this collection needs"
        can_learn = isinstance(index, Collection)  # others are several indexes as one, which `calibrate` refuses
        console.say(f"{index.path}: verdicts are by constants for {features}{cure if can_learn else ''}")
    elif stored.is_outgrown(index.images):
        console.say(
            f"{index.path}: verdicts were learned when it had {plural(stored.indexed, 'image')}, now it has "
            f"{index.images}; `asmk-engine calibrate {index.path}` learns them again"
        )


def selected(answers: Iterable[tuple[str, list[Hit]]], only: str | None) -> Iterator[tuple[str, list[Hit]]]:
    """Yield the answers without those that --only leaves out."""
    for name, hits in answers:
        yield name, hits if only is None else [hit for hit in hits if hit.verdict in _KEPT[only]]


def said(path: Path, stored: StoredCalibration) -> str:
    """Return the line that tells what was learned."""
    found = stored.calibration
    from_ = f"{plural(found.images, 'image')} and {found.answers} of their answers"
    least = f"a match needs an evidence of {found.match:.3g}, a maybe {found.maybe:.3g}"
    if found.is_learned:
        return f"{path}: learned from {from_}: {least}"
    return (
        f"{path}: {from_} have too few matches to learn from; by constants for {FEATURES[found.features]}, raised if "
        f"chance reaches further here, {least}"
    )


@click.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.option(
    "--images", type=click.IntRange(1, 100_000), default=300, show_default=True, help="Images that are queries."
)
@threads_option
@quiet_option
def calibrate(index_path: Path, images: int, threads: int | None, quiet: bool) -> None:
    """Learn what a match is in this collection.

    `query --rerank` says of each image whether it is a match, maybe one, or none, and with which probability. Some
    images are queries, and their first 50 answers are verified as they are and mirrored: whatever a mirrored query
    matches is chance. No labels are needed, only the places of features, which are in an index made with --geometry or
    in the feature set it remembers. The result is stored in INDEX and stays when INDEX changes; calibrate again when it
    has grown much. Takes about half a minute.

    \b
    Examples:
      asmk-engine calibrate photos.index
      asmk-engine query photos.index my-photo.jpg --only matches
    """
    from asmk_engine.search.calibrating import calibrate as learn
    from asmk_engine.search.opening import open_index

    index, console = open_index(index_path), Console(quiet)
    with console.bar("calibrate", "images") as on_image:
        stored = learn(index, images, threads=threads, on_image=on_image)
    console.say(said(index_path, stored))
