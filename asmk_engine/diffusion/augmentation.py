"""A searcher that augments the indexed images with their nearest neighbours: database-side augmentation.

    s'(q, x) = (s(q, x) + sum over j of w_j s(q, x_j)) / (1 + sum over j of w_j),   w_j = (sim(x, x_j) / sim(x, x))^p

x_j are the k nearest images of x. Where s is linear in x, as the dot product of vectors is, this is the search of the
weighted means of each image and its neighbours (Turcot and Lowe, WS-LAVD 2009; Arandjelovic and Zisserman, CVPR 2012;
with weights that fall with the similarity, Gordo, Almazan, Revaud and Larlus, IJCV 2017). No image has to be stored
again, and s may be any score, such as that of several kinds of features. The mean ranked better than the sum.

An indexed image that equals the query is no neighbour of any: its score, far above all others, says how similar it is
to the query, not how similar x is, and the order of the others would depend on whether the query is in the index.

The results are rounded to single precision: what is equal but for rounding is equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asmk_engine.diffusion.base import NeighbourSearcher, by_segment
from asmk_engine.diffusion.similarities import Similarities, similarities_of
from asmk_engine.errors import InputError
from asmk_engine.indexes.image_table import ImageTable
from asmk_engine.indexes.neighbours import NONE, NeighbourTable
from asmk_engine.indexes.numbering import image_starts
from asmk_engine.indexes.ranking import BestImages, Part, best_images
from asmk_engine.indexes.searcher import IndexSearcher
from asmk_engine.kernels.neighbours import average

BLOCK = 4096
"""Images whose neighbours are read at a time."""
POWER = 0.35
"""Default exponent: ASMK scores of two photographs of one object are about 0.1, and a hundredth for others."""
POWER_OF_VECTORS = 12.0
"""Default exponent for global descriptors, whose dot products are about 0.85 for the nearest of any image."""


@dataclass(frozen=True)
class NeighbourAugmentation:
    """The options of database-side augmentation, see `asmk_engine.diffusion.augmentation` for the formula.

    Parameters
    ----------
    neighbours : int, default 3
        k, the number of nearest images that count for an image; at most those that the table holds.
    power : float, optional
        p, the exponent of their similarities; 0 gives all the same weight as the image itself. By default 0.35, and 12
        for an index that has only global descriptors, whose dot products are near 1 for all images alike.

    Raises
    ------
    InputError
        If an option is out of its range.
    """

    neighbours: int = 3
    power: float | None = None

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise InputError(f"neighbours of the augmentation is {self.neighbours}; give 1 or more, or leave it out")
        if self.power is not None and not (math.isfinite(self.power) and self.power >= 0):
            raise InputError(f"power of the augmentation is {self.power}; give a number of 0 or more")


@dataclass(frozen=True, eq=False)
class WeightedNeighbours:
    """The neighbours of all images of a commit, in memory: 8 k bytes an image.

    neighbours  [I, k] uint32, numbers over all segments, 0 where an image has fewer
    weights     [I, k] float32, 0 where an image has fewer
    """

    neighbours: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, table: NeighbourTable, own: float, width: int, power: float) -> WeightedNeighbours:
        """Read them from a table, block by block; raises DamagedError if it is damaged.

        own    the similarity of an image to itself
        width  k, at most that of the table
        power  p
        """
        shape = table.images, min(width, table.width)
        found = cls(np.zeros(shape, np.uint32), np.zeros(shape, np.float32))
        for begin in range(0, table.images, BLOCK):
            rows = np.arange(begin, min(begin + BLOCK, table.images))
            near, similarities = (part[:, : shape[1]] for part in table.rows(rows))
            is_one = near != NONE
            found.neighbours[rows] = np.where(is_one, near, 0)
            found.weights[rows] = np.where(is_one, (similarities.astype(np.float64) / own) ** power, 0)
        return found

    def averaged(self, segments: Sequence[ImageTable], parts: Sequence[Part], copies: np.ndarray) -> list[Part]:
        """Return the images of `parts`, and those with a neighbour among them, with their new scores.

        copies  numbers over all segments of the images that are no neighbours, [n] int64
        """
        starts = image_starts(segments)
        scores, is_found = np.zeros(len(self.weights)), np.zeros(len(self.weights), bool)
        for place, numbers, given in parts:
            scores[starts[place] + numbers] = given
            is_found[starts[place] + numbers] = True
        others, averages = scores.copy(), np.empty(len(scores))
        others[copies] = np.nan
        average(scores, others, self.neighbours, self.weights, averages)
        numbers = np.flatnonzero(is_found | (averages > 0))
        return by_segment(starts, numbers, averages[numbers].astype(np.float32).astype(np.float64))


@dataclass(frozen=True, eq=False)
class _AugmentedSpace:
    """The neighbours of all images of a commit, and the similarities of a query to them."""

    neighbours: WeightedNeighbours
    similarities: Similarities


class AugmentingSearcher(NeighbourSearcher[_AugmentedSpace]):
    """Ranks the images of an index by the scores of another searcher, averaged over their nearest neighbours.

    Parameters
    ----------
    searcher : Searcher, GlobalSearcher or FusedSearcher
        What scores the images for a query. Its index needs a neighbour table of its current commit, see
        `build_neighbours`.
    augmentation : NeighbourAugmentation, optional
        The options, by default those of `NeighbourAugmentation`.

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
    Every search scores all images. The first one reads the neighbours, which then take 8 bytes each in memory. Images
    that share nothing with the query are found if a neighbour does.

    Examples
    --------
    >>> from asmk_engine import Index, Searcher
    >>> from asmk_engine.diffusion import AugmentingSearcher, build_neighbours
    >>> index = Index.open("photos.index")  # doctest: +SKIP
    >>> table = build_neighbours(index)  # doctest: +SKIP
    >>> hits = AugmentingSearcher(Searcher(index)).search("query.jpg")  # doctest: +SKIP
    """

    def __init__(self, searcher: IndexSearcher[Any, Any], augmentation: NeighbourAugmentation | None = None) -> None:
        super().__init__(searcher)
        self.augmentation = augmentation or NeighbourAugmentation()

    def _best(self, snapshot: Any, queries: Sequence[Any], top: int | None, count: int) -> list[BestImages]:
        return [best_images(snapshot.segments, self._all(snapshot, query, count), top) for query in queries]

    def _all(self, snapshot: Any, query: Any, count: int) -> list[Part]:
        space = self._of(snapshot)
        wide, narrow = space.similarities.divided(query, self._assignments)
        near = self._near(snapshot, space.similarities, narrow, self.augmentation.neighbours + 1, count)
        parts = self.searcher.all_images(snapshot, wide, count)
        return space.neighbours.averaged(snapshot.segments, parts, near.copies)

    def _prepare(self, snapshot: Any, table: NeighbourTable) -> _AugmentedSpace:
        similarities = similarities_of(self.index, snapshot, self._count(None), table.scales)
        options = self.augmentation
        power = options.power if options.power is not None else POWER_OF_VECTORS if similarities.is_global else POWER
        return _AugmentedSpace(WeightedNeighbours.of(table, similarities.own, options.neighbours, power), similarities)
