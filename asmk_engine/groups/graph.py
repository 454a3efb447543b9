"""Connected components, communities and bridges of a graph whose nodes are numbers.

Communities maximise modularity,

    Q = sum over communities c of  L_c / m - (d_c / 2m)^2,

L_c being the weight of the edges inside of c, d_c the sum of the degrees of its nodes, and m the weight of all edges,
by the moves and levels of Blondel, Guillaume, Lambiotte and Lefebvre, "Fast unfolding of communities in large
networks", 2008. Nodes move in the order of their numbers, to the community with the lowest number if several are equal,
so that the result does not depend on chance. It is written out here because networkx is no dependency of this package.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

ROUNDS = 50
"""Most rounds over all nodes in one level; it ends earlier unless rounding errors let nodes move to and fro."""
GAIN = 1e-12
"""Least gain of modularity, relative to the weight of all edges, for which a node moves."""


def components(count: int, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the number of the component of each node, [count] int64, in the order of the first nodes.

    ones, others  [e] integers, the ends of the edges
    """
    if not count:
        return np.empty(0, np.int64)
    graph = coo_matrix((np.ones(len(ones), np.int8), (ones, others)), (count, count))
    labels = connected_components(graph, directed=False)[1]
    return renumbered(labels)


def renumbered(labels: np.ndarray) -> np.ndarray:
    """Return labels numbered in the order in which they first occur, [n] int64."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    numbers = np.empty(len(first), np.int64)
    numbers[np.argsort(first, kind="stable")] = np.arange(len(first))
    found: np.ndarray = numbers[inverse]
    return found


def members(labels: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the nodes of each label, [n] int64 in their order, the lowest label first."""
    order = np.argsort(labels, kind="stable")
    return iter(np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)) if len(labels) else iter(())


def communities(count: int, ones: np.ndarray, others: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the number of the community of each node, [count] int64, in the order of the first nodes.

    ones, others, weights  [e], each edge once; weights above 0
    """
    labels = np.arange(count)
    while True:
        moved = _moved(count, ones, others, weights)
        level = renumbered(moved)
        labels = level[labels]
        if count == 0 or level.max(initial=-1) + 1 == count:
            return renumbered(labels)
        count = int(level.max()) + 1
        ones, others, weights = _joined(count, level[ones], level[others], weights)


def _joined(
    count: int, ones: np.ndarray, others: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum the weights of edges with the same ends; edges inside of a community remain, as loops."""
    keys = np.minimum(ones, others) * count + np.maximum(ones, others)
    kept, inverse = np.unique(keys, return_inverse=True)
    return kept // count, kept % count, np.bincount(inverse, weights, len(kept))


def _moved(count: int, ones: np.ndarray, others: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Move single nodes between communities while modularity grows; returns the community of each node."""
    total = float(weights.sum())
    near: list[dict[int, float]] = [{} for _ in range(count)]
    degrees = [0.0] * count
    for one, other, weight in zip(ones.tolist(), others.tolist(), weights.tolist(), strict=True):
        degrees[one] += weight
        degrees[other] += weight  # a loop counts twice
        if one != other:
            near[one][other] = near[one].get(other, 0.0) + weight
            near[other][one] = near[other].get(one, 0.0) + weight
    label, sums = list(range(count)), degrees.copy()
    for _ in range(ROUNDS):
        if not sum(_move(node, near[node], degrees[node], label, sums, total) for node in range(count)):
            break
    return np.array(label, np.int64)


def _move(node: int, near: dict[int, float], degree: float, label: list[int], sums: list[float], total: float) -> bool:
    """Move one node to the community with the greatest gain; returns whether it moved."""
    own = label[node]
    links: dict[int, float] = {own: 0.0}
    for other, weight in near.items():
        links[label[other]] = links.get(label[other], 0.0) + weight
    sums[own] -= degree
    gains = {one: weight - sums[one] * degree / (2 * total) for one, weight in links.items()} if total else {own: 0.0}
    best = min(gains, key=lambda one: (-gains[one], one))
    if gains[best] <= gains[own] + GAIN * total:
        best = own
    label[node] = best
    sums[best] += degree
    return best != own


def bridges(count: int, ones: np.ndarray, others: np.ndarray) -> list[tuple[int, int, int]]:
    """Find the edges without which their component falls apart, in O(nodes + edges), see Tarjan, 1974.

    Returns for each the number of the edge, and how many nodes are on the side of its end `ones` and of `others`; in
    the order of the edges.
    """
    starts, ends, edges = _adjacency(count, ones, others)
    entered, lowest, size = [-1] * count, [0] * count, [1] * count
    found: list[tuple[int, int, int]] = []  # edge, lower end, nodes below
    roots = [-1] * count
    clock = 0
    for root in range(count):
        if entered[root] >= 0:
            continue
        entered[root] = lowest[root] = clock
        clock += 1
        roots[root] = root
        path = [(root, -1, starts[root])]
        while path:
            node, by, place = path[-1]
            if place == starts[node + 1]:
                path.pop()
                if path:
                    above = path[-1][0]
                    lowest[above] = min(lowest[above], lowest[node])
                    size[above] += size[node]
                    if lowest[node] > entered[above]:
                        found.append((by, node, size[node]))
                continue
            path[-1] = (node, by, place + 1)
            other, edge = ends[place], edges[place]
            if edge == by:
                continue
            if entered[other] >= 0:
                lowest[node] = min(lowest[node], entered[other])
                continue
            entered[other] = lowest[other] = clock
            clock += 1
            roots[other] = root
            path.append((other, edge, starts[other]))
    sides = []
    for edge, below, nodes in sorted(found):
        rest = size[roots[below]] - nodes
        sides.append((edge, nodes, rest) if int(ones[edge]) == below else (edge, rest, nodes))
    return sides


def _adjacency(count: int, ones: np.ndarray, others: np.ndarray) -> tuple[list[int], list[int], list[int]]:
    """Return where the edges of each node begin, their other ends, and their numbers."""
    starts_of, ends_of = np.concatenate([ones, others]).astype(np.int64), np.concatenate([others, ones])
    order = np.argsort(starts_of, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(starts_of, minlength=count))])
    return starts.tolist(), ends_of[order].tolist(), (order % max(1, len(ones))).tolist()
