"""Search in an index of any kind: one query or many, with results by name or as numbers."""

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
QueryT = TypeVar("QueryT")


class IndexSearcher(abc.ABC, Generic[View, QueryT]):
    """Ranks the images of an index or a joint index for a query; a subclass implements `_best` and `_all`.

    group_size  number of queries that are scored together
    kinds     types of a query
    """

    group_size: ClassVar[int]
    kinds: ClassVar[tuple[type, ...]]

    def __init__(self, index: IndexReader[View] | JointIndex[View], threads: int | None) -> None:
        self.index = index
        self._requested_threads = threads
        self._name_ranks: weakref.WeakKeyDictionary[View, np.ndarray] = weakref.WeakKeyDictionary()
        self._count(None)

    @overload
    def search(self, query: QueryT, top: int | None = 10, *, threads: int | None = None) -> list[Hit]: ...

    @overload
    def search(
        self, query: Iterable[QueryT], top: int | None = 10, *, threads: int | None = None
    ) -> list[list[Hit]]: ...

    def search(
        self, query: QueryT | Iterable[QueryT], top: int | None = 10, *, threads: int | None = None
    ) -> list[Hit] | list[list[Hit]]:
        """Find the best images for one or several queries.

        Parameters
        ----------
        query : query or iterable of queries
            Of the types that the class accepts; several at once keep all threads busy.
        top : int or None, default 10
            Number of images, all that the class returns if None.
        threads : int, optional
            Replaces the `threads` of the searcher.

        Returns
        -------
        list of Hit, or list of list of Hit
            The images, best first, equal scores in byte order of the names; one list per query for an iterable.

        Raises
        ------
        InputError
            If `top` is less than 1.
        """
        if top is not None and top < 1:
            raise InputError(f"top is {top}; give 1 or more, or leave it out for all")
        count = self._count(threads)
        if isinstance(query, self.kinds):
            return self._search_group([cast(QueryT, query)], top, count)[0]
        waiting = iter(cast(Iterable[QueryT], query))
        size = self.group_size if top is not None else 1  # rankings of all images are large: one at a time
        groups = iter(lambda: list(itertools.islice(waiting, size)), [])
        return [hits for group in groups for hits in self._search_group(group, top, count)]

    def scores(self, query: QueryT) -> dict[str, float]:
        """Return the score of every live image.

        Parameters
        ----------
        query : query
            Of a type that the class accepts.

        Returns
        -------
        dict of str to float
            Score by name; 0 for images that `search` does not return.
        """
        found = {hit.name: hit.score for hit in self.search(query, None)}
        return {name: found.get(name, 0.0) for name in self.index.snapshot.names()}

    def rank(self, query: QueryT, *, threads: int | None = None) -> RankedImages:
        """Rank all images of `search(query, None)`, in its order, as numbers.

        Much faster for large indexes, because no name is read.

        Parameters
        ----------
        query : query
            Of a type that the class accepts.
        threads : int, optional
            Replaces the `threads` of the searcher.

        Returns
        -------
        RankedImages
            Numbers, which `image_numbers` maps from names, and scores.
        """
        snapshot = self.index.snapshot
        parts = self._all(snapshot, query, self._count(threads))
        if snapshot not in self._name_ranks:
            self._name_ranks[snapshot] = name_ranks(snapshot.segments)
        return ordered(parts, image_starts(snapshot.segments), self._name_ranks[snapshot])

    def image_numbers(self, names: Iterable[str]) -> dict[str, int]:
        """Return the numbers of images as used by `rank`.

        Parameters
        ----------
        names : iterable of str
            Names of images.

        Returns
        -------
        dict of str to int
            Number by name, for those names that are live images.
        """
        return image_numbers(self.index.snapshot, names)

    @abc.abstractmethod
    def _best(self, snapshot: View, queries: Sequence[QueryT], top: int | None, count: int) -> list[BestImages]:
        """Find the best images for each query, with `count` threads."""

    @abc.abstractmethod
    def _all(self, snapshot: View, query: QueryT, count: int) -> list[Part]:
        """Find all images that a search returns, in any order, with `count` threads."""

    def _count(self, threads: int | None) -> int:
        return thread_count(self._requested_threads if threads is None else threads)

    def _search_group(self, queries: Sequence[QueryT], top: int | None, count: int) -> list[list[Hit]]:
        found = self._best(self.index.snapshot, queries, top, count)
        return [
            [Hit(decoded(name), score) for name, score in zip(best.names, best.scores.tolist(), strict=True)]
            for best in found
        ]
