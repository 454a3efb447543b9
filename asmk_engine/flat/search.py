"""Searching a global index: every vector is compared with the query."""

from __future__ import annotations

import functools
import itertools
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.features import Features
from asmk_engine.flat.index import GlobalIndex
from asmk_engine.flat.nearest import Nearest, all_scores, nearest
from asmk_engine.flat.products import VectorScores, scores_for
from asmk_engine.flat.snapshot import GlobalSnapshot
from asmk_engine.indexes.answers import Hit, Order, decoded
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.indexes.numbering import image_numbers, image_starts, name_ranks
from asmk_engine.threads import thread_count

GROUP = 64  # queries that are scored together
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


class GlobalSearcher:
    """Ranks the images of a global index, or of several joined, for a query.

    expansion  expand each query by its nearest images and search again
    device     where products of matrices are computed: `cuda`, `cpu`, or `auto` for CUDA when it is there; answers do
               not depend on it
    threads    threads of a search but for products of matrices; answers do not depend on it
    Scores are cosines, those of quantised vectors estimates of them; images of a score of 0 and below are returned too.
    A search runs on the commit that `index` is at when it begins.
    """

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
        self.index = index
        self.expansion = expansion
        self._device = device
        self._requested_threads = threads
        self._name_ranks: weakref.WeakKeyDictionary[GlobalSnapshot, np.ndarray] = weakref.WeakKeyDictionary()
        thread_count(threads)

    @overload
    def search(self, query: Features, top: int | None = 10, *, threads: int | None = None) -> list[Hit]: ...

    @overload
    def search(
        self, query: Iterable[Features], top: int | None = 10, *, threads: int | None = None
    ) -> list[list[Hit]]: ...

    def search(
        self, query: Features | Iterable[Features], top: int | None = 10, *, threads: int | None = None
    ) -> list[Hit] | list[list[Hit]]:
        """The best images for a query, or one answer for each of several.

        query    features with exactly one descriptor, or any iterable of them
        top      how many images, or all when None; equal scores in byte order of the names
        threads  instead of those of the searcher
        """
        if top is not None and top < 1:
            raise InputError(f"top is {top}; give 1 or more, or leave it out for all")
        count = thread_count(self._requested_threads if threads is None else threads)
        if isinstance(query, Features):
            return self._search_group([query], top, count)[0]
        size = GROUP if top is not None else 1  # all images of an answer may be many: one answer at a time then
        return [hits for group in _groups(query, size) for hits in self._search_group(group, top, count)]

    def scores(self, query: Features) -> dict[str, float]:
        """The score of every live image."""
        return {hit.name: hit.score for hit in self.search(query, None)}

    def order(self, query: Features, *, threads: int | None = None) -> Order:
        """All images as numbers, in the order of `search(query, None)`; see `Searcher.order`."""
        snapshot = self.index.snapshot
        count = thread_count(self._requested_threads if threads is None else threads)
        scores = self._scores(snapshot, self._vectors(snapshot, [query], count))
        segments, numbers, values = all_scores(snapshot, scores, count)
        if snapshot not in self._name_ranks:
            self._name_ranks[snapshot] = name_ranks(snapshot.segments)
        joined = image_starts(snapshot.segments)[segments] + numbers
        order = np.lexsort((self._name_ranks[snapshot][joined], -values))
        return Order(joined[order], values[order])

    def image_numbers(self, names: Iterable[str]) -> dict[str, int]:
        """Name → number of those of the names that are live images, as `order` numbers them."""
        return image_numbers(self.index.snapshot, names)

    def nearest(
        self,
        vectors: np.ndarray,
        top: int | None,
        *,
        snapshot: GlobalSnapshot | None = None,
        threads: int | None = None,
    ) -> list[Nearest]:
        """The nearest images of vectors [q, D] float32 that went through the codec; no expansion."""
        snapshot = snapshot or self.index.snapshot
        count = thread_count(self._requested_threads if threads is None else threads)
        return nearest(snapshot, self._scores(snapshot, vectors), len(vectors), top, count) if len(vectors) else []

    def _scores(self, snapshot: GlobalSnapshot, vectors: np.ndarray) -> VectorScores:
        codec = snapshot.codebook
        if codec.centroids is None and (on_cuda := _cuda_scores(self._device)) is not None:
            return on_cuda(vectors)
        return scores_for(codec, vectors)

    def _search_group(self, queries: Sequence[Features], top: int | None, count: int) -> list[list[Hit]]:
        snapshot = self.index.snapshot
        vectors = self._vectors(snapshot, queries, count)
        found = self.nearest(vectors, top, snapshot=snapshot, threads=count)
        return [[Hit(decoded(name), float(score)) for name, score in zip(one.names, one.scores, strict=True)]
                for one in found]  # fmt: skip

    def _vectors(self, snapshot: GlobalSnapshot, queries: Sequence[Features], count: int) -> np.ndarray:
        """The queries through the codec, expanded where that is asked for, [q, D] float32."""
        vectors = snapshot.codebook.apply(np.concatenate([_descriptor(query) for query in queries]))
        if self.expansion is None:
            return vectors
        found = self.nearest(vectors, self.expansion.neighbours, snapshot=snapshot, threads=count)
        pairs = zip(vectors, found, strict=True)
        return np.array([expanded(snapshot, self.expansion, vector, near) for vector, near in pairs])


def expanded(snapshot: GlobalSnapshot, expansion: Expansion, vector: np.ndarray, near: Nearest) -> np.ndarray:
    """A vector [D] blended with its nearest images, [D] float32."""
    places = zip(near.segments.tolist(), near.numbers.tolist(), strict=True)
    stored = [snapshot.segments[segment].rows(number, number + 1) for segment, number in places]
    if not stored:
        return vector
    return expansion.blend(vector, snapshot.codebook.decode(np.concatenate(stored)), near.scores)


def _descriptor(query: Features) -> np.ndarray:
    if len(query) != 1:
        raise MismatchError(
            f"the query has {len(query)} descriptors, a global index takes exactly one; "
            "extract it with the extractor of the index"
        )
    return query.descriptors


def _groups(queries: Iterable[Features], size: int) -> Iterator[Sequence[Features]]:
    waiting = iter(queries)
    while group := list(itertools.islice(waiting, size)):
        yield group


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
