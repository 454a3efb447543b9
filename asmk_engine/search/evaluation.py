"""Evaluation of an index with the queries of a ground truth."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.evaluation.protocol import Evaluator, Report, depth_needed
from asmk_engine.indexes.answers import Hit, RankedImages

QueryT = TypeVar("QueryT")
QueryT_contra = TypeVar("QueryT_contra", contravariant=True)
Rankings = Iterator[tuple[str, list[Hit]]]


class Ranker(Protocol[QueryT_contra]):
    """Ranks images for a query: the searcher of an index of any kind or of a joint index."""

    def search(self, query: QueryT_contra, top: int | None, /) -> list[Hit]:
        """Return the `top` best images, all if None."""
        ...

    def rank(self, query: QueryT_contra, /) -> RankedImages:
        """Return all images as numbers, in the order of `search(query, None)`."""
        ...

    def image_numbers(self, names: Iterable[str], /) -> dict[str, int]:
        """Return name → number as used by `rank`, for those names that are images."""
        ...


def evaluate_index(
    ground_truth: GroundTruth,
    searcher: Ranker[QueryT],
    features: Callable[[GroundTruthQuery], QueryT | None],
    *,
    keep: Callable[[Rankings], object] | None = None,
    allow_missing: bool = False,
    interval: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Report:
    """Search for every query of a ground truth, in order, and evaluate each ranking at once, to keep one in memory.

    Raises what `features`, the search, `keep` and `Evaluator` raise.

    ground_truth   its names must be those of the index, see `names.resolve`
    features       returns the input of the searcher for a query, or None if the query is missing
    keep           consumes all rankings one by one, as `write_run` does; without it, no names are read where whole
                   rankings are evaluated, which is much faster
    allow_missing  count a missing query as finding nothing
    interval       also compute 95 % confidence intervals of the means
    progress       receives (done, total) after each query
    """
    depth = depth_needed(ground_truth)
    in_numbers = keep is None and depth is None
    evaluator = Evaluator(
        ground_truth, searcher.image_numbers([*ground_truth.images, *ground_truth.ignored]) if in_numbers else {}
    )

    def answer(name: str, search_input: QueryT) -> list[Hit]:
        if evaluator.numbers:
            evaluator.add_numbers(name, searcher.rank(search_input).numbers)
            return []
        hits = searcher.search(search_input, depth)
        evaluator.add(name, [hit.name for hit in hits])
        return hits

    def rankings() -> Rankings:
        for done, query in enumerate(ground_truth.queries, start=1):
            if (search_input := features(query)) is not None:
                yield query.name, answer(query.name, search_input)
            if progress is not None:
                progress(done, len(ground_truth.queries))

    (keep or _exhaust)(rankings())
    return evaluator.report(allow_missing=allow_missing, interval=interval)


def _exhaust(rankings: Rankings) -> None:
    deque(rankings, maxlen=0)
