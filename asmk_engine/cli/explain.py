"""The options of `asmk-engine query` that explain its answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Failures, option_group
from asmk_engine.errors import AsmkError

if TYPE_CHECKING:
    from asmk_engine.cli.searching import AnySource
    from asmk_engine.images.boxes import Box
    from asmk_engine.indexes.answers import Hit
    from asmk_engine.pictures.photographs import ShownPhotograph

VERIFIED = 50
"""Images that are verified if --rerank does not say how many."""

explain_options = option_group(
    click.option(
        "--explain",
        "explain_path",
        type=PATH,
        metavar="DIR",
        help="Also write pictures of why each image was found into this folder, and index.html, which lists them: the "
        "matched features joined by lines, the image moved onto the query, both alternately. Verifies the first 50 "
        "images unless --rerank gives another number.",
    ),
    click.option(
        "--explain-json",
        is_flag=True,
        help="With --format jsonl: also list the matched features of each image, with their words, similarities, "
        "weights and places. Verifies images as --explain does.",
    ),
)


@dataclass(frozen=True)
class ExplainOptions:
    """The options of `explain_options`; see their help."""

    path: Path | None
    as_json: bool

    def added_to(self, search: dict[str, Any], form: str, other_path: Path | None) -> dict[str, Any]:
        """Return the search options with verification, if answers are explained; UsageError for what excludes it."""
        if self.as_json and form != "jsonl":
            raise click.UsageError("--explain-json needs --format jsonl")
        if self.path is None and not self.as_json:
            return search
        given = "--explain" if self.path else "--explain-json"
        for option, is_given in (("--fuse", other_path), ("--diffusion", search["diffusion"])):
            if is_given:
                raise click.UsageError(f"{given} and {option} exclude each other; give one of them")
        return {**search, "rerank": search["rerank"] or VERIFIED}


def explained(
    answers: Iterable[tuple[str, list[Hit]]], path: Path, source: AnySource, box: Box | None, failed: Failures
) -> Iterator[tuple[str, list[Hit]]]:
    """Yield the answers, and write the pictures of each when it has been taken.

    After the first file that cannot be written nothing more is explained, and `failed` has the error.
    """
    from asmk_engine.pictures.explanation import ExplanationFolder

    def opened(name: str, size: tuple[int, int] | None) -> ShownPhotograph:
        return _opened(source, name, size)

    folder, what, is_open = ExplanationFolder(path, opened, box), f"the explanation {path}", True
    for name, hits in answers:
        yield name, hits
        if is_open:
            short = name if source.indexed_name(name) else Path(name).name
            before = len(failed)
            with failed.noting(what):
                folder.add(name, short, hits)
            is_open = len(failed) == before
    if is_open:
        with failed.noting(what):
            folder.finish()


def _opened(source: AnySource, name: str, size: tuple[int, int] | None) -> ShownPhotograph:
    """Return the photograph of an indexed image or a query, or the reason why it cannot be shown."""
    from asmk_engine.pictures.photographs import ShownPhotograph

    indexed = source.indexed_name(name)
    try:
        path = Path(name) if indexed is None else source.image_path(indexed)
    except AsmkError as error:
        return ShownPhotograph.missing(str(error), size)
    return ShownPhotograph.open(path, size)
