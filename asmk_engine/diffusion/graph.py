"""The graph of mutual nearest neighbours, and diffusion on it from the node of a query.

    W_ij = s_ij^p if i is among the k nearest images of j and j among those of i, else 0;  W_ii = 0
    S    = D^-1/2 W D^-1/2,  D_ii = sum over j of W_ij
    f    = (I - a S)^-1 y,  y = 1 for the query, else 0

as in Iscen, Tolias, Avrithis, Furon and Chum, "Efficient diffusion on region manifolds", CVPR 2017, with one node for
an image. The system is positive definite, since the eigenvalues of S are at most 1, and is solved by conjugate
gradients.

The query is a node: the indexed image that equals it, if there is one; else a new one, joined to those of its k nearest
images that are no less similar to it than to their own k-th neighbour. In the paper, the query enters by y, the
similarities of its nearest images, which then keep their order whatever the graph says: for photographs that are not
indexed, that ranked no better than a search without diffusion (docs/benchmarks.md).

The system is restricted to the images that few edges separate from the query: its neighbours, their neighbours, and so
on, until there are as many as allowed. W and D are those of the graph of these images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.indexes.neighbours import NONE, NeighbourTable
from asmk_engine.threads import forks_wait

MOST_IMAGES = 10_000
"""Up to this length, a dot product of BLAS uses one thread, so that its last bits do not depend on their number."""
MOST_ALPHA = 0.999
TOLERANCE = 1e-12
ROUNDS = 2000
"""More than conjugate gradients need: sqrt((1 + a) / (1 - a)) / 2 * ln(2 / TOLERANCE) is 634 for the greatest a."""
DIGITS = 8
"""Digits of the results, relative to the greatest: what is equal but for rounding is equal."""
SAME = 0.999
"""Share of the similarity of an image to itself from which an indexed image is taken for the query."""
BLOCK = 512
"""Images whose edges are found at a time, which bounds the memory."""
Names = Callable[[np.ndarray], Sequence[bytes]]
"""Returns the names of images by their numbers."""


@dataclass(frozen=True)
class Diffusion:
    """The options of diffusion, see `asmk_engine.diffusion.graph` for the formulas.

    Parameters
    ----------
    neighbours : int, default 5
        k, the number of nearest images of which the mutual ones are joined; at most those that the table holds.
    alpha : float, default 0.6
        a, the share that moves on along the edges, below 1: the greater, the further.
    power : float, default 4.0
        p, the exponent of the similarities.
    images : int, default 1000
        Number of images to which a query is restricted, at most 10 000.

    Raises
    ------
    InputError
        If an option is out of its range.
    """

    neighbours: int = 5
    alpha: float = 0.6
    power: float = 4.0
    images: int = 1000

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise InputError(f"neighbours of diffusion is {self.neighbours}; give 1 or more")
        if not 0 < self.alpha <= MOST_ALPHA:
            raise InputError(f"alpha of diffusion is {self.alpha}; give a number above 0, at most {MOST_ALPHA}")
        if not (math.isfinite(self.power) and self.power > 0):
            raise InputError(f"power of diffusion is {self.power}; give a number above 0 (3 and 4 are common)")
        if not 1 <= self.images <= MOST_IMAGES:
            raise InputError(f"images of diffusion is {self.images}; give a number from 1 to {MOST_IMAGES}")


@dataclass(frozen=True)
class NearQuery:
    """The nearest images of a query, the best first.

    numbers       [n] int64, over all segments
    similarities  [n] float64, on the scale of the table
    own           the similarity of an image to itself
    """

    numbers: np.ndarray
    similarities: np.ndarray
    own: float = 1.0

    @property
    def copies(self) -> np.ndarray:
        """The numbers of the images that are taken for the query itself."""
        return self.numbers[self.similarities >= SAME * self.own]


@dataclass(frozen=True)
class Edges:
    """Edges of the graph, each [e]: from an image to another, by numbers, and their similarity in float64."""

    start: np.ndarray
    end: np.ndarray
    similarity: np.ndarray


class NeighbourGraph:
    """The graph of mutual nearest neighbours of a table, of which only what a query reaches is read."""

    def __init__(self, table: NeighbourTable, neighbours: int) -> None:
        self._table = table
        self._width = min(neighbours, table.width)

    def edges(self, numbers: np.ndarray) -> Edges:
        """Return all edges that start at these images, [n] int64."""
        return joint([self._edges(numbers[begin : begin + BLOCK]) for begin in range(0, len(numbers), BLOCK)])

    def joined(self, near: NearQuery) -> tuple[np.ndarray, np.ndarray]:
        """Return the images to which a query that is not indexed is joined, [m] int64, and their similarities [m]."""
        numbers, similarities = near.numbers[: self._width], near.similarities[: self._width].astype(np.float32)
        if not len(numbers):
            return numbers, similarities.astype(np.float64)
        last = self._rows(numbers)[1][:, -1]  # 0 if an image has fewer neighbours
        kept = (similarities > 0) & (similarities >= last)
        return numbers[kept], similarities[kept].astype(np.float64)

    def _edges(self, numbers: np.ndarray) -> Edges:
        near, similarities = self._rows(numbers)
        rows, columns = np.nonzero(near != NONE)
        start, end = numbers[rows], near[rows, columns]
        others, inverse = np.unique(end, return_inverse=True)
        back, returned = self._rows(others)
        is_back = back[inverse] == start[:, None]
        is_mutual = is_back.any(axis=1)
        place = is_back.argmax(axis=1) if self._width else np.empty(0, np.int64)
        # The two differ in the last bits at most; their mean does not depend on the direction of the edge.
        mean = (similarities[rows, columns] + returned[inverse, place]) / 2
        return Edges(start[is_mutual], end[is_mutual], mean[is_mutual])

    def _rows(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        near, similarities = self._table.rows(numbers)
        return near[:, : self._width].astype(np.int64), similarities[:, : self._width].astype(np.float64)

    def around(self, seeds: np.ndarray, most: int, names: Names) -> tuple[np.ndarray, Edges]:
        """Return the images that are reached from the seeds, and the edges between them.

        Images of fewer steps come first. Of those of the last step as many as there is room for are kept, those with
        the greatest similarity to an image of the step before, equal ones in byte order of their names.

        seeds    [n] int64, numbers of distinct images, of which the first are kept
        most     number of images
        names    returns the names of images
        returns  their numbers [m] int64 in byte order of the names, and the edges
        """
        reached = step = seeds[:most]
        found: list[Edges] = []
        while len(step):
            found.append(self.edges(step))
            step = _nearest(found[-1], reached, most - len(reached), names)
            reached = np.concatenate([reached, step])
        order = names(reached)
        reached = reached[sorted(range(len(reached)), key=order.__getitem__)]
        edges = joint(found)
        inside = np.isin(edges.end, reached)
        return reached, Edges(edges.start[inside], edges.end[inside], edges.similarity[inside])


def joint(parts: Sequence[Edges]) -> Edges:
    """Return the edges of all parts."""
    empty = np.empty(0, np.int64)
    return Edges(
        np.concatenate([empty, *(part.start for part in parts)]),
        np.concatenate([empty, *(part.end for part in parts)]),
        np.concatenate([np.empty(0), *(part.similarity for part in parts)]),
    )


def _nearest(edges: Edges, reached: np.ndarray, most: int, names: Names) -> np.ndarray:
    """Return the images at the ends of edges that were not reached before, at most so many of the most similar."""
    is_new = ~np.isin(edges.end, reached)
    images, inverse = np.unique(edges.end[is_new], return_inverse=True)
    if len(images) <= most:
        return images
    similarity = np.zeros(len(images))
    np.maximum.at(similarity, inverse, edges.similarity[is_new])
    named = names(images)
    order = sorted(range(len(images)), key=lambda row: (-similarity[row], named[row]))
    return images[order[:most]]


def diffused(
    table: NeighbourTable, near: NearQuery, diffusion: Diffusion, names: Names
) -> tuple[np.ndarray, np.ndarray]:
    """Diffuse from a query over the graph.

    near     its nearest images, at least `diffusion.neighbours` if there are as many
    names    returns the names of images
    returns  the numbers of the images that are reached, [m] int64, in byte order of their names, and the results, [m]
             float64 above 0, of which the greatest is 1
    """
    graph = NeighbourGraph(table, diffusion.neighbours)
    same = near.copies[: diffusion.images]
    seeds, similarities = (same, np.empty(0)) if len(same) else graph.joined(near)
    if not len(seeds):
        return np.empty(0, np.int64), np.empty(0)
    reached, edges = graph.around(seeds, diffusion.images, names)
    if len(same):
        values = np.isin(reached, same).astype(np.float64)
        found = solved(system(reached, edges, diffusion), values)
    else:
        kept = np.isin(seeds, reached)
        values = np.append(np.zeros(len(reached)), 1.0)
        nodes, edges = with_query(reached, edges, seeds[kept], similarities[kept], table.images)
        found = solved(system(nodes, edges, diffusion), values)[:-1]
    found = np.round(found / found.max(), DIGITS)
    return reached[found > 0], found[found > 0]


def with_query(
    reached: np.ndarray, edges: Edges, joined: np.ndarray, similarities: np.ndarray, number: int
) -> tuple[np.ndarray, Edges]:
    """Return a graph with one more node, the last one: the query.

    reached                the numbers of the images of the graph, [m] int64
    joined, similarities   the images that the query is joined to, [e] each
    number                 the number of the query, above those of all images
    """
    query = np.full(len(joined), number)
    more = Edges(
        np.concatenate([edges.start, query, joined]),
        np.concatenate([edges.end, joined, query]),
        np.concatenate([edges.similarity, similarities, similarities]),
    )
    return np.append(reached, number), more


def system(reached: np.ndarray, edges: Edges, diffusion: Diffusion) -> Any:
    """Return the matrix I - a S of a graph, [m, m] in compressed rows of SciPy.

    reached  [m] int64, the numbers of its nodes
    """
    from scipy.sparse import csr_array, diags_array, eye_array

    order = np.argsort(reached)
    rows, columns = (order[np.searchsorted(reached, ends, sorter=order)] for ends in (edges.start, edges.end))
    size = (len(reached), len(reached))
    weights = (edges.similarity / edges.similarity.max(initial=1e-300)) ** diffusion.power  # S does not depend on scale
    affinity = csr_array((weights, (rows, columns)), shape=size)
    affinity.sort_indices()  # sums are in the order of the names, whatever the order of the edges
    degrees = affinity @ np.ones(len(reached))
    with np.errstate(divide="ignore"):
        scale = diags_array(np.where(degrees > 0, 1 / np.sqrt(degrees), 0.0))
    matrix = (eye_array(len(reached)) - diffusion.alpha * (scale @ affinity @ scale)).tocsr()
    matrix.sort_indices()
    return matrix


def solved(matrix: Any, values: np.ndarray) -> np.ndarray:
    """Solve a positive definite system by conjugate gradients, [m] float64."""
    from scipy.sparse.linalg import cg

    with forks_wait():
        found, _ = cg(matrix, values, rtol=TOLERANCE, maxiter=ROUNDS)
    return np.asarray(found)
