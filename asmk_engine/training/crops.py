"""Random crops of a fixed size with a jittered aspect ratio, as in the training of classifiers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.training.augmented_pairs import random_colour, recolour

ATTEMPTS = 10


@dataclass(frozen=True)
class CropOptions:
    """How a crop differs from its image; raises InputError for values out of range.

    side        side of the square crop after resizing, in pixels
    least_area  smallest area of the crop, as a fraction of the image; 1 for no crop but that of the aspect ratio
    aspect      largest ratio of the crop's longer to its shorter side before it is resized to a square; 1 for none
    flip        probability of a mirrored crop
    colour      maximum deviation of contrast, saturation and gains from 1, and of brightness from 0
    """

    side: int = 512
    least_area: float = 0.08
    aspect: float = 4 / 3
    flip: float = 0.5
    colour: float = 0.0

    def __post_init__(self) -> None:
        if self.side < 16 or not (0 < self.least_area <= 1 and self.aspect >= 1):
            raise InputError(
                f"the crop has side {self.side}, area {self.least_area}, aspect {self.aspect}; expected at least 16 "
                "pixels, an area greater than 0, at most 1, and an aspect of at least 1"
            )
        if not (0 <= self.flip <= 1 and 0 <= self.colour < 1):
            raise InputError(f"flip is {self.flip}, colour {self.colour}; expected 0 to 1, colour below 1")


def random_crop(pixels: np.ndarray, rng: np.random.Generator, options: CropOptions) -> np.ndarray:
    """Return a random crop of an image: [H, W, 3] uint8 to [side, side, 3] uint8; equal generators give equal crops."""
    height, width = pixels.shape[:2]
    left, top, columns, rows = random_box(width, height, rng, options)
    part = pixels[top : top + rows, left : left + columns]
    shrinks = columns * rows > options.side**2
    crop = cv2.resize(part, (options.side,) * 2, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if rng.random() < options.flip:
        crop = crop[:, ::-1]
    if options.colour:
        crop = recolour(crop, *random_colour(rng, options.colour))
    return np.ascontiguousarray(crop)


def random_box(width: int, height: int, rng: np.random.Generator, options: CropOptions) -> tuple[int, int, int, int]:
    """Return left, top, width and height of a crop, in whole pixels.

    Area and logarithm of the aspect ratio are uniform; a crop that does not fit is drawn again, ten times at most, and
    is then the largest central one whose aspect ratio is allowed.
    """
    spread = math.log(options.aspect)
    for _ in range(ATTEMPTS):
        area = width * height * rng.uniform(options.least_area, 1.0)
        ratio = math.exp(rng.uniform(-spread, spread))
        columns, rows = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < columns <= width and 0 < rows <= height:
            return int(rng.integers(width - columns + 1)), int(rng.integers(height - rows + 1)), columns, rows
    columns, rows = min(width, round(height * options.aspect)), min(height, round(width * options.aspect))
    return (width - columns) // 2, (height - rows) // 2, columns, rows
