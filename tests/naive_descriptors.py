"""Slow, obvious twins of what is computed on global descriptors: loops in double precision, written from the papers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Vector = Sequence[float]


def unit(vector: Vector) -> list[float]:
    """A vector of length 1; zeros stay."""
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector] if length else list(vector)


def dot(one: Vector, other: Vector) -> float:
    return math.fsum(float(a) * float(b) for a, b in zip(one, other, strict=True))


def project(vector: Vector, mean: Vector, projection: Sequence[Vector]) -> list[float]:
    """L2, minus the mean, projection, L2."""
    centred = [a - b for a, b in zip(unit(vector), mean, strict=True)]
    return unit([dot(row, centred) for row in projection])


def rank(scores: dict[str, float]) -> list[tuple[str, float]]:
    """Best first, equal scores in byte order of the names."""
    return sorted(scores.items(), key=lambda item: (-item[1], item[0].encode()))


def expand(query: Vector, database: dict[str, Vector], neighbours: int, alpha: float) -> list[float]:
    """q + sum of sim^alpha x over the k nearest, brought to length 1."""
    nearest = rank({name: dot(query, x) for name, x in database.items()})[:neighbours]
    total = [float(x) for x in query]
    for name, similarity in nearest:
        weight = similarity**alpha if similarity > 0 else 0.0
        total = [a + weight * float(b) for a, b in zip(total, database[name], strict=True)]
    return unit(total)


def augment(database: dict[str, Vector], neighbours: int, alpha: float) -> dict[str, list[float]]:
    """Every vector expanded by its nearest others."""
    return {
        name: expand(x, {other: y for other, y in database.items() if other != name}, neighbours, alpha)
        for name, x in database.items()
    }


def nearest_centroids(vector: Vector, centroids: np.ndarray) -> list[int]:
    """For each sub-space the centroid of least squared distance, the first of equal ones."""
    width = centroids.shape[2]
    found = []
    for m, some in enumerate(centroids):
        part = vector[m * width : (m + 1) * width]
        distances = [sum((float(a) - float(b)) ** 2 for a, b in zip(part, c, strict=True)) for c in some]
        found.append(distances.index(min(distances)))
    return found


def reconstruct(codes: Sequence[int], centroids: np.ndarray) -> list[float]:
    return [float(x) for m, code in enumerate(codes) for x in centroids[m, code]]


def fuse_scores(rankings: Sequence[list[tuple[str, float]]], weights: Sequence[float]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        values = [score for _, score in ranking]
        for name, score in ranking:
            spread = max(values) - min(values)
            part = (score - min(values)) / spread if spread > 0 else 1.0
            totals[name] = totals.get(name, 0.0) + weight / sum(weights) * part
    return totals


def fuse_ranks(rankings: Sequence[list[tuple[str, float]]], weights: Sequence[float]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for place, (name, _) in enumerate(ranking):
            totals[name] = totals.get(name, 0.0) + weight / sum(weights) / (60 + place + 1)
    return totals


def concatenate(parts: Sequence[Vector], weights: Sequence[float]) -> list[float]:
    return unit([weight * x for part, weight in zip(parts, weights, strict=True) for x in unit(part)])
