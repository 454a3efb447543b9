"""Photographs as pictures show them: shrunken pixels, or the reason why there are none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from asmk_engine.errors import AsmkError
from asmk_engine.images.boxes import Size
from asmk_engine.images.decoding import view_image
from asmk_engine.images.listing import shown

MOST_SIDE = 1600
"""Larger photographs are shrunk to this side: pictures are at most 1000 pixels wide, and may show a part."""
UNKNOWN_SIZE = (4, 3)


@dataclass(frozen=True, eq=False)
class ShownPhotograph:
    """A photograph to be drawn, or why there is none.

    pixels  [h, w, 3] uint8, RGB, upright, perhaps shrunk; None if it cannot be shown
    size    width and height of the upright original in pixels, also of one that cannot be shown
    reason  why it cannot be shown
    """

    pixels: np.ndarray | None
    size: Size
    reason: str = ""

    @classmethod
    def open(cls, path: Path, size: Size | None = None) -> ShownPhotograph:
        """Decode a file; one that cannot be decoded has a reason instead.

        size  of the photograph whose features are drawn; a file of another size is not that photograph. (0, 0) and
              None if it is not known
        """
        known = size if size is not None and all(size) else None
        try:
            view = view_image(path, MOST_SIDE)
        except AsmkError as error:
            return cls.missing(str(error).removeprefix(f"{shown(path)}: "), known)
        if known and view.image_size != known:
            found, expected = (f"{width} x {height}" for width, height in (view.image_size, known))
            return cls.missing(f"the file has {found} pixels, the photograph that was described {expected}", known)
        return cls(view.pixels, view.image_size)

    @classmethod
    def missing(cls, reason: str, size: Size | None = None) -> ShownPhotograph:
        """Return what stands for a photograph that cannot be shown."""
        return cls(None, size if size is not None and all(size) else UNKNOWN_SIZE, reason)

    def sized_as(self, size: Size) -> ShownPhotograph:
        """Return it with the size of what was described, if it has no pixels and its own size is not known."""
        return self if self.pixels is not None or not all(size) else ShownPhotograph(None, size, self.reason)

    def resized(self, size: Size) -> np.ndarray:
        """Return pixels of this width and height; grey ones if it cannot be shown."""
        if self.pixels is None:
            return np.full((size[1], size[0], 3), GREY, np.uint8)
        shrinks = size[0] < self.pixels.shape[1]
        return np.asarray(cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC))


GREY = 0xE4
