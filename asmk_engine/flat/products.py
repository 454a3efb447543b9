"""Scores of many vectors at once: what a product of matrices proposes, and what is exact.

A product of matrices is fast and nearly right: how its sums are ordered depends on the shapes, the threads and the
machine. So it only proposes who may be among the best; their scores are computed again in an order of our own.
"""

from __future__ import annotations

import functools
from typing import Protocol

import numpy as np

from asmk_engine.flat.codec import Codec, widened
from asmk_engine.flat.segment import GlobalSegment
from asmk_engine.kernels.vectors import dots, look_up, product_table
from asmk_engine.threads import forks_wait

BLOCK_BYTES = 16 << 20  # of vectors that are multiplied at a time by one query
MOST_BLOCK_BYTES = 64 << 20  # by many: what is done for each query and block counts then
EXACT_BYTES = 4 << 20  # of vectors whose exact scores one task computes
_UNIT_ROUNDOFF = 2.0**-24
_LONGEST = 1.01  # what rounding to half precision leaves of a length of 1, at most


class VectorScores(Protocol):
    """The scores of some queries with stored vectors.

    margin       an approximate score is at most so far from the exact one
    block_bytes  of stored vectors that are best scored at a time
    side_by_side whether several blocks are best scored at once; else one takes all processors by itself
    """

    margin: float
    block_bytes: int
    side_by_side: bool

    def approximate(self, segment: GlobalSegment, begin: int, end: int) -> np.ndarray:
        """Scores of all queries with vectors `begin` to `end` (exclusive) of a segment, [q, n] float32 or float64."""

    def exact(self, stored: np.ndarray, query: int) -> np.ndarray:
        """Scores of one query with some stored vectors [n, W], [n] float64; each depends on the two vectors only."""


def rounding_margin(dim: int) -> float:
    """How far a dot product of two vectors of `dim` numbers and length 1 is from its true value, in any order of sums.

    gamma_n |x| |y| with gamma_n = n u / (1 - n u), u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms,
    section 3.1), and a little for comparing in single precision.
    """
    rounding = dim * _UNIT_ROUNDOFF
    return _LONGEST * rounding / (1 - rounding) + 2 * _UNIT_ROUNDOFF


class FlatScores:
    """Dot products with vectors in single or half precision; queries [q, D] float32 of length 1.

    halves  whether they are in half precision: widening them takes longer than the product
    """

    def __init__(self, queries: np.ndarray, halves: bool = False) -> None:
        self.side_by_side = halves
        self.queries = np.ascontiguousarray(queries, np.float32)
        self.block_bytes = min(BLOCK_BYTES * len(queries), MOST_BLOCK_BYTES)
        self.margin = rounding_margin(self.queries.shape[1])

    def approximate(self, segment: GlobalSegment, begin: int, end: int) -> np.ndarray:
        """See `Scores`."""
        vectors = widened(segment.rows(begin, end))
        with forks_wait():
            product: np.ndarray = self.queries @ vectors.T
        return product

    def exact(self, stored: np.ndarray, query: int) -> np.ndarray:
        """See `Scores`; summed in double precision."""
        scores = np.empty(len(stored))
        dots(widened(stored), self.queries[query], scores)
        return scores


class ProductScores:
    """Asymmetric distances: queries [q, D] float32 as they are, stored vectors as centroids (Jegou et al., section 3).

    The score is the dot product of the query with the centroids, a sum of one number of a table for each sub-space.
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
        """See `Scores`; these are exact."""
        stored = segment.rows(begin, end)
        return np.array([self.exact(stored, query) for query in range(len(self._queries))])

    def exact(self, stored: np.ndarray, query: int) -> np.ndarray:
        """See `Scores`."""
        scores = np.empty(len(stored))
        look_up(np.ascontiguousarray(stored), self._tables[query], scores)
        return scores


def scores_for(codec: Codec, queries: np.ndarray) -> VectorScores:
    """What scores queries [q, D] float32 with vectors that are stored as a codec says."""
    if codec.centroids is not None:
        return ProductScores(queries, codec.centroids)
    return FlatScores(queries, codec.precision == "half")
