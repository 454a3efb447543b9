"""Boxes from attention: the connected components of what exceeds a threshold of a map (CiDeR, Fig. 5)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from asmk_engine.features import Features
from asmk_engine.images.boxes import Size
from asmk_engine.regions.boxes import ScoredBox

MAP_SIDE = 64
"""The longer side of the map of the features of an image, in places."""
REACH = 3.0
"""A feature is seen within this many of its standard deviations, each of which is half its scale."""
MOST_BOXES = 8
"""The largest components of an image that become boxes."""
TOUCHING = np.ones((3, 3), int)  # places that share a side or a corner are connected


def attention_map(features: Features, size: Size) -> np.ndarray:
    """Return at each of w x h places the strength of the strongest feature that is seen there, [h, w] float32.

    A feature of strength s and scale c at distance d counts s exp(-d² / (2 (c / 2)²)). For a network these are the
    locations that were kept, of all scales, so it is the attention of Tolias et al. (ECCV 2020, Fig. 3) where it
    selects; where none was kept it is 0.

    size  width and height of the map; features are in pixels of their `image_size`
    """
    width, height = size
    found = np.zeros((height, width), np.float32)
    factor = np.divide(size, np.maximum(features.image_size, 1))
    points = (features.keypoints[:, :2] + 0.5) * factor - 0.5
    sigmas = np.maximum(features.keypoints[:, 2] * float(np.sqrt(factor.prod())) / 2, 0.5)
    for (x, y), sigma, strength in zip(points.tolist(), sigmas.tolist(), features.scores.tolist(), strict=True):
        around = REACH * sigma
        left, right = max(0, int(x - around)), min(width, int(x + around) + 2)
        top, bottom = max(0, int(y - around)), min(height, int(y + around) + 2)
        columns = np.exp(-((np.arange(left, right) - x) ** 2) / (2 * sigma**2))
        rows = np.exp(-((np.arange(top, bottom) - y) ** 2) / (2 * sigma**2))
        part = found[top:bottom, left:right]
        np.maximum(part, (strength * rows[:, None] * columns).astype(np.float32), out=part)
    return found


def feature_boxes(features: Features, threshold: float) -> list[ScoredBox]:
    """Return the boxes of the components of the map of the strengths of an image's features, see `component_boxes`.

    The map is mapped linearly to [0, 1] by its least and greatest value (CiDeR, eq. 2), so that a threshold means the
    same in every image.

    threshold  from 0 to 1
    """
    if not len(features) or not all(features.image_size):
        return []
    factor = MAP_SIDE / max(features.image_size)
    width, height = (max(1, round(side * factor)) for side in features.image_size)
    return component_boxes(least_to_most(attention_map(features, (width, height))), threshold, features.image_size)


def least_to_most(values: np.ndarray) -> np.ndarray:
    """Return a map [h, w] mapped linearly to [0, 1] by its least and greatest value; equal values become 1."""
    least, most = float(values.min()), float(values.max())
    return (values - least) / (most - least) if most > least else np.ones(values.shape)


def component_boxes(attention: np.ndarray, threshold: float, size: Size) -> list[ScoredBox]:
    """Return the extents of the connected components where attention [h, w] reaches a threshold, largest first.

    At most `MOST_BOXES` of them; the score of a box is the mean attention of its component.

    size  width and height of the image that the map covers

    Source: Song et al., CVPR 2024, Fig. 5 (d); the score is ours.
    """
    height, width = attention.shape
    found = []
    for rows, columns, score in component_extents(attention, threshold):
        left, right = (size[0] * column / width for column in (columns.start, columns.stop))
        top, bottom = (size[1] * row / height for row in (rows.start, rows.stop))
        found.append(ScoredBox((left, top, right, bottom), score))
    return found[:MOST_BOXES]


def component_extents(attention: np.ndarray, threshold: float) -> list[tuple[slice, slice, float]]:
    """Return rows, columns and mean attention of each component where attention [h, w] reaches a threshold.

    The largest is first; of equal ones the first in the order of rows.
    """
    labels, _ = ndimage.label(attention >= threshold, TOUCHING)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        values = attention[rows, columns][labels[rows, columns] == number]
        found.append((len(values), (rows, columns, float(values.mean()))))
    found.sort(key=lambda one: -one[0])
    return [extent for _, extent in found]
