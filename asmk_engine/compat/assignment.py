"""How descriptors get their words: by comparing them with all, as the original does, or through a graph of words.

The original has no such choice. It is made for the whole process (`choose_assignment`), or for one `FaissL2Index`.
"""

from __future__ import annotations

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.compat.checks import check_descriptors
from asmk_engine.errors import InputError
from asmk_engine.recipes import Recipe

ASSIGNMENTS = ("exact", "graph")
_chosen = ASSIGNMENTS[0]


def check_assignment(assignment: str) -> str:
    """`exact` or `graph` as it is; InputError for anything else."""
    if assignment not in ASSIGNMENTS:
        raise InputError(f"assignment is {assignment!r}; choose {' or '.join(ASSIGNMENTS)}")
    return assignment


def choose_assignment(assignment: str) -> None:
    """Say how descriptors get their words wherever nothing else is said; InputError for what is neither way.

    Parameters
    ----------
    assignment : {"exact", "graph"}
        By comparing with all words, or through a graph, which misses the nearest of about one descriptor in a hundred.
        Codebooks that are searchable already stay as they are.
    """
    global _chosen
    _chosen = check_assignment(assignment)


def chosen_assignment() -> str:
    """Return the assignment last given to `choose_assignment`; `exact` at the start."""
    return _chosen


class GraphIndex:
    """Nearest neighbours in L2 through a graph of the points, called as an index of faiss is.

    Parameters
    ----------
    points : numpy.ndarray, shape [K, D], float32
        They are linked at once, in a time about proportional to their number.
    """

    def __init__(self, points: np.ndarray) -> None:
        centroids = check_descriptors(points)
        dim = centroids.shape[1]
        plain = Codebook(np.zeros(dim, np.float32), np.eye(dim, dtype=np.float32), centroids, Recipe("asmk"))
        self._codebook = plain.with_assignment("graph")

    @property
    def ntotal(self) -> int:
        """How many points there are."""
        return self._codebook.words

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances and numbers of the k nearest points that the graph leads to, nearest first.

        Parameters
        ----------
        queries : numpy.ndarray, shape [n, D], floating point
        k : int
            From 1 to K; more than 64 are found by comparing with all points.

        Returns
        -------
        distances : numpy.ndarray, shape [n, k], float32
        numbers : numpy.ndarray, shape [n, k], int64
        """
        if not 1 <= k <= self.ntotal:
            raise InputError(f"{k} nearest points were asked for; the index holds {self.ntotal}")
        wanted = check_descriptors(queries, self._codebook.dim)
        numbers = self._codebook.assign_projected(wanted, k)
        return squared_distances(wanted, self._codebook.centroids, numbers), numbers.astype(np.int64)


_BLOCK = 4096


def squared_distances(queries: np.ndarray, points: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Squared distances [n, k] float32 of queries [n, D] from the points [K, D] that have the numbers [n, k]."""
    distances = np.empty(numbers.shape, np.float32)
    for begin in range(0, len(queries), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        for column in range(numbers.shape[1]):
            difference = queries[rows] - points[numbers[rows, column]]
            distances[rows, column] = np.einsum("nd,nd->n", difference, difference)
    return distances
