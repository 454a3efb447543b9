"""Searching an index of any kind: one query or many, answers by name or in numbers."""

from __future__ import annotations

import abc
import itertools
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Generic, TypeVar, cast, overload

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.indexes.answers import Hit, RankedImages, decoded
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.indexes.numbering import image_numbers, image_starts, name_ranks
from asmk_engine.indexes.ranking import BestImages, Part, ordered
from asmk_engine.indexes.reading import IndexReader
from asmk_engine.indexes.snapshot import Commit
from asmk_engine.threads import thread_count

View = TypeVar("View", bound=Commit[Any, Any])
Asked = TypeVar("Asked")


class IndexSearcher(abc.ABC, Generic[View, Asked]):
    """Ranks the images of an index, or of several joined, for a query; a kind says how by `_best` and `_all`.

    together  queries that are scored together
    kinds     what a query may be
    """

    together: ClassVar[int]
    kinds: ClassVar[tuple[type, ...]]

    def __init__(self, index: IndexReader[View] | JointIndex[View], threads: int | None) -> None:
        self.index = index
        self._requested_threads = threads
        self._name_ranks: weakref.WeakKeyDictionary[View, np.ndarray] = weakref.WeakKeyDictionary()
        self._count(None)

    @overload
    def search(self, query: Asked, top: int | None = 10, *, threads: int | None = None) -> list[Hit]: ...

    @overload
    def search(
        self, query: Iterable[Asked], top: int | None = 10, *, threads: int | None = None
    ) -> list[list[Hit]]: ...

    def search(
        self, query: Asked | Iterable[Asked], top: int | None = 10, *, threads: int | None = None
    ) -> list[Hit] | list[list[Hit]]:
        """The best images for a query, or one answer for each of several.

        query    a query as the class says, or any iterable of them; several at once keep all threads busy
        top      how many images, or all that the class returns when None; equal scores in byte order of the names
        threads  instead of those of the searcher
        """
        if top is not None and top < 1:
            raise InputError(f"top is {top}; give 1 or more, or leave it out for all")
        count = self._count(threads)
        if isinstance(query, self.kinds):
            return self._search_group([cast(Asked, query)], top, count)[0]
        waiting = iter(cast(Iterable[Asked], query))
        size = self.together if top is not None else 1  # all images of an answer may be many: one at a time then
        groups = iter(lambda: list(itertools.islice(waiting, size)), [])
        return [hits for group in groups for hits in self._search_group(group, top, count)]

    def scores(self, query: Asked) -> dict[str, float]:
        """The score of every live image, 0 included."""
        found = {hit.name: hit.score for hit in self.search(query, None)}
        return {name: found.get(name, 0.0) for name in self.index.snapshot.names()}

    def rank(self, query: Asked, *, threads: int | None = None) -> RankedImages:
        """All images of `search(query, None)` as numbers, in its order.

        Many times as fast where there are many images, because no name is read; `image_numbers` has the names.
        """
        snapshot = self.index.snapshot
        parts = self._all(snapshot, query, self._count(threads))
        if snapshot not in self._name_ranks:
            self._name_ranks[snapshot] = name_ranks(snapshot.segments)
        return ordered(parts, image_starts(snapshot.segments), self._name_ranks[snapshot])

    def image_numbers(self, names: Iterable[str]) -> dict[str, int]:
        """Name → number of those of the names that are live images, as `rank` numbers them."""
        return image_numbers(self.index.snapshot, names)

    @abc.abstractmethod
    def _best(self, snapshot: View, queries: Sequence[Asked], top: int | None, count: int) -> list[BestImages]:
        """The best images for each of some queries, by `count` threads."""

    @abc.abstractmethod
    def _all(self, snapshot: View, query: Asked, count: int) -> list[Part]:
        """All images that a search returns, in any order, by `count` threads."""

    def _count(self, threads: int | None) -> int:
        return thread_count(self._requested_threads if threads is None else threads)

    def _search_group(self, queries: Sequence[Asked], top: int | None, count: int) -> list[list[Hit]]:
        found = self._best(self.index.snapshot, queries, top, count)
        return [
            [Hit(decoded(name), score) for name, score in zip(best.names, best.scores.tolist(), strict=True)]
            for best in found
        ]
