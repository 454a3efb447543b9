"""What the searchers that need the neighbour table of an index have in common."""

from __future__ import annotations

import abc
import weakref
from typing import Any, Generic, TypeGuard, TypeVar

import numpy as np

from asmk_engine.diffusion.graph import NearQuery
from asmk_engine.diffusion.similarities import NOT_JOINT, Similarities
from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.images.boxes import Box
from asmk_engine.indexes.base import Collection
from asmk_engine.indexes.neighbours import NeighbourTable, commit_of, map_neighbours, stored_tables
from asmk_engine.indexes.numbering import image_starts
from asmk_engine.indexes.ranking import Part
from asmk_engine.indexes.searcher import IndexSearcher, Places
from asmk_engine.storage.folder import Folder
from asmk_engine.verification.match import Match
from asmk_engine.verification.reranking import Comparison, Reranking

Prepared = TypeVar("Prepared")


class NeighbourSearcher(IndexSearcher[Any, Any], Generic[Prepared]):
    """Ranks the images of an index by the scores of another searcher and by their nearest neighbours.

    A subclass implements `_best`, `_all` and `_prepare`. Raises InputError if the searcher searches several indexes as
    one; a search raises NotFoundError if the index has no neighbour table of its current commit, and DamagedError if
    the table is damaged.

    searcher  what scores the images for a query
    """

    def __init__(self, searcher: IndexSearcher[Any, Any]) -> None:
        if not isinstance(searcher.index, Collection):
            raise InputError(f"{searcher.index.path}: {NOT_JOINT}")
        self.searcher = searcher
        super().__init__(searcher.index, None)
        self._folder = Folder(searcher.index.path)
        self._prepared: weakref.WeakKeyDictionary[Any, Prepared] = weakref.WeakKeyDictionary()

    @property
    def group_size(self) -> int:  # type: ignore[override]
        """The number of queries that are scored together."""
        return self.searcher.group_size

    @property
    def kinds(self) -> tuple[type, ...]:  # type: ignore[override]
        """The types of a query besides photographs."""
        return self.searcher.kinds

    def matches_of(
        self, snapshot: Any, query: Any, images: Places, options: Comparison, count: int
    ) -> list[list[Match | None]]:
        """Compare images as the searcher of the index does."""
        return self.searcher.matches_of(snapshot, query, images, options, count)

    def local_extractors(self, snapshot: Any) -> list[str]:
        """Return those of the searcher of the index."""
        return self.searcher.local_extractors(snapshot)

    def expanded(
        self, snapshot: Any, query: Any, images: Places, matches: list[list[Match | None]], reranking: Reranking
    ) -> Any:
        """Expand the query as the searcher of the index does."""
        return self.searcher.expanded(snapshot, query, images, matches, reranking)

    @property
    def _assignments(self) -> int:
        return int(getattr(self.searcher, "multiple_assignment", 1))  # global descriptors have no words

    def _near(self, snapshot: Any, similarities: Similarities, query: Any, top: int, count: int) -> NearQuery:
        """Return the nearest images of a query as `Similarities.divided` returns it second."""
        near = similarities.of_query(query, top, count)
        starts = image_starts(snapshot.segments)
        return NearQuery(starts[near.segments] + near.numbers, near.scores, similarities.own)

    @abc.abstractmethod
    def _prepare(self, snapshot: Any, table: NeighbourTable) -> Prepared:
        """Return what all searches of a commit need of its neighbour table."""

    def _of(self, snapshot: Any) -> Prepared:
        """Return what was prepared for a commit; prepares it for the first search."""
        if snapshot not in self._prepared:
            self._prepared[snapshot] = self._prepare(snapshot, neighbour_table(self._folder, snapshot))
        return self._prepared[snapshot]

    def _names(self) -> Any:
        return self.searcher._names()

    def _is_query(self, given: object) -> TypeGuard[Any]:
        return self.searcher._is_query(given)

    def _described(self, photograph: Any, box: Box | None) -> object:
        return self.searcher._described(photograph, box)

    def _count(self, threads: int | None) -> int:
        return self.searcher._count(threads)


def neighbour_table(folder: Folder, snapshot: Any) -> NeighbourTable:
    """Map the neighbour table of a commit.

    Raises NotFoundError if there is none, which names the commit of the one there is, and DamagedError if it is
    damaged.
    """
    if (found := map_neighbours(folder, snapshot.manifest)) is not None:
        return found
    command = f"`asmk-engine neighbours {folder.path}`"
    commit, others = snapshot.manifest.commit, sorted({commit_of(name) or 0 for name in stored_tables(folder)})
    if others:
        had = ", ".join(map(str, others))
        raise NotFoundError(
            f"{folder.path}: its neighbour table is of commit {had}, but the index is at commit {commit}; build it "
            f"again with {command}"
        )
    raise NotFoundError(
        f"{folder.path}: has no neighbour table of commit {commit}, which diffusion and augmentation need and every "
        f"change of an index removes; build it with {command}"
    )


def by_segment(starts: np.ndarray, numbers: np.ndarray, scores: np.ndarray) -> list[Part]:
    """Divide images by their segments.

    numbers  [n] int64, over all segments
    scores   [n] float64
    """
    places = np.searchsorted(starts, numbers, side="right") - 1
    return [
        (place, numbers[places == place] - starts[place], scores[places == place])
        for place in np.unique(places).tolist()
    ]
