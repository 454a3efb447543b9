"""A slow, obvious twin of diffusion: lists, dictionaries and one dense system, from the formulas of the manual."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Similar = Mapping[tuple[str, str], float]
QUERY = "\0the query"


def nearest(similar: Similar, name: str, names: list[str], k: int) -> list[str]:
    """The k most similar other images with a similarity above 0, equal ones in byte order of the names."""
    others = [other for other in names if other != name and similar[name, other] > 0]
    return sorted(others, key=lambda other: (-similar[name, other], other.encode()))[:k]


def graph(similar: Similar, names: list[str], k: int) -> dict[str, dict[str, float]]:
    """For each image the images of which it is a mutual neighbour, with the similarities."""
    near = {name: nearest(similar, name, names, k) for name in names}
    return {
        name: {other: (similar[name, other] + similar[other, name]) / 2 for other in near[name] if name in near[other]}
        for name in names
    }


def add_query(
    links: dict[str, dict[str, float]], similar: Similar, names: list[str], query: Mapping[str, float], k: int
) -> None:
    """Join the query to those of its k nearest images that are as similar to it as to their own k-th neighbour."""
    links[QUERY] = {}
    for name in sorted((n for n in names if query[n] > 0), key=lambda n: (-query[n], n.encode()))[:k]:
        near = nearest(similar, name, names, k)
        if len(near) < k or query[name] >= similar[name, near[-1]]:
            links[QUERY][name] = links[name][QUERY] = query[name]


def around(links: dict[str, dict[str, float]], start: list[str], most: int) -> set[str]:
    """The images that few edges separate from the start, at most so many, the query not counted."""
    reached = [name for name in start if name != QUERY]
    step = start
    while step:
        found: dict[str, float] = {}
        for name in step:
            for other, similarity in links[name].items():
                if other != QUERY and other not in reached:
                    found[other] = max(found.get(other, 0.0), similarity)
        order = sorted(found, key=lambda name: (-found[name], name.encode()))
        step = order[: most - len(reached)]
        reached += step
    return {*reached, *(name for name in start if name == QUERY)}


def diffused(
    similar: Similar,
    names: list[str],
    query: Mapping[str, float],
    k: int,
    alpha: float,
    power: float,
    most: int = 1 << 30,
    own: float = 1.0,
) -> dict[str, float]:
    """The results of the images that a query reaches, of which the greatest is 1.

    query  its similarity to each image; an image as similar as to itself, `own`, is the query
    """
    links = graph(similar, names, k)
    start = [name for name in nearest_to(query, names, k) if query[name] >= 0.999 * own][:most]
    if not start:
        add_query(links, similar, names, query, k)
        start = [QUERY]
    order = sorted(around(links, start, most))
    weights = np.array([[links[one].get(other, 0.0) ** power for other in order] for one in order])
    degrees = weights.sum(axis=1)
    scale = np.array([1 / np.sqrt(degree) if degree > 0 else 0.0 for degree in degrees])
    matrix = np.eye(len(order)) - alpha * scale[:, None] * weights * scale[None, :]
    found = np.linalg.solve(matrix, np.array([1.0 if name in start else 0.0 for name in order]))
    results = {name: value for name, value in zip(order, found.tolist(), strict=True) if name != QUERY}
    greatest = max(results.values(), default=0.0)
    return {name: value / greatest for name, value in results.items() if value > 1e-8 * greatest}


def nearest_to(query: Mapping[str, float], names: list[str], k: int) -> list[str]:
    """The k images most similar to a query."""
    return sorted((n for n in names if query[n] > 0), key=lambda n: (-query[n], n.encode()))[:k]


def ranked(base: list[tuple[str, float]], results: Mapping[str, float]) -> list[str]:
    """The names: those with a result by it, rounded so that ties are ties, then the others in their order."""
    first = sorted(results, key=lambda name: (-round(results[name], 7), name.encode()))
    return [*first, *(name for name, _ in base if name not in results)]
