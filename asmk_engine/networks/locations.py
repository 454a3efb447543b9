"""Locations of feature maps over many scales: the sizes of the resampled images, and where each location lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

SCALES = (2.0, 1.414, 1.0, 0.707, 0.5, 0.353, 0.25)
"""The scales of HOW at test time, in the order of its code, which decides ties."""


@dataclass(frozen=True)
class LocalDescriptors:
    """The strongest locations of one image over all scales, strongest first.

    descriptors  [n, D] float32
    scores       [n] float32
    positions    [n, 2] float32: x and y in pixels of the described image; the centre of the first pixel is 0, 0
    sizes        [n] float32: side of the location in those pixels
    """

    descriptors: np.ndarray
    scores: np.ndarray
    positions: np.ndarray
    sizes: np.ndarray


class Grid(Protocol):
    """What is known of the locations of a backbone's map; see `Backbone`."""

    @property
    def stride(self) -> int:
        """Distance between neighbouring locations, in pixels."""
        ...

    def offset_of(self, side: int) -> float:
        """Return the centre of the first location along a side of this many pixels."""
        ...


def scaled_sides(sides: Sequence[int], scale: float, multiple: int = 1) -> tuple[int, int]:
    """Return height and width of an image at a scale.

    With a multiple of 1, floor(side · scale), at least 1, as in the HOW code, where a scale of 1 is the identity, too;
    else the nearest multiple, at least one.
    """
    if multiple == 1:
        height, width = (max(1, int(side * scale)) for side in sides)
    else:
        height, width = (max(1, math.floor(side * scale / multiple + 0.5)) * multiple for side in sides)
    return height, width


def places(grid: Grid, locations: Sequence[int], resampled: Sequence[int], whole: Sequence[int]) -> np.ndarray:
    """Return x, y and side of every location in pixels of the image before resampling, [h · w, 3] float32, row by row.

    A location is at the centre of its receptive field: offset + stride · location, in pixels of the resampled image.
    """
    factors = [before / after for before, after in zip(whole, resampled, strict=True)]
    ys, xs = (
        (np.float32(grid.offset_of(side) + 0.5) + np.float32(grid.stride) * np.arange(count, dtype=np.float32))
        * np.float32(factor)
        - np.float32(0.5)
        for side, count, factor in zip(resampled, locations, factors, strict=True)
    )
    y, x = np.meshgrid(ys, xs, indexing="ij")
    size = np.full_like(x, grid.stride * math.sqrt(factors[0] * factors[1]))
    return np.stack([x, y, size], -1).reshape(-1, 3)
