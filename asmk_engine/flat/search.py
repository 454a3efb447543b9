"""Search in a global index: every vector is compared with the query."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.features import Features, float_matrix
from asmk_engine.flat.index import GlobalIndex
from asmk_engine.flat.nearest import all_scores, nearest
from asmk_engine.flat.products import VectorScores, scores_for
from asmk_engine.flat.snapshot import GlobalSnapshot
from asmk_engine.indexes.answers import decoded
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.indexes.ranking import BestImages, Part
from asmk_engine.indexes.searcher import IndexSearcher, check_top

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Expansion:
    """Query expansion weighted by similarity: the sum of the query and its nearest images (alpha-QE).

    q' = q + sum over the k nearest x of max(q . x, 0)^alpha x, normalised to length 1 (Radenovic et al., PAMI 2019).

    neighbours  number of nearest images, k
    alpha       exponent of the similarity; 0 gives equal weights, as in average query expansion
    """

    neighbours: int = 10
    alpha: float = 3.0

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise InputError(f"neighbours is {self.neighbours}; give 1 or more, or leave expansion out")
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise InputError(f"alpha of the expansion is {self.alpha}; give a number of 0 or more (3 is common)")

    def blend(self, vector: np.ndarray, neighbours: np.ndarray, similarities: np.ndarray) -> np.ndarray:
        """Blend a vector [D] with its neighbours [k, D] of these similarities [k] into one [D] float32 of length 1.

        Neighbours with a similarity of 0 or less are ignored.
        """
        weights = np.where(similarities > 0, np.maximum(similarities, 0.0) ** self.alpha, 0.0)
        total = vector.astype(np.float64)
        for weight, neighbour in zip(weights, neighbours.astype(np.float64), strict=True):
            total += weight * neighbour
        length = math.sqrt(float(np.cumsum(total * total)[-1]))  # summed in order: the same on every machine
        return np.asarray(total / length if length else total, np.float32)


class RankedMatrix(NamedTuple):
    """The best images of several queries, best first.

    Attributes
    ----------
    names : ndarray of shape (q, k), str objects
        Names of the images.
    scores : ndarray of shape (q, k), float64
        Their similarities to the queries.
    """

    names: np.ndarray
    scores: np.ndarray


class GlobalSearcher(IndexSearcher[GlobalSnapshot, Features]):
    """Ranks the images of a global index or a joint index for photographs, or features with exactly one descriptor.

    Parameters
    ----------
    index : GlobalIndex or JointIndex
        The index to search.
    expansion : Expansion, optional
        Expand each query by its nearest images and search again; not by default.
    device : {"auto", "cpu", "cuda"}, default "auto"
        Device of the matrix products; `auto` is CUDA if available.
    threads : int, optional
        Threads of a search, except in matrix products; all available by default.

    Raises
    ------
    InputError
        If the device is unknown.

    Notes
    -----
    Scores are cosines, or estimates of them for quantised vectors; images with a score of 0 or less are also returned.
    A search runs on the current commit of `index`. Results depend neither on the device nor on the threads.
    """

    group_size = 64
    kinds = (Features,)

    def __init__(
        self,
        index: GlobalIndex | JointIndex[GlobalSnapshot],
        expansion: Expansion | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        if device not in DEVICES:
            raise InputError(f"device is {device!r}; choose one of {', '.join(DEVICES)}")
        super().__init__(index, threads)
        self.expansion = expansion
        self._device = device

    def nearest(
        self,
        vectors: np.ndarray,
        top: int | None,
        *,
        snapshot: GlobalSnapshot | None = None,
        threads: int | None = None,
    ) -> list[BestImages]:
        """Find the nearest images of vectors [q, D] float32 transformed by the codec, without expansion."""
        snapshot, count = snapshot or self.index.snapshot, self._count(threads)
        return nearest(snapshot, self._scores(snapshot, vectors), len(vectors), top, count) if len(vectors) else []

    def all_nearest(self, snapshot: GlobalSnapshot, vector: np.ndarray, threads: int) -> list[Part]:
        """Return the scores of all images for a vector [D] float32 transformed by the codec, without expansion."""
        return all_scores(snapshot, self._scores(snapshot, vector[None]), threads)

    def search_matrix(self, queries: np.ndarray, top: int | None = 10, *, threads: int | None = None) -> RankedMatrix:
        """Find the best images for the rows of a matrix.

        Parameters
        ----------
        queries : ndarray of shape (q, D0), float16, float32 or float64
            One descriptor for each query, as the codec expects them; they need not be normalised.
        top : int or None, default 10
            Number of images, all if None.
        threads : int, optional
            Replaces the `threads` of the searcher.

        Returns
        -------
        RankedMatrix
            A tuple of `names` of shape (q, k), str objects, and `scores` of shape (q, k), float64, where k is `top`, or
            the number of images if there are fewer. Each row is what `search` finds for this query.

        Raises
        ------
        InputError
            If `top` is less than 1, or the matrix is not of finite floating-point numbers.
        MismatchError
            If the dimension differs from that of the codec.
        """
        check_top(top)
        matrix, snapshot, count = float_matrix(queries, "the queries"), self.index.snapshot, self._count(threads)
        size = self.group_size if top is not None else 1
        best = [
            found
            for begin in range(0, len(matrix), size)
            for found in self._nearest_of(snapshot, matrix[begin : begin + size], top, count)
        ]
        kept = snapshot.images if top is None else min(top, snapshot.images)
        names, scores = np.empty((len(matrix), kept), object), np.empty((len(matrix), kept))
        for row, found in enumerate(best):
            names[row], scores[row] = [decoded(name) for name in found.names], found.scores
        return RankedMatrix(names, scores)

    def _scores(self, snapshot: GlobalSnapshot, vectors: np.ndarray) -> VectorScores:
        codec = snapshot.encoder
        if codec.centroids is None and (on_cuda := _cuda_scores(self._device)) is not None:
            return on_cuda(vectors)
        return scores_for(codec, vectors)

    def _best(
        self, snapshot: GlobalSnapshot, queries: Sequence[Features], top: int | None, count: int
    ) -> list[BestImages]:
        return self._nearest_of(snapshot, np.concatenate([_descriptor(query) for query in queries]), top, count)

    def _nearest_of(
        self, snapshot: GlobalSnapshot, descriptors: np.ndarray, top: int | None, count: int
    ) -> list[BestImages]:
        return self.nearest(self._vectors(snapshot, descriptors, count), top, snapshot=snapshot, threads=count)

    def _all(self, snapshot: GlobalSnapshot, query: Features, count: int) -> list[Part]:
        vectors = self._vectors(snapshot, _descriptor(query), count)
        return all_scores(snapshot, self._scores(snapshot, vectors), count)

    def _vectors(self, snapshot: GlobalSnapshot, descriptors: np.ndarray, count: int) -> np.ndarray:
        """Transform descriptors [q, D0] by the codec and expand them if configured, [q, D] float32."""
        vectors = snapshot.encoder.apply(descriptors)
        if self.expansion is None:
            return vectors
        found = self.nearest(vectors, self.expansion.neighbours, snapshot=snapshot, threads=count)
        pairs = zip(vectors, found, strict=True)
        return np.array([expanded(snapshot, self.expansion, vector, near) for vector, near in pairs])


def expanded(snapshot: GlobalSnapshot, expansion: Expansion, vector: np.ndarray, near: BestImages) -> np.ndarray:
    """Blend a vector [D] with its nearest images, [D] float32."""
    places = zip(near.segments.tolist(), near.numbers.tolist(), strict=True)
    stored = [snapshot.segments[segment].rows(number, number + 1) for segment, number in places]
    if not stored:
        return vector
    return expansion.blend(vector, snapshot.encoder.decode(np.concatenate(stored)), near.scores)


def _descriptor(query: Features) -> np.ndarray:
    if len(query) != 1:
        raise MismatchError(
            f"the query has {len(query)} descriptors, a global index takes exactly one; "
            "extract it with the extractor of the index"
        )
    return query.descriptors


@functools.cache
def _cuda_scores(device: str) -> Callable[[np.ndarray], VectorScores] | None:
    """Return the class that scores on CUDA, or None for the CPU; raises InputError if CUDA is requested but missing."""
    from asmk_engine.flat import cuda

    if device == "cpu" or (device == "auto" and not cuda.is_likely()):
        return None
    if cuda.is_there():
        return cuda.CudaScores
    if device == "cuda":
        raise InputError("device is 'cuda', but torch finds no CUDA device; use --device cpu, or auto")
    return None
