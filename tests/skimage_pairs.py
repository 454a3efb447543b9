"""Pairs of photographs from scikit-image whose true map is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from skimage import data

TURNED = cv2.getRotationMatrix2D((256, 256), 12, 0.8)
"""The map [2, 3] from the photograph of the astronaut to `turned()`."""


def astronaut() -> np.ndarray:
    """A photograph [512, 512, 3] uint8."""
    return np.asarray(data.astronaut())


def turned() -> np.ndarray:
    """The same, turned by 12 degrees and shrunk to four fifths, on black."""
    return cv2.warpAffine(astronaut(), TURNED, (512, 512))


def coffee() -> np.ndarray:
    """Another photograph [400, 600, 3] uint8."""
    return np.asarray(data.coffee())


def halved(pixels: np.ndarray) -> np.ndarray:
    """Half as many pixels along both sides."""
    return cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def write(path: Path, pixels: np.ndarray) -> Path:
    """Write pixels as a file, which keeps them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path
