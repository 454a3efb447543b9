"""The geometry of an image: its features one by one, each with its words, codes and place."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.features import Features
from asmk_engine.kernels.aggregate import residual_codes

SMALLEST_SCALE = 1.0 / 64
"""Scales below this, in pixels, are raised to it: proportions of scales must be finite. Unknown scales are 0."""


@dataclass(frozen=True)
class ImageGeometry:
    """The features of one image in rows of one word each, in the order of the words.

    A feature of a query has a row for each of its words, so it has several rows and one place.

    words       [n] uint32, increasing
    codes       [n, ceil(D / 64)] uint64, the signs of (descriptor - word), not aggregated
    features    [n] int32, the number of the feature of each row
    places      [f, 4] float32: x, y and scale of each feature in pixels of the upright original, and its angle in
                radians from the x axis towards the y axis; NaN for a feature without one
    image_size  width and height of the upright original in pixels
    dim         D, the number of bits of a code
    """

    words: np.ndarray
    codes: np.ndarray
    features: np.ndarray
    places: np.ndarray
    image_size: tuple[int, int]
    dim: int

    def __len__(self) -> int:
        return len(self.places)

    def mirrored(self) -> ImageGeometry:
        """Return the same features at the places that they have in the image mirrored left to right."""
        places = self.places.copy()
        places[:, 0] = self.image_size[0] - 1 - places[:, 0]
        places[:, 3] = math.pi - places[:, 3]
        return replace(self, places=places)


def image_geometry(
    features: Features, codebook: Codebook, multiple_assignment: int = 1, most: int | None = None
) -> ImageGeometry:
    """Compute the geometry of an image from its features, the strongest `most` of them.

    multiple_assignment  words of a feature, at most those of the codebook
    """
    if most is not None:
        features = features.strongest(most)
    projected = codebook.project(features.descriptors)
    return geometry_of(features, projected, codebook.assign_projected(projected, multiple_assignment), codebook)


def geometry_of(features: Features, projected: np.ndarray, assigned: np.ndarray, codebook: Codebook) -> ImageGeometry:
    """Compute the geometry of an image whose features are projected and assigned.

    projected  [f, D] float32, from `Codebook.project`
    assigned   [f, k] int32, from `Codebook.assign_projected`
    """
    count, each = assigned.shape
    words = assigned.reshape(-1)
    order = np.argsort(words, kind="stable")
    rows, words = (np.repeat(np.arange(count, dtype=np.int32), each)[order], words[order])
    codes = np.empty((len(words), -(-codebook.dim // 64)), np.uint64)
    residual_codes(projected, codebook.centroids, rows, words, codes)
    return ImageGeometry(words.astype(np.uint32), codes, rows, places_of(features), features.image_size, codebook.dim)


def places_of(features: Features) -> np.ndarray:
    """Return the places [f, 4] float32 of features, as in `ImageGeometry`."""
    places = np.full((len(features), 4), np.nan, np.float32)
    places[:, : features.keypoints.shape[1]] = features.keypoints
    np.maximum(places[:, 2], SMALLEST_SCALE, out=places[:, 2])
    return places
