"""Nearest centroids and clustering under the names of the original, which requires faiss for them.

Nothing here imports faiss: assignment is exact and runs on the engine's own kernels, clustering takes faiss or torch.
A subclass may override `_faiss_index_flat` or `create_index` to search the centroids with something else; whatever it
returns is called as `search(queries, k)` and gives (distances, numbers), each of shape [n, k]. Only the exact index of
faiss for the CPU is replaced by that of this module, which finds the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from asmk_engine.codebooks.assign import nearest_words
from asmk_engine.codebooks.kmeans import kmeans
from asmk_engine.compat.assignment import GraphIndex, check_assignment, chosen_assignment, squared_distances
from asmk_engine.compat.checks import check_descriptors
from asmk_engine.compat.parameters import positive
from asmk_engine.errors import InputError

ROUNDS = 10  # like the two numbers below, the default of faiss
MOST_PER_WORD = 256
SEED = 1234


class SearchIndex(Protocol):
    """The result of `create_index`, which finds nearest points."""

    def search(self, queries: np.ndarray, k: int, /) -> tuple[Any, Any]:
        """Return distances [n, k] and numbers [n, k] of the k nearest points of every query."""


class IndexFlatL2:
    """Exact nearest neighbours in L2, with the interface of `faiss.IndexFlatL2`.

    d  dimension of a point
    """

    def __init__(self, d: int) -> None:
        self.d = positive(d, "the dimension of an index")
        self._points = np.empty((0, self.d), np.float32)

    @property
    def ntotal(self) -> int:
        """Number of points."""
        return len(self._points)

    def add(self, points: np.ndarray) -> None:
        """Add points [n, d], numbered consecutively."""
        new = check_descriptors(points, self.d)
        self._points = np.concatenate([self._points, new]) if self.ntotal else new

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return squared distances [n, k] float32 and numbers [n, k] int64 of the k nearest points, nearest first."""
        if not 1 <= k <= self.ntotal:
            raise InputError(f"{k} nearest points were requested; the index has {self.ntotal}")
        wanted = check_descriptors(queries, self.d)
        numbers = nearest_words(wanted, self._points, k)
        return squared_distances(wanted, self._points, numbers), numbers.astype(np.int64)


class FaissL2Index:
    """Clusters descriptors, and searches centroids, on the CPU; faiss need not be installed.

    assignment  `exact`, `graph` (`_faiss_index_flat` is not asked then), or None for what the process chose, see
                `assignment.choose_assignment`
    """

    def __init__(self, *, assignment: str | None = None) -> None:
        self.assignment = None if assignment is None else check_assignment(assignment)

    def _faiss_index_flat(self, dim: int) -> Any:
        return IndexFlatL2(dim)

    def create_index(self, points: np.ndarray, **index_kwargs: Any) -> SearchIndex:
        """Return an index of the points [K, D] float32 for nearest-point search."""
        if index_kwargs:
            raise InputError(f"an index takes no option; found {', '.join(index_kwargs)}")
        # A class of another program may not have called `__init__`, which the original does not have.
        if (getattr(self, "assignment", None) or chosen_assignment()) == "graph":
            return GraphIndex(points)
        index: Any = self._faiss_index_flat(points.shape[1])
        if _is_flat_of_faiss(index):
            index = IndexFlatL2(points.shape[1])  # the same points in the same order, several times as fast
        index.add(np.ascontiguousarray(points, np.float32))
        searchable: SearchIndex = index
        return searchable

    def cluster(self, points: np.ndarray, size: int, *, rounds: int = ROUNDS, seed: int = SEED) -> np.ndarray:
        """Cluster points [n, D] by k-means into centroids [size, D] float32, with at most 256 points per centroid.

        Raises InputError if there are fewer points than centroids.
        """
        descriptors = check_descriptors(points)
        if len(descriptors) < size:
            raise InputError(f"{len(descriptors)} descriptors are too few for {size} words; lower the codebook size")
        if len(descriptors) > MOST_PER_WORD * size:
            chosen = np.random.default_rng(seed).choice(len(descriptors), MOST_PER_WORD * size, replace=False)
            descriptors = descriptors[np.sort(chosen)]
        return kmeans(descriptors, size, rounds=rounds, seed=seed)[0]


def _is_flat_of_faiss(index: object) -> bool:
    """Whether an index is the exact one of faiss for the CPU, and nothing derived from it."""
    kind = type(index)
    return kind.__name__ == "IndexFlatL2" and kind.__module__.partition(".")[0] == "faiss"


class FaissGpuL2Index(FaissL2Index):
    """The result of requesting a GPU: the same index on the CPU, with a warning.

    gpu_id  number of the requested GPU
    """

    def __init__(self, gpu_id: Any) -> None:
        super().__init__()
        self.gpu_id = gpu_id
        warnings.warn(
            f"gpu_id {gpu_id!r} was requested, but words are assigned on the CPU; set gpu_id to None to silence this",
            stacklevel=4,
        )


def initialize_index(gpu_id: int | Mapping[str, Any] | None = None, *, assignment: str | None = None) -> FaissL2Index:
    """The class that clusters and searches: for the CPU, or `FaissGpuL2Index` when a GPU is asked for.

    gpu_id      a number, None, or the section `index` of the parameters, which holds it
    assignment  `exact`, `graph`, or None for what the process chose
    `FaissGpuL2Index` is looked up in this module at the call, so that a program may put a class of its own there.
    """
    wanted = gpu_id.get("gpu_id") if isinstance(gpu_id, Mapping) else gpu_id
    factory = FaissL2Index() if wanted is None else FaissGpuL2Index(wanted)
    if assignment is not None:
        factory.assignment = check_assignment(assignment)
    return factory
