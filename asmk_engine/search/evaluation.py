"""Every query of a ground truth asked of an index, and the answers evaluated."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.evaluation.protocol import Evaluator, Report, depth_needed
from asmk_engine.indexes.answers import Hit, RankedImages

Asked = TypeVar("Asked")
Asked_contra = TypeVar("Asked_contra", contravariant=True)
Rankings = Iterator[tuple[str, list[Hit]]]


class Ranker(Protocol[Asked_contra]):
    """What ranks images for a query: the searcher of an index of either kind, or of several that are joined."""

    def search(self, query: Asked_contra, top: int | None, /) -> list[Hit]:
        """The best images, or all."""
        ...

    def rank(self, query: Asked_contra, /) -> RankedImages:
        """All images as numbers, in the order of `search(query, None)`."""
        ...

    def image_numbers(self, names: Iterable[str], /) -> dict[str, int]:
        """Name → number of those of the names that are images, as `rank` numbers them."""
        ...


def evaluate_index(
    ground_truth: GroundTruth,
    searcher: Ranker[Asked],
    features: Callable[[GroundTruthQuery], Asked | None],
    *,
    keep: Callable[[Rankings], object] | None = None,
    allow_missing: bool = False,
    interval: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Report:
    """Search for every query of a ground truth, in its order, and evaluate each answer when it comes: one is in memory at a time.

    ground_truth          names must be those of the index, see `names.resolve`
    features       what the searcher takes for a query, or None where the query cannot be asked and counts as missing
    keep           takes the rankings one by one, to the last, as `write_run` does; without it no name is read where all
                   of a ranking counts, which is many times as fast
    allow_missing  count a query that was not asked as finding nothing
    interval       also say where the means lie with 95 % confidence
    progress       told after each query how many are done, and how many there are

    raises  what `features`, the search and `keep` raise, and what `Evaluator` does
    """
    depth = depth_needed(ground_truth)
    in_numbers = keep is None and depth is None
    evaluator = Evaluator(
        ground_truth, searcher.image_numbers([*ground_truth.images, *ground_truth.ignored]) if in_numbers else {}
    )

    def answer(name: str, asked: Asked) -> list[Hit]:
        if evaluator.numbers:
            evaluator.add_numbers(name, searcher.rank(asked).numbers)
            return []
        hits = searcher.search(asked, depth)
        evaluator.add(name, [hit.name for hit in hits])
        return hits

    def rankings() -> Rankings:
        for done, query in enumerate(ground_truth.queries, start=1):
            if (asked := features(query)) is not None:
                yield query.name, answer(query.name, asked)
            if progress is not None:
                progress(done, len(ground_truth.queries))

    (keep or _exhaust)(rankings())
    return evaluator.report(allow_missing=allow_missing, interval=interval)


def _exhaust(rankings: Rankings) -> None:
    deque(rankings, maxlen=0)
