"""A searcher that ranks by diffusion what another searcher finds."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np

from asmk_engine.diffusion.graph import Diffusion, diffused
from asmk_engine.diffusion.similarities import NOT_JOINT
from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.images.boxes import Box
from asmk_engine.indexes.base import Collection
from asmk_engine.indexes.image_table import ImageTable
from asmk_engine.indexes.neighbours import NeighbourTable, commit_of, map_table, stored_tables
from asmk_engine.indexes.numbering import image_starts
from asmk_engine.indexes.ranking import BestImages, Part, best_images
from asmk_engine.indexes.searcher import IndexSearcher
from asmk_engine.storage.folder import Folder


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
        self._tables: weakref.WeakKeyDictionary[Any, NeighbourTable] = weakref.WeakKeyDictionary()

    @property
    def group_size(self) -> int:  # type: ignore[override]
        """The number of queries that are scored together."""
        return self.searcher.group_size

    @property
    def kinds(self) -> tuple[type, ...]:  # type: ignore[override]
        """The types of a query besides photographs."""
        return self.searcher.kinds

    def _best(self, snapshot: Any, queries: Sequence[Any], top: int | None, count: int) -> list[BestImages]:
        table = self._table(snapshot)
        depth = top if top is None else max(top, self.diffusion.seeds)
        found = self.searcher.best_of(snapshot, queries, depth, count)
        return [self._ranked(snapshot, table, best, top) for best in found]

    def _all(self, snapshot: Any, query: Any, count: int) -> list[Part]:
        table = self._table(snapshot)
        parts = self.searcher.all_images(snapshot, query, count)
        return self._parts(snapshot, table, parts, best_images(snapshot.segments, parts, self.diffusion.seeds))

    def _ranked(self, snapshot: Any, table: NeighbourTable, best: BestImages, top: int | None) -> BestImages:
        places = np.unique(best.segments).tolist()
        parts = [(place, best.numbers[best.segments == place], best.scores[best.segments == place]) for place in places]
        return best_images(snapshot.segments, self._parts(snapshot, table, parts, best), top)

    def _parts(self, snapshot: Any, table: NeighbourTable, parts: Sequence[Part], best: BestImages) -> list[Part]:
        """Return the images that diffusion reaches with its results, and the others of `parts` with theirs."""
        if not len(best.scores):
            return [*parts]
        starts = image_starts(snapshot.segments)
        reached, results = diffused(
            table,
            starts[best.segments] + best.numbers,
            best.scores,
            self.diffusion,
            lambda numbers: names_of(snapshot.segments, starts, numbers),
        )
        if not len(reached):
            return [*parts]
        factor = float(results.min()) / float(best.scores[0]) / 2
        others = []
        for place, numbers, scores in parts:
            is_other = ~np.isin(starts[place] + numbers, reached)
            others.append((place, numbers[is_other], scores[is_other] * factor))
        return [*others, *by_segment(starts, reached, results)]

    def _table(self, snapshot: Any) -> NeighbourTable:
        if snapshot not in self._tables:
            self._tables[snapshot] = neighbour_table(self._folder, snapshot)
        return self._tables[snapshot]

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
    if (found := map_table(folder, snapshot.manifest)) is not None:
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
