"""Maps of attention over photographs, of networks and of local features, and the boxes of their connected parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from asmk_engine.features import Features
from asmk_engine.images.boxes import Box, Size
from asmk_engine.regions.attention import MAP_SIDE, MOST_BOXES, attention_map, component_extents, least_to_most
from asmk_engine.regions.boxes import ScoredBox

NO_MASKS = 0.5
"""The threshold of the boxes of a map whose network has no masks, in shares of its range."""


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """What an extractor attends to at each location of a photograph.

    Parameters
    ----------
    title : str
        What it is the attention of, in few words.
    values : ndarray
        [h, w] float32, at least one location.
    meaning : str
        What a value is.
    first : tuple of float
        x and y of the first location in pixels of the upright photograph; the centre of its first pixel is (0, 0).
    step : tuple of float
        Distance between neighbouring locations, along x and y.
    box : tuple of int
        The described part, x1, y1, x2, y2 in pixels.
    image_size : tuple of int
        Width and height of the photograph.
    thresholds : tuple of float, default ()
        Those of the network's own masks, of the values mapped to 0 to 1.
    """

    title: str
    values: np.ndarray
    meaning: str
    first: tuple[float, float]
    step: tuple[float, float]
    box: tuple[int, int, int, int]
    image_size: Size
    thresholds: tuple[float, ...] = ()

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest value."""
        return float(self.values.min()), float(self.values.max())

    @property
    def shares(self) -> np.ndarray:
        """The values mapped linearly to 0 to 1, [h, w]; equal values are 1 (CiDeR, eq. 2)."""
        return least_to_most(self.values)

    def drawn(self, size: Size, *, nearest: bool = False) -> np.ndarray:
        """Return the values at the pixels of the photograph resized to `size`, [height, width] float32.

        Bilinear between locations, beyond the outermost as at these; NaN outside of the described part.

        nearest  as at the nearest location
        """
        factor = np.divide(self.image_size, size)
        places = [
            ((np.arange(count) + 0.5) * factor[axis] - 0.5 - self.first[axis]) / self.step[axis]
            for axis, count in enumerate(size)
        ]
        columns, rows = (place.astype(np.float32) for place in places)
        method = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
        across, down = np.meshgrid(columns, rows)
        found = cv2.remap(self.values.astype(np.float32), across, down, method, borderMode=cv2.BORDER_REPLICATE)
        x, y = ((np.arange(count) + 0.5) * factor[axis] for axis, count in enumerate(size))
        left, top, right, bottom = self.box
        inside = (x >= left) & (x <= right) & ((y >= top) & (y <= bottom))[:, None]
        return np.where(inside, found, np.float32(np.nan))


class MaskBox(NamedTuple):
    """A box of a mask of a map.

    scored     the box in pixels of the photograph, and its confidence
    mask       number of the mask, from 1
    threshold  its threshold
    """

    scored: ScoredBox
    mask: int
    threshold: float


def mask_boxes(attention: AttentionMap, threshold: float | None = None, most: int | None = MOST_BOXES) -> list[MaskBox]:
    """Return the boxes of each mask of a map of attention.

    Parameters
    ----------
    attention : AttentionMap
        The map.
    threshold : float, optional
        From 0 to 1, of a single mask; by default the masks are the network's own, or one of 0.5 if it has none.
    most : int or None, default 8
        The largest components of a mask that become boxes; None: all.

    Returns
    -------
    list of MaskBox
        By mask, the largest component first.

    Notes
    -----
    CiDeR (Song et al., CVPR 2024) shows "bounding boxes of connected components of M_i" (Fig. 5 d), where M_i is the
    mask of the locations whose attention A, which is from 0 to 1, is at least τ_i (eq. 3). The paper states neither
    which locations are connected nor a confidence. Ours: locations that share a side or a corner are connected; the
    confidence of a box is the mean of A over its component, so it is at least τ_i; a location extends half of the
    distance to the next one, and at the border to the end of the described part.
    """
    chosen = attention.thresholds or (NO_MASKS,) if threshold is None else (threshold,)
    found = []
    for number, each in enumerate(chosen, start=1):
        found += [MaskBox(one, number, each) for one in _boxes_of(attention, each)[:most]]
    return found


def _boxes_of(attention: AttentionMap, threshold: float) -> list[ScoredBox]:
    edges = [_edges(attention, axis) for axis in (0, 1)]
    found = []
    for rows, columns, confidence in component_extents(attention.shares, threshold):
        box = edges[0][columns.start], edges[1][rows.start], edges[0][columns.stop], edges[1][rows.stop]
        if box[0] < box[2] and box[1] < box[3]:
            found.append(ScoredBox(box, confidence))
    return found


def _edges(attention: AttentionMap, axis: int) -> list[float]:
    """Return the borders between locations along an axis, count + 1 of them, in pixels, 0 being the picture's edge."""
    count, (low, high) = attention.values.shape[1 - axis], (attention.box[axis], attention.box[axis + 2])
    inner = attention.first[axis] + 0.5 + attention.step[axis] * (np.arange(1, count) - 0.5)
    return [float(low), *np.clip(inner, low, high).tolist(), float(high)]


def feature_attention(features: Features, box: Box | None = None) -> AttentionMap | None:
    """Return the map of the strengths of local features, see `attention_map`; None if there are none.

    box  the described part of the photograph; None for the whole
    """
    size = features.image_size
    if not len(features) or not all(size):
        return None
    factor = MAP_SIDE / max(size)
    width, height = (max(1, round(side * factor)) for side in size)
    step = size[0] / width, size[1] / height
    first = step[0] / 2 - 0.5, step[1] / 2 - 0.5
    values = attention_map(features, (width, height))
    left, top, right, bottom = (round(edge) for edge in box) if box else (0, 0, *size)
    part = max(0, left), max(0, top), min(size[0], right), min(size[1], bottom)
    return AttentionMap("attention", values, "strength of the features that are kept", first, step, part, size)
