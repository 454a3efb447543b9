"""Slow, obvious twins of whole-image descriptors, written from the papers with loops in float64."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

Vector = np.ndarray


def over_norm(vector: Vector) -> Vector:
    norm = math.sqrt(sum(float(value) ** 2 for value in vector))
    return np.array([float(value) / (norm + 1e-6) for value in vector])


def unit(vector: Vector) -> Vector:
    norm = math.sqrt(sum(float(value) ** 2 for value in vector))
    return np.array([float(value) / norm if norm else 0.0 for value in vector])


def mac(found: np.ndarray) -> Vector:
    """The greatest value of each channel of a map [C, h, w]."""
    return np.array([max(float(value) for value in channel.flat) for channel in found])


def spoc(found: np.ndarray) -> Vector:
    """The average of each channel."""
    return np.array([sum(float(value) for value in channel.flat) / channel.size for channel in found])


def gem(found: np.ndarray, exponents: float | list[float] = 3.0) -> Vector:
    """The generalised mean of each channel."""
    result = []
    for number, channel in enumerate(found):
        p = exponents[number] if isinstance(exponents, list) else exponents
        raised = [max(float(value), 1e-6) ** p for value in channel.flat]
        result.append((sum(raised) / len(raised)) ** (1 / p))
    return np.array(result)


def crow(found: np.ndarray) -> Vector:
    """CroW: positions weighted by their sums, channels by how rarely they are above zero."""
    channels, height, width = found.shape
    sums = [[sum(float(found[c, y, x]) for c in range(channels)) for x in range(width)] for y in range(height)]
    norm = math.sqrt(sum(value**2 for row in sums for value in row))
    shares = [sum(1 for value in channel.flat if value > 0) / channel.size for channel in found]
    result = []
    for c in range(channels):
        weight = math.log(sum(shares) / shares[c]) if shares[c] else 0.0
        total = 0.0
        for y in range(height):
            for x in range(width):
                if norm:
                    total += float(found[c, y, x]) * math.sqrt(sums[y][x] / norm)
        result.append(weight * total)
    return np.array(result)


def regions(height: int, width: int) -> list[tuple[int, int, int]]:
    """The squares of R-MAC: row, column, side."""
    w, longer = min(height, width), max(height, width)
    extra, best = 0, None
    if height != width:
        for index, step in enumerate((2, 3, 4, 5, 6, 7)):
            b = Fraction(longer - w, step - 1)
            overlap = (Fraction(w) ** 2 - w * b) / Fraction(w) ** 2
            distance = abs(overlap - Fraction(4, 10))
            if best is None or distance < best:
                extra, best = index + 1, distance
    found = []
    for level in (1, 2, 3):
        side = math.floor(2 * w / (level + 1))
        if side == 0:
            continue
        down, across = level + (extra if height > width else 0), level + (extra if width > height else 0)
        for i in range(down):
            for j in range(across):
                y = math.floor(Fraction(i * (height - side), down - 1)) if down > 1 else 0
                x = math.floor(Fraction(j * (width - side), across - 1)) if across > 1 else 0
                found.append((y, x, side))
    return found


def regional(found: np.ndarray, pool=mac) -> list[Vector]:  # type: ignore[no-untyped-def]
    """The pooled whole map and squares, each over its norm."""
    squares = [found[:, y : y + side, x : x + side] for y, x, side in regions(*found.shape[1:])]
    return [over_norm(pool(part)) for part in [found, *squares]]


def rmac(found: np.ndarray) -> Vector:
    """The sum of the regional maxima, each over its norm."""
    return np.sum(regional(found), axis=0)


def linear(weight: np.ndarray, bias: np.ndarray, vector: Vector) -> Vector:
    """W x + b."""
    return np.array(
        [sum(float(a) * float(b) for a, b in zip(row, vector, strict=True)) + float(c)
         for row, c in zip(weight, bias, strict=True)]
    )  # fmt: skip


def over_scales(vectors: list[Vector], power: float) -> Vector:
    """((1/n) Σ v^p)^(1/p), at unit length."""
    dims = len(vectors[0])
    means = [sum(float(vector[d]) ** power for vector in vectors) / len(vectors) for d in range(dims)]
    return unit(np.array([mean ** (1 / power) for mean in means]))


def how_global(maps: list[np.ndarray], scores: list[np.ndarray], weight: np.ndarray, bias: np.ndarray) -> Vector:
    """Sum over scales and positions of score times reduced location, at unit length."""
    total = np.zeros(len(weight))
    for found, strong in zip(maps, scores, strict=True):
        for y in range(found.shape[1]):
            for x in range(found.shape[2]):
                total += float(strong[y, x]) * linear(weight, bias, found[:, y, x])
    return unit(total)


def covariance(rows: np.ndarray, mean: Vector) -> np.ndarray:
    """The mean of (x - m)(x - m)ᵀ."""
    total = np.zeros((len(mean), len(mean)))
    for row in rows:
        total += np.outer(row - mean, row - mean)
    return total / len(rows)


def pca(rows: np.ndarray, dim: int, power: float) -> tuple[Vector, np.ndarray]:
    """Mean, and P whose rows are eigenvectors over eigenvalue^(power / 2), greatest first."""
    mean = np.sum(rows, axis=0) / len(rows)
    values, vectors = np.linalg.eig(covariance(rows, mean))
    order = sorted(range(len(values)), key=lambda number: -values[number].real)[:dim]
    return mean, np.array([vectors[:, number].real / values[number].real ** (power / 2) for number in order])


def pairs(rows: np.ndarray, queries: list[int], positives: list[int], dim: int) -> tuple[Vector, np.ndarray]:
    """Whitening from pairs: P = Eᵀ L⁻¹, S = L Lᵀ the second moment of the differences."""
    mean = np.sum([rows[number] for number in queries], axis=0) / len(queries)
    spread = np.zeros((rows.shape[1], rows.shape[1]))
    for one, other in zip(queries, positives, strict=True):
        spread += np.outer(rows[one] - rows[other], rows[one] - rows[other])
    inverse = np.linalg.inv(np.linalg.cholesky(spread / len(queries)))
    projected = np.array([inverse @ (row - mean) for row in rows])
    values, vectors = np.linalg.eig(covariance(projected, np.zeros(len(mean))))
    order = sorted(range(len(values)), key=lambda number: -values[number].real)[:dim]
    return mean, np.array([vectors[:, number].real @ inverse for number in order])
