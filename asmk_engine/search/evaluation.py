"""Every query of a ground truth asked of an index, and the answers judged."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from asmk_engine.evaluation.model import Truth, TruthQuery
from asmk_engine.evaluation.protocol import Judge, Report, depth_needed
from asmk_engine.indexes.answers import Hit, Order

Asked = TypeVar("Asked")
Asked_contra = TypeVar("Asked_contra", contravariant=True)
Rankings = Iterator[tuple[str, list[Hit]]]


class Ranker(Protocol[Asked_contra]):
    """What ranks images for a query: the searcher of an index of either kind, or of several that are joined."""

    def search(self, query: Asked_contra, top: int | None, /) -> list[Hit]:
        """The best images, or all."""
        ...

    def order(self, query: Asked_contra, /) -> Order:
        """All images as numbers, in the order of `search(query, None)`."""
        ...

    def image_numbers(self, names: Iterable[str], /) -> dict[str, int]:
        """Name → number of those of the names that are images, as `order` numbers them."""
        ...


def evaluate_index(
    truth: Truth,
    searcher: Ranker[Asked],
    features: Callable[[TruthQuery], Asked | None],
    *,
    keep: Callable[[Rankings], object] | None = None,
    allow_missing: bool = False,
    interval: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Report:
    """Search for every query of a truth, in its order, and judge each answer when it comes: one is in memory at a time.

    truth          names must be those of the index, see `names.resolve`
    features       what the searcher takes for a query, or None where the query cannot be asked and counts as missing
    keep           takes the rankings one by one, to the last, as `write_run` does; without it no name is read where all
                   of a ranking counts, which is many times as fast
    allow_missing  count a query that was not asked as finding nothing
    interval       also say where the means lie with 95 % confidence
    progress       told after each query how many are done, and how many there are

    raises  what `features`, the search and `keep` raise, and what `Judge` does
    """
    depth = depth_needed(truth)
    in_numbers = keep is None and depth is None
    judge = Judge(truth, searcher.image_numbers([*truth.images, *truth.ignored]) if in_numbers else {})

    def answer(name: str, asked: Asked) -> list[Hit]:
        if judge.numbers:
            judge.take_numbers(name, searcher.order(asked).numbers)
            return []
        hits = searcher.search(asked, depth)
        judge.take(name, [hit.name for hit in hits])
        return hits

    def rankings() -> Rankings:
        for done, query in enumerate(truth.queries, start=1):
            if (asked := features(query)) is not None:
                yield query.name, answer(query.name, asked)
            if progress is not None:
                progress(done, len(truth.queries))

    (keep or _exhaust)(rankings())
    return judge.report(allow_missing=allow_missing, interval=interval)


def _exhaust(rankings: Rankings) -> None:
    deque(rankings, maxlen=0)
