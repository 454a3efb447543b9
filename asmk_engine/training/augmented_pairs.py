"""Augmented pairs: random views of one image as positives, by a crop, a homography and a change of colour.

They adapt a network to an unlabelled collection.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class ViewOptions:
    """Limits on how much a view may differ from its image.

    least_area  minimum area of the crop, as a fraction of the image; it keeps the aspect ratio
    tilt        maximum displacement of a corner of the crop, inwards, as a fraction of the crop's sides
    shrink      smallest factor by which a view is shrunk
    colour      maximum deviation of contrast, saturation and the gain of each channel from 1, and of brightness from 0
    least_side  smallest side of a view, in pixels, unless the image is smaller
    """

    least_area: float = 0.4
    tilt: float = 0.15
    shrink: float = 0.7
    colour: float = 0.2
    least_side: int = 64


def random_view(pixels: np.ndarray, rng: np.random.Generator, options: ViewOptions | None = None) -> np.ndarray:
    """Return a random view of an image: [H, W, 3] uint8 to [h, w, 3] uint8, no side longer than before.

    The view is completely inside the image. The same generator state gives the same view.
    """
    options = options or ViewOptions()
    corners, (width, height) = random_corners(pixels.shape[1], pixels.shape[0], rng, options)
    target = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), target)
    warped = cv2.warpPerspective(pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return recolour(warped, *random_colour(rng, options.colour))


def random_corners(
    width: int, height: int, rng: np.random.Generator, options: ViewOptions
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the corners [4, 2] of a view in the image, clockwise from the upper left, and the size of the view."""
    side = float(np.sqrt(rng.uniform(options.least_area, 1.0)))
    spans = np.array([(width - 1) * side, (height - 1) * side])
    begin = rng.uniform(0.0, 1.0, 2) * (np.array([width - 1, height - 1]) - spans)
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    inward = rng.uniform(0.0, options.tilt, (4, 2)) * (1 - 2 * square)
    factor = rng.uniform(options.shrink, 1.0)
    sides = [_side(span, factor, whole, options.least_side) for span, whole in zip(spans, (width, height), strict=True)]
    return begin + (square + inward) * spans, (sides[0], sides[1])


def _side(span: float, factor: float, whole: int, least: int) -> int:
    return max(round((span + 1) * factor), min(least, whole))


def random_colour(rng: np.random.Generator, most: float) -> tuple[float, float, float, np.ndarray]:
    """Draw contrast, saturation, brightness and gains for `recolour`, at most `most` from 1, of brightness from 0."""
    contrast, saturation = rng.uniform(1 - most, 1 + most, 2)
    return float(contrast), float(saturation), float(rng.uniform(-most, most)), rng.uniform(1 - most, 1 + most, 3)


def recolour(
    pixels: np.ndarray, contrast: float, saturation: float, brightness: float, gains: np.ndarray
) -> np.ndarray:
    """Change the colours of pixels [h, w, 3] uint8; the result is rounded and clipped to uint8.

    The steps in order: multiply each channel by its gain; (x − grey) · saturation + grey, with the pixel's grey value;
    (x − mean) · contrast + mean, with the mean of the view; add 255 · brightness.
    """
    values = pixels.astype(np.float32) * gains.astype(np.float32)
    grey = (values @ np.array(LUMA, np.float32))[:, :, None]
    values = (values - grey) * saturation + grey
    mean = values.mean(dtype=np.float64)
    values = (values - mean) * contrast + mean + 255 * brightness
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
