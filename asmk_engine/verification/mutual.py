"""What two images have in common by the descriptors of their features, without visual words, and with places if wanted.

Features that are each other's nearest neighbours count by their similarity,

    mass(x, y) = sum over mutual neighbours of max(cosine, 0)^p / sqrt(n(x) n(y)),

n being the number of features: 1 for an image and itself. Without the root, images of many features would have much in
common with any other. No two pairs share a feature, so a pattern that one image repeats counts once for each time that
the other shows it.

If places count too, the map of `Verification` is sought that explains the mutual neighbours, which weigh their cosines
as pairs of codes weigh their similarity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from asmk_engine import threads
from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError
from asmk_engine.features import Features
from asmk_engine.kernels.nearest import nearest
from asmk_engine.verification.geometry import places_of
from asmk_engine.verification.match import COPY, Match, Verification, match_of_pairs

ROUNDING = 1e-6
"""A descriptor that is no further than this share of its length from the middle is there but for rounding."""


@dataclass(frozen=True)
class MutualNeighbours:
    """How the descriptors of two images are compared.

    Parameters
    ----------
    exponent : float, default 2.0
        Two features that are each other's nearest weigh their cosine similarity to this power, 0 if it is negative.
    places : Verification, optional
        How the mutual neighbours that one map explains are found; None does not look at places.

    Raises
    ------
    InputError
        If `exponent` is negative or not finite.
    """

    exponent: float = 2.0
    places: Verification | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.exponent) and self.exponent >= 0):
            raise InputError(f"exponent is {self.exponent}; give a number of 0 or more")


@dataclass(frozen=True)
class ImageVectors:
    """The descriptors of one image as directions from the middle of the visual words, and their places.

    vectors     [n, D] float32, of length 1, or 0 for a descriptor in the middle
    places      [n, 4] float32, as in `ImageGeometry`
    image_size  width and height of the upright original in pixels
    """

    vectors: np.ndarray
    places: np.ndarray
    image_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.vectors)


def image_vectors(features: Features, codebook: Codebook) -> ImageVectors:
    """Compute the directions of an image's descriptors.

    Descriptors that are all in one part of the space, as those of SIFT, would else all be similar.
    """
    vectors = codebook.project(features.descriptors) - codebook.centroids.mean(0)
    lengths = np.linalg.norm(vectors, axis=1)
    has_direction = lengths > ROUNDING * np.linalg.norm(features.descriptors.astype(np.float32), axis=1)
    vectors[has_direction] /= lengths[has_direction, None]
    vectors[~has_direction] = 0.0
    return ImageVectors(np.ascontiguousarray(vectors, np.float32), places_of(features), features.image_size)


def compare(query: ImageVectors, other: ImageVectors, options: MutualNeighbours | None = None) -> Match:
    """Find what two images have in common: the number and the mass of their mutual neighbours, and places if wanted."""
    options = options or MutualNeighbours()
    ones, others = mutual_neighbours(query.vectors, other.vectors)
    cosines = np.einsum("ij,ij->i", query.vectors[ones], other.vectors[others], dtype=np.float64)
    weights = np.power(np.maximum(cosines, 0.0), options.exponent)
    total = float(np.cumsum(weights)[-1]) if len(weights) else 0.0
    mass = total / math.sqrt(max(1, len(query) * len(other)))
    is_copy = 0 < COPY * min(len(query), len(other)) <= total
    if options.places is not None:
        order = np.argsort(-cosines, kind="stable")
        similarities = np.maximum(cosines[order], 0.0)
        placed = match_of_pairs(query, other, ones[order], others[order], similarities, options.places)
        return replace(placed, mass=mass)
    return Match.unplaced(len(ones), mass, query.image_size, other.image_size, is_copy)


def compare_all(
    query: ImageVectors,
    others: Iterable[ImageVectors | None],
    options: MutualNeighbours | None = None,
    count: int | None = None,
) -> list[Match | None]:
    """Do `compare` for many images with `count` threads, a few in memory at a time; None where the image is None."""

    def compared(other: ImageVectors | None) -> Match | None:
        return None if other is None else compare(query, other, options)

    return list(threads.stream(compared, others, threads.thread_count(count)))


def mutual_neighbours(ones: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows [m] int64 of two matrices, [n, D] and [k, D] float32, that are each other's nearest.

    Of several nearest rows the first counts.
    """
    if not len(ones) or not len(others):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    there, back = _nearest(ones, others), _nearest(others, ones)
    rows = np.flatnonzero(back[there] == np.arange(len(ones)))
    return rows, there[rows].astype(np.int64)


def _nearest(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    found, distances = np.empty((len(ones), 1), np.int32), np.empty((len(ones), 1), np.float32)
    nearest(ones, others, 0, len(others), found, distances)
    return found[:, 0]
