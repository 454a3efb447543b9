"""Nearest centroids and clustering under the names of the original, which needed faiss for them.

Nothing here imports faiss: assignment is exact and runs on the engine's own kernels, clustering takes faiss or torch.
A subclass may override `_faiss_index_flat` or `create_index` to search the centroids with something else; whatever it
returns is called as `search(queries, k)` and gives (distances, numbers), each of shape [n, k].
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from asmk_engine.codebooks.assign import nearest_words
from asmk_engine.codebooks.kmeans import kmeans
from asmk_engine.compat.checks import check_descriptors
from asmk_engine.compat.parameters import positive
from asmk_engine.errors import InputError

ROUNDS = 10  # and the two numbers below: what faiss does when it is told nothing
MOST_PER_WORD = 256
SEED = 1234
_BLOCK = 4096


class SearchIndex(Protocol):
    """What `create_index` returns: points that can be searched for the nearest."""

    def search(self, queries: np.ndarray, k: int, /) -> tuple[Any, Any]:
        """Distances [n, k] and numbers [n, k] of the k nearest points of every query."""


class IndexFlatL2:
    """Exact nearest neighbours in L2, called as `faiss.IndexFlatL2` is.

    d  dimensions of a point
    """

    def __init__(self, d: int) -> None:
        self.d = positive(d, "the dimension of an index")
        self._points = np.empty((0, self.d), np.float32)

    @property
    def ntotal(self) -> int:
        """How many points there are."""
        return len(self._points)

    def add(self, points: np.ndarray) -> None:
        """Add points [n, d]; they are numbered through."""
        new = check_descriptors(points, self.d)
        self._points = np.concatenate([self._points, new]) if self.ntotal else new

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances [n, k] float32 and numbers [n, k] int64 of the k nearest points, nearest first."""
        if not 1 <= k <= self.ntotal:
            raise InputError(f"{k} nearest points were asked for; the index holds {self.ntotal}")
        wanted = check_descriptors(queries, self.d)
        numbers = nearest_words(wanted, self._points, k)
        distances = np.empty(numbers.shape, np.float32)
        for begin in range(0, len(wanted), _BLOCK):
            rows = slice(begin, begin + _BLOCK)
            for column in range(k):
                difference = wanted[rows] - self._points[numbers[rows, column]]
                distances[rows, column] = np.einsum("nd,nd->n", difference, difference)
        return distances, numbers.astype(np.int64)


class FaissL2Index:
    """Clusters descriptors, and searches centroids, on the CPU; faiss need not be installed."""

    def _faiss_index_flat(self, dim: int) -> Any:
        return IndexFlatL2(dim)

    def create_index(self, points: np.ndarray, **index_kwargs: Any) -> SearchIndex:
        """An index of the points [K, D] float32, to be searched for the nearest."""
        if index_kwargs:
            raise InputError(f"an index takes no option; found {', '.join(index_kwargs)}")
        index: Any = self._faiss_index_flat(points.shape[1])
        index.add(np.ascontiguousarray(points, np.float32))
        searchable: SearchIndex = index
        return searchable

    def cluster(self, points: np.ndarray, size: int, *, rounds: int = ROUNDS, seed: int = SEED) -> np.ndarray:
        """`size` centroids [size, D] float32 of points [n, D] by k-means, from at most 256 points each.

        InputError when there are fewer points than centroids.
        """
        descriptors = check_descriptors(points)
        if len(descriptors) < size:
            raise InputError(f"{len(descriptors)} descriptors cannot carry {size} words; lower the codebook size")
        if len(descriptors) > MOST_PER_WORD * size:
            chosen = np.random.default_rng(seed).choice(len(descriptors), MOST_PER_WORD * size, replace=False)
            descriptors = descriptors[np.sort(chosen)]
        return kmeans(descriptors, size, rounds=rounds, seed=seed)[0]


class FaissGpuL2Index(FaissL2Index):
    """What a program gets that asks for a GPU: the same on the CPU, and a warning that says so.

    gpu_id  the number of the GPU it asked for
    """

    def __init__(self, gpu_id: Any) -> None:
        super().__init__()
        self.gpu_id = gpu_id
        warnings.warn(
            f"gpu_id {gpu_id!r} was asked for, but words are assigned on the CPU; set gpu_id to None to ask for that",
            stacklevel=4,
        )


def initialize_index(gpu_id: int | Mapping[str, Any] | None = None) -> FaissL2Index:
    """The class that clusters and searches: for the CPU, or `FaissGpuL2Index` when a GPU is asked for.

    gpu_id  a number, None, or the section `index` of the parameters, which holds it
    `FaissGpuL2Index` is looked up in this module at the call, so that a program may put a class of its own there.
    """
    wanted = gpu_id.get("gpu_id") if isinstance(gpu_id, Mapping) else gpu_id
    return FaissL2Index() if wanted is None else FaissGpuL2Index(wanted)
