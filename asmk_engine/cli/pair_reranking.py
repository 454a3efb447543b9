"""The options of re-ranking by a network that compares pairs, for `query` and `evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Console, option_group, was_given
from asmk_engine.errors import InputError

if TYPE_CHECKING:
    from asmk_engine.cli.search_options import SearchOptions
    from asmk_engine.indexes.answers import Hit
    from asmk_engine.reranking.ranking import PairReranker

RERANKERS = ("cvnet", "gv", "rrt")
DEFAULT_IMAGES = 100
_OF_CVNET = ("reranker_weight", "reranker_side", "reranker_cache", "reranker_precision", "reranker_seed")
_NEEDS = ("reranker_weights", *_OF_CVNET)

reranker_options = option_group(
    click.option(
        "--reranker",
        type=click.Choice(RERANKERS),
        help="Rank the first K images anew, K by --rerank or 100, by comparing them with the query. cvnet: CVNet- "
        "Rerank on photographs; its score, 0 to 1, times --reranker-weight is added to that of the index. gv: "
        "local features by the verification of the DELF and DELG code; inliers alone decide. rrt: local features "
        "and a global descriptor, both in one index, by a Reranking Transformer; its logit alone decides.",
    ),
    click.option(
        "--reranker-weights",
        type=PATH,
        metavar="FILE",
        help="Network of --reranker cvnet: from `train-rerank`, or a checkpoint of CVNet's official code. Of rrt: a "
        "network trained here, or a checkpoint of its code. gv needs none.",
    ),
    click.option(
        "--reranker-weight",
        type=click.FloatRange(min=0),
        default=0.5,
        show_default=True,
        help="Weight of the score of --reranker in the sum.",
    ),
    click.option(
        "--reranker-side",
        type=click.IntRange(min=16),
        default=1024,
        show_default=True,
        help="Shrink photographs whose longer side exceeds this number of pixels.",
    ),
    click.option(
        "--reranker-cache",
        type=PATH,
        metavar="FOLDER",
        help="Keep what the network extracts from whole photographs in this folder, in 8 bits.",
    ),
    click.option(
        "--reranker-precision",
        type=click.Choice(["fp32", "bf16"]),
        default="fp32",
        show_default=True,
        help="Precision of the network; bf16 is faster on processors that compute in it, and changes scores slightly.",
    ),
    click.option(
        "--reranker-seed",
        type=click.IntRange(0, 2**31 - 1),
        help="Draw the layers that FILE lacks at random from this seed, for experiments; without it such a file is "
        "refused.",
    ),
)


def check_reranker(options: SearchOptions) -> None:
    """Raise InputError for options of --reranker without it, without its weights, or with what it excludes."""
    if options.reranker is None:
        if given := [name for name in _NEEDS if was_given(name)]:
            raise InputError(f"--{given[0].replace('_', '-')} needs --reranker; add --reranker cvnet")
        return
    if options.reranker != "cvnet" and (given := [name for name in _OF_CVNET if was_given(name)]):
        raise InputError(f"--{given[0].replace('_', '-')} is of --reranker cvnet; leave it out")
    if options.reranker_weights is None and options.reranker != "gv":
        raise InputError("--reranker needs the weights of its network; give them with --reranker-weights")
    for name in ("rerank_by", "joins"):
        if was_given(name):
            option = {"rerank_by": "--rerank-by", "joins": "--join"}[name]
            raise InputError(f"{option} is of re-ranking by features; leave out either it or --reranker")


def pair_reranker_of(
    options: SearchOptions, source: Any, locate: Callable[[str], Path], describe: Callable[[str, Any], Any]
) -> PairReranker | None:
    """Return what ranks the first images anew, None without --reranker.

    source    finds the features of indexed images
    locate    finds the photograph of a query or an indexed image
    describe  finds the features of a query, of its region if there is a box

    Raises InputError for options that exclude each other, and what the reader of the weights raises.
    """
    check_reranker(options)
    if options.reranker is None:
        return None
    if options.reranker != "cvnet" or options.reranker_weights is None:
        from asmk_engine.reranking.by_features import feature_reranker

        images = options.rerank or DEFAULT_IMAGES
        return feature_reranker(options.reranker, source, images, options.reranker_weights, describe, options.threads)
    from asmk_engine.reranking.cvnet import CvnetScorer, CvnetScoring
    from asmk_engine.reranking.ranking import PairReranker, PairReranking

    scoring = CvnetScoring(
        options.reranker_weights,
        options.reranker_side,
        options.reranker_cache,
        options.reranker_seed,
        options.reranker_precision,
    )
    reranking = PairReranking(options.rerank or DEFAULT_IMAGES, options.reranker_weight)
    return PairReranker(CvnetScorer(scoring, locate), reranking)


def reranked_answers(
    answers: list[tuple[str, list[Hit]]], reranker: PairReranker | None, source: Any, box: Any, top: int, failed: Any
) -> list[tuple[str, list[Hit]]]:
    """Return answers with their first images in the new order, `top` of each; errors are recorded in `failed`."""
    if reranker is None:
        return answers
    found: list[tuple[str, list[Hit]]] = []
    for query, hits in answers:
        with failed.noting(query):
            own = {source.indexed_name(query) or ""}
            found.append((query, reranker.rerank(query, box, hits, own)[:top]))
    return found


def tell_summary(reranker: PairReranker | None, console: Console) -> None:
    """Report the time of each stage, and images that could not be compared."""
    summary = getattr(reranker.scorer, "summary", None) if reranker else None
    for line in summary() if summary else ():
        console.say(f"re-ranking: {line}")
