"""A searcher that ranks by diffusion what another searcher finds."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from asmk_engine.diffusion.graph import Diffusion, NearQuery, diffused
from asmk_engine.diffusion.similarities import NOT_JOINT, Similarities, similarities_of
from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.images.boxes import Box
from asmk_engine.indexes.base import Collection
from asmk_engine.indexes.image_table import ImageTable
from asmk_engine.indexes.neighbours import NeighbourTable, commit_of, map_neighbours, stored_tables
from asmk_engine.indexes.numbering import image_starts
from asmk_engine.indexes.ranking import BestImages, Part, best_images
from asmk_engine.indexes.searcher import IndexSearcher, Places
from asmk_engine.storage.folder import Folder
from asmk_engine.verification.match import Match
from asmk_engine.verification.reranking import Comparison, Reranking


@dataclass(frozen=True, eq=False)
class _NeighbourSpace:
    """The neighbour table of a commit, and the similarities of a query to its images."""

    table: NeighbourTable
    similarities: Similarities


class DiffusionSearcher(IndexSearcher[Any, Any]):
    """Ranks the images of an index by diffusion of the scores of another searcher over their nearest neighbours.

    Parameters
    ----------
    searcher : Searcher, GlobalSearcher or FusedSearcher
        What scores the images for a query. Its index needs a neighbour table of its current commit, see
        `build_neighbours`.
    diffusion : Diffusion, optional
        The options, by default those of `Diffusion`.

    Raises
    ------
    InputError
        If the searcher searches several indexes as one.
    NotFoundError
        From a search, if the index has no neighbour table of its current commit.
    DamagedError
        From a search, if the neighbour table is damaged.

    Notes
    -----
    The images that diffusion reaches come first, with its results as scores, multiplied so that the greatest is the
    best score of the searcher. Those that it does not reach follow in the order of the searcher, with their scores
    multiplied so that they are below.

    Examples
    --------
    >>> from asmk_engine import Index, Searcher
    >>> from asmk_engine.diffusion import DiffusionSearcher, build_neighbours
    >>> index = Index.open("photos.index")  # doctest: +SKIP
    >>> table = build_neighbours(index)  # doctest: +SKIP
    >>> hits = DiffusionSearcher(Searcher(index)).search("query.jpg")  # doctest: +SKIP
    """

    def __init__(self, searcher: IndexSearcher[Any, Any], diffusion: Diffusion | None = None) -> None:
        if not isinstance(searcher.index, Collection):
            raise InputError(f"{searcher.index.path}: {NOT_JOINT}")
        self.searcher = searcher
        super().__init__(searcher.index, None)
        self.diffusion = diffusion or Diffusion()
        self._folder = Folder(searcher.index.path)
        self._graphs: weakref.WeakKeyDictionary[Any, _NeighbourSpace] = weakref.WeakKeyDictionary()

    @property
    def group_size(self) -> int:  # type: ignore[override]
        """The number of queries that are scored together."""
        return self.searcher.group_size

    @property
    def kinds(self) -> tuple[type, ...]:  # type: ignore[override]
        """The types of a query besides photographs."""
        return self.searcher.kinds

    def _best(self, snapshot: Any, queries: Sequence[Any], top: int | None, count: int) -> list[BestImages]:
        graph = self._graph(snapshot)
        pairs = [graph.similarities.divided(query, self._assignments) for query in queries]
        found = self.searcher.best_of(snapshot, [wide for wide, _ in pairs], top, count)
        return [
            best_images(snapshot.segments, self._ranked(snapshot, parts_of(best), narrow, count), top)
            for best, (_, narrow) in zip(found, pairs, strict=True)
        ]

    def _all(self, snapshot: Any, query: Any, count: int) -> list[Part]:
        wide, narrow = self._graph(snapshot).similarities.divided(query, self._assignments)
        return self._ranked(snapshot, self.searcher.all_images(snapshot, wide, count), narrow, count)

    def matches_of(
        self,
        snapshot: Any,
        query: Any,
        images: Places,
        options: Comparison,
        count: int,
    ) -> list[list[Match | None]]:
        """Verify images as the searcher of the index does."""
        return self.searcher.matches_of(snapshot, query, images, options, count)

    def expanded(
        self,
        snapshot: Any,
        query: Any,
        images: Places,
        matches: list[list[Match | None]],
        reranking: Reranking,
    ) -> Any:
        """Expand the query as the searcher of the index does."""
        return self.searcher.expanded(snapshot, query, images, matches, reranking)

    @property
    def _assignments(self) -> int:
        return int(getattr(self.searcher, "multiple_assignment", 1))  # global descriptors have no words

    def _ranked(self, snapshot: Any, parts: Sequence[Part], query: Any, count: int) -> list[Part]:
        """Return the images that diffusion reaches with its results, and the others of `parts`."""
        graph, starts = self._graph(snapshot), image_starts(snapshot.segments)
        near = graph.similarities.of_query(query, self.diffusion.neighbours, count)
        if not len(near.scores):
            return [*parts]
        reached, results = diffused(
            graph.table,
            NearQuery(starts[near.segments] + near.numbers, near.scores, graph.similarities.own),
            self.diffusion,
            lambda numbers: names_of(snapshot.segments, starts, numbers),
        )
        best = max((float(scores.max(initial=0.0)) for _, _, scores in parts), default=0.0)
        if not len(reached) or best <= 0:
            return [*parts]
        factor = float(results.min()) / 2  # the best of the others is below the last that is reached
        others = []
        for place, numbers, scores in parts:
            is_other = ~np.isin(starts[place] + numbers, reached)
            others.append((place, numbers[is_other], scores[is_other] * factor))
        return [*others, *by_segment(starts, reached, results * best)]

    def _graph(self, snapshot: Any) -> _NeighbourSpace:
        if snapshot not in self._graphs:
            table = neighbour_table(self._folder, snapshot)
            similarities = similarities_of(self.index, snapshot, self._count(None), table.scales)
            self._graphs[snapshot] = _NeighbourSpace(table, similarities)
        return self._graphs[snapshot]

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
        f"{folder.path}: has no neighbour table of commit {commit}, which diffusion needs and every change of an index "
        f"removes; build it with {command}"
    )


def parts_of(best: BestImages) -> list[Part]:
    """Divide the best images of a query by their segments."""
    rows = [(place, best.segments == place) for place in np.unique(best.segments).tolist()]
    return [(place, best.numbers[here], best.scores[here]) for place, here in rows]


def names_of(segments: Sequence[ImageTable], starts: np.ndarray, numbers: np.ndarray) -> list[bytes]:
    """Return the names of images by their numbers over all segments, [n] int64."""
    names = [b""] * len(numbers)
    places = np.searchsorted(starts, numbers, side="right") - 1
    for place in np.unique(places).tolist():
        rows = np.flatnonzero(places == place)
        for row, name in zip(rows.tolist(), segments[place].names_as_bytes(numbers[rows] - starts[place]), strict=True):
            names[row] = name
    return names


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
