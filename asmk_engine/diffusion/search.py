"""A searcher that ranks by diffusion what another searcher finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asmk_engine.diffusion.base import NeighbourSearcher, by_segment
from asmk_engine.diffusion.graph import Diffusion, diffused
from asmk_engine.diffusion.similarities import Similarities, similarities_of
from asmk_engine.indexes.image_table import ImageTable
from asmk_engine.indexes.neighbours import NeighbourTable
from asmk_engine.indexes.numbering import image_starts
from asmk_engine.indexes.ranking import BestImages, Part, best_images
from asmk_engine.indexes.searcher import IndexSearcher


@dataclass(frozen=True, eq=False)
class _NeighbourSpace:
    """The neighbour table of a commit, and the similarities of a query to its images."""

    table: NeighbourTable
    similarities: Similarities


class DiffusionSearcher(NeighbourSearcher[_NeighbourSpace]):
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
        super().__init__(searcher)
        self.diffusion = diffusion or Diffusion()

    def _best(self, snapshot: Any, queries: Sequence[Any], top: int | None, count: int) -> list[BestImages]:
        graph = self._of(snapshot)
        pairs = [graph.similarities.divided(query, self._assignments) for query in queries]
        found = self.searcher.best_of(snapshot, [wide for wide, _ in pairs], top, count)
        return [
            best_images(snapshot.segments, self._ranked(snapshot, parts_of(best), narrow, count), top)
            for best, (_, narrow) in zip(found, pairs, strict=True)
        ]

    def _all(self, snapshot: Any, query: Any, count: int) -> list[Part]:
        wide, narrow = self._of(snapshot).similarities.divided(query, self._assignments)
        return self._ranked(snapshot, self.searcher.all_images(snapshot, wide, count), narrow, count)

    def _ranked(self, snapshot: Any, parts: Sequence[Part], query: Any, count: int) -> list[Part]:
        """Return the images that diffusion reaches with its results, and the others of `parts`."""
        graph, starts = self._of(snapshot), image_starts(snapshot.segments)
        near = self._near(snapshot, graph.similarities, query, self.diffusion.neighbours, count)
        if not len(near.numbers):
            return [*parts]
        reached, results = diffused(
            graph.table,
            near,
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

    def _prepare(self, snapshot: Any, table: NeighbourTable) -> _NeighbourSpace:
        return _NeighbourSpace(table, similarities_of(self.index, snapshot, self._count(None), table.scales))


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
