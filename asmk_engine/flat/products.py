"""Scores of many vectors at once: approximate ones by a matrix product, and exact ones.

A matrix product is fast but not reproducible: the order of its sums depends on the shapes, the threads and the machine.
So it only selects candidates for the best images, whose scores are recomputed with sums of a fixed order.
"""

from __future__ import annotations

import functools
from typing import Protocol

import numpy as np

from asmk_engine.flat.codec import Codec, widened
from asmk_engine.flat.segment import GlobalSegment
from asmk_engine.kernels.vectors import dots, look_up, product_table
from asmk_engine.threads import forks_wait

BLOCK_BYTES = 16 << 20  # size of the vectors multiplied at a time, per query
MOST_BLOCK_BYTES = 64 << 20  # and at most: with many queries, the work per query and block dominates
EXACT_BYTES = 4 << 20  # size of the vectors whose exact scores one task computes
_UNIT_ROUNDOFF = 2.0**-24
_LONGEST = 1.01  # upper bound of the length of a unit vector rounded to half precision


class VectorScores(Protocol):
    """The scores of queries with stored vectors.

    margin        largest difference between an approximate and an exact score
    block_bytes   best size of the stored vectors to score at a time
    side_by_side  whether to score several blocks in parallel; otherwise one block uses all processors
    """

    margin: float
    block_bytes: int
    side_by_side: bool

    def approximate(self, segment: GlobalSegment, begin: int, end: int) -> np.ndarray:
        """Score all queries with vectors `begin` to `end` (exclusive) of a segment, [q, n] float32 or float64."""

    def exact(self, stored: np.ndarray, query: int) -> np.ndarray:
        """Score one query with stored vectors [n, W], [n] float64; each score depends only on its two vectors."""


def rounding_margin(dim: int) -> float:
    """Bound the rounding error of a dot product of two unit vectors of `dim` dimensions, for any order of the sum.

    gamma_n |x| |y| with gamma_n = n u / (1 - n u), u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms,
    section 3.1), plus an allowance for comparisons in single precision.
    """
    rounding = dim * _UNIT_ROUNDOFF
    return _LONGEST * rounding / (1 - rounding) + 2 * _UNIT_ROUNDOFF


class FlatScores:
    """Dot products with stored vectors in single or half precision.

    queries  [q, D] float32, of length 1
    halves   whether the stored vectors are in half precision; then the conversion takes longer than the product
    """

    def __init__(self, queries: np.ndarray, halves: bool = False) -> None:
        self.side_by_side = halves
        self.queries = np.ascontiguousarray(queries, np.float32)
        self.block_bytes = min(BLOCK_BYTES * len(queries), MOST_BLOCK_BYTES)
        self.margin = rounding_margin(self.queries.shape[1])

    def approximate(self, segment: GlobalSegment, begin: int, end: int) -> np.ndarray:
        """See `VectorScores`."""
        vectors = widened(segment.rows(begin, end))
        with forks_wait():
            product: np.ndarray = self.queries @ vectors.T
        return product

    def exact(self, stored: np.ndarray, query: int) -> np.ndarray:
        """See `VectorScores`; summed in double precision."""
        scores = np.empty(len(stored))
        dots(widened(stored), self.queries[query], scores)
        return scores


class ProductScores:
    """Asymmetric distances: exact queries [q, D] float32, quantised stored vectors (Jegou et al., section 3).

    The score is the dot product of the query with the centroids, a sum of one table entry per sub-space.
    """

    block_bytes = EXACT_BYTES
    margin = 0.0
    side_by_side = True

    def __init__(self, queries: np.ndarray, centroids: np.ndarray) -> None:
        self._queries = np.ascontiguousarray(queries, np.float32)
        self._centroids = centroids

    @functools.cached_property
    def _tables(self) -> np.ndarray:
        tables = np.empty((len(self._queries), *self._centroids.shape[:2]), np.float32)
        for query, table in zip(self._queries, tables, strict=True):
            product_table(query, self._centroids, table)
        return tables

    def approximate(self, segment: GlobalSegment, begin: int, end: int) -> np.ndarray:
        """See `VectorScores`; these scores are exact."""
        stored = segment.rows(begin, end)
        return np.array([self.exact(stored, query) for query in range(len(self._queries))])

    def exact(self, stored: np.ndarray, query: int) -> np.ndarray:
        """See `VectorScores`."""
        scores = np.empty(len(stored))
        look_up(np.ascontiguousarray(stored), self._tables[query], scores)
        return scores


def scores_for(codec: Codec, queries: np.ndarray) -> VectorScores:
    """Return the scores of queries [q, D] float32 with vectors stored by a codec."""
    if codec.centroids is not None:
        return ProductScores(queries, codec.centroids)
    return FlatScores(queries, codec.precision == "half")
