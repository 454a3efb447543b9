"""Slow twins of the verification of DELF and DELG, in loops, from its description in their papers and scripts."""

from __future__ import annotations

import math

import numpy as np


def near_pairs(query: np.ndarray, other: np.ndarray, distance: float, ratio: float | None) -> list[tuple[int, int]]:
    """(feature of the query, its nearest feature of the other image), for descriptors of length 1."""
    found = []
    for number, descriptor in enumerate(query):
        distances = sorted((math.dist(descriptor, one), place) for place, one in enumerate(other))
        if not distances:
            continue
        nearest, place = distances[0]
        second = distances[1][0] if len(distances) > 1 else math.inf
        if nearest < distance if ratio is None else nearest < ratio * second:
            found.append((number, place))
    return found


def solved_map(sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The affine map [2, 3] of three pairs of places, by the rule of Cramer."""
    points = np.column_stack([sources, np.ones(3)])
    whole = np.linalg.det(points)
    rows = []
    for axis in range(2):
        row = []
        for column in range(3):
            replaced = points.copy()
            replaced[:, column] = targets[:, axis]
            row.append(np.linalg.det(replaced) / whole)
        rows.append(row)
    return np.array(rows)


def inliers_of(
    affine: np.ndarray, sources: np.ndarray, targets: np.ndarray, residual: float
) -> tuple[list[int], float]:
    """The pairs that a map explains, and the sum of the squared residuals of all pairs."""
    inside, total = [], 0.0
    for number, ((x, y), (u, v)) in enumerate(zip(sources, targets, strict=True)):
        mapped = affine[0] @ (x, y, 1), affine[1] @ (x, y, 1)
        away = math.hypot(mapped[0] - u, mapped[1] - v)
        total += away * away
        if away < residual:
            inside.append(number)
    return inside, total


def best_inliers(sources: np.ndarray, targets: np.ndarray, residual: float, trials: int, seed: int) -> list[int]:
    """The pairs that the best map of all trials explains."""
    generator = np.random.RandomState(seed)
    best: list[int] = []
    least = math.inf
    for _ in range(trials):
        sample = generator.choice(len(sources), 3, replace=False)
        inside, total = inliers_of(solved_map(sources[sample], targets[sample]), sources, targets, residual)
        if len(inside) > len(best) or (len(inside) == len(best) and total < least):
            best, least = inside, total
    return best
