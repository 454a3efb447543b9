"""Searching a global index: every vector is compared with the query."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.features import Features
from asmk_engine.flat.index import GlobalIndex
from asmk_engine.flat.nearest import all_scores, nearest
from asmk_engine.flat.products import VectorScores, scores_for
from asmk_engine.flat.snapshot import GlobalSnapshot
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.indexes.ranking import BestImages, Part
from asmk_engine.indexes.searcher import IndexSearcher

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Expansion:
    """Query expansion with weights by similarity: the query and its nearest images, summed (alpha-QE).

    q' = q + sum over the k nearest x of max(q . x, 0)^alpha x, brought to length 1 (Radenovic et al., PAMI 2019).

    neighbours  k
    alpha       power of a similarity; 0 gives all the same weight, as average query expansion does
    """

    neighbours: int = 10
    alpha: float = 3.0

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise InputError(f"neighbours is {self.neighbours}; give 1 or more, or leave expansion out")
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise InputError(f"alpha of the expansion is {self.alpha}; give a number from 0 on (3 is common)")

    def blend(self, vector: np.ndarray, neighbours: np.ndarray, similarities: np.ndarray) -> np.ndarray:
        """A vector [D] and its neighbours [k, D] of these similarities [k] as one vector [D] float32 of length 1.

        A neighbour of similarity 0 or less counts for nothing.
        """
        weights = np.where(similarities > 0, np.maximum(similarities, 0.0) ** self.alpha, 0.0)
        total = vector.astype(np.float64)
        for weight, neighbour in zip(weights, neighbours.astype(np.float64), strict=True):
            total += weight * neighbour
        length = math.sqrt(float(np.cumsum(total * total)[-1]))  # added in order, so that no machine differs
        return np.asarray(total / length if length else total, np.float32)


class GlobalSearcher(IndexSearcher[GlobalSnapshot, Features]):
    """Ranks the images of a global index, or of several joined, for a query: features with exactly one descriptor.

    expansion  expand each query by its nearest images and search again
    device     where products of matrices are computed: `cuda`, `cpu`, or `auto` for CUDA when it is there; answers do
               not depend on it
    threads    threads of a search but for products of matrices; answers do not depend on it
    Scores are cosines, those of quantised vectors estimates of them; images of a score of 0 and below are returned too.
    A search runs on the commit that `index` is at when it begins.
    """

    together = 64
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
        """The nearest images of vectors [q, D] float32 that went through the codec; no expansion."""
        snapshot, count = snapshot or self.index.snapshot, self._count(threads)
        return nearest(snapshot, self._scores(snapshot, vectors), len(vectors), top, count) if len(vectors) else []

    def _scores(self, snapshot: GlobalSnapshot, vectors: np.ndarray) -> VectorScores:
        codec = snapshot.encoder
        if codec.centroids is None and (on_cuda := _cuda_scores(self._device)) is not None:
            return on_cuda(vectors)
        return scores_for(codec, vectors)

    def _best(
        self, snapshot: GlobalSnapshot, queries: Sequence[Features], top: int | None, count: int
    ) -> list[BestImages]:
        vectors = self._vectors(snapshot, queries, count)
        return self.nearest(vectors, top, snapshot=snapshot, threads=count)

    def _all(self, snapshot: GlobalSnapshot, query: Features, count: int) -> list[Part]:
        return all_scores(snapshot, self._scores(snapshot, self._vectors(snapshot, [query], count)), count)

    def _vectors(self, snapshot: GlobalSnapshot, queries: Sequence[Features], count: int) -> np.ndarray:
        """The queries through the codec, expanded where that is asked for, [q, D] float32."""
        vectors = snapshot.encoder.apply(np.concatenate([_descriptor(query) for query in queries]))
        if self.expansion is None:
            return vectors
        found = self.nearest(vectors, self.expansion.neighbours, snapshot=snapshot, threads=count)
        pairs = zip(vectors, found, strict=True)
        return np.array([expanded(snapshot, self.expansion, vector, near) for vector, near in pairs])


def expanded(snapshot: GlobalSnapshot, expansion: Expansion, vector: np.ndarray, near: BestImages) -> np.ndarray:
    """A vector [D] blended with its nearest images, [D] float32."""
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
    """What scores on the accelerator, or None for the processor; InputError when CUDA is asked for and missing."""
    from asmk_engine.flat import cuda

    if device == "cpu" or (device == "auto" and not cuda.is_likely()):
        return None
    if cuda.is_there():
        return cuda.CudaScores
    if device == "cuda":
        raise InputError("device is 'cuda', but torch sees no CUDA device; use --device cpu, or auto")
    return None
