"""Whether two files hold one photograph: the pixels of both, aligned and compared.

Features say roughly where one image lies in the other. The map is refined by the enhanced correlation coefficient of
Evangelidis and Psarakis, PAMI 2008, whose value is the correlation of the grey values where both images are: brightness
and contrast do not matter to it, but the parallax between two views does.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from asmk_engine.errors import AsmkError
from asmk_engine.images.decoding import view_image

SIDE = 256
"""Longer side of the images that are compared, in pixels."""
KEPT = 1024
"""Images that are kept in memory, 64 KiB each at most."""
LEAST_SIDE = 24
"""Images whose common part is smaller than this cannot be compared."""
ROUNDS, PRECISION, BLUR = 50, 1e-4, 5


@dataclass(frozen=True, eq=False)
class GreyImage:
    """A small image [h, w] uint8, and the original pixels for one of its pixels along x and y."""

    pixels: np.ndarray
    factor: tuple[float, float]

    @property
    def to_original(self) -> np.ndarray:
        """The map [3, 3] of its pixels to those of the original, both counted from the centre of the first one."""
        x, y = self.factor
        return np.array([[x, 0, 0.5 * (x - 1)], [0, y, 0.5 * (y - 1)], [0, 0, 1.0]])


class GreyImages:
    """Loads images small and grey, and keeps the last ones."""

    def __init__(self, path_of: Callable[[int], Path]) -> None:
        self._path_of = path_of
        self._kept: OrderedDict[int, GreyImage | AsmkError] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, number: int, *, mirrored: bool = False) -> GreyImage:
        """Return an image, mirrored left to right if wanted, from any thread.

        Raises as `view_image`, and as the function that knows the files; what was raised is remembered.
        """
        with self._lock:
            found = self._kept.get(number)
        if found is None:
            found = self._read(number)
            with self._lock:
                self._kept[number] = found
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
        if isinstance(found, AsmkError):
            raise found
        return GreyImage(np.ascontiguousarray(found.pixels[:, ::-1]), found.factor) if mirrored else found

    def _read(self, number: int) -> GreyImage | AsmkError:
        try:
            view = view_image(self._path_of(number), SIDE)
        except AsmkError as error:
            return error
        return GreyImage(cv2.cvtColor(view.pixels, cv2.COLOR_RGB2GRAY), view.factor)


def agreement(one: GreyImage, other: GreyImage, affine: np.ndarray) -> float:
    """Return the correlation of two images where both are, from -1 to 1; 0 if they cannot be aligned.

    affine  [2, 3], where one lies in the other, in pixels of the originals
    """
    there = np.linalg.inv(other.to_original) @ np.vstack([affine, [0.0, 0.0, 1.0]]) @ one.to_original
    if np.sqrt(abs(np.linalg.det(there[:2, :2]))) > 1:  # the finer image is shrunk, not the coarser one enlarged
        one, other, there = other, one, np.linalg.inv(there)
    scale = max(np.sqrt(abs(np.linalg.det(there[:2, :2]))), LEAST_SIDE / max(one.pixels.shape))
    size = [max(1, round(side * scale)) for side in one.pixels.shape[::-1]]
    if min(size) < LEAST_SIDE or scale > 1:
        return 0.0
    template = cv2.resize(one.pixels, size, interpolation=cv2.INTER_AREA)
    shrunk = np.array([[size[0] / one.pixels.shape[1], 0], [0, size[1] / one.pixels.shape[0]]])
    back = np.eye(3)
    back[:2, :2] = np.linalg.inv(shrunk)
    back[:2, 2] = 0.5 * np.diag(back[:2, :2]) - 0.5
    start = (there @ back)[:2].astype(np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ROUNDS, PRECISION)
    everywhere = np.full(other.pixels.shape, 255, np.uint8)
    try:
        found = cv2.findTransformECC(template, other.pixels, start, cv2.MOTION_AFFINE, criteria, everywhere, BLUR)
        return float(found[0])
    except cv2.error:  # nothing in common, or no convergence
        return 0.0
