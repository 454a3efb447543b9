"""Boxes in images: the region that an extractor uses."""

from __future__ import annotations

import math

from asmk_engine.errors import InputError

Size = tuple[int, int]
"""Width and height in pixels."""
Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the upright original; 0, 0, width, height is the whole image."""


def check_box(box: Box, size: Size, where: str = "the image") -> tuple[int, int, int, int]:
    """Return the box rounded to whole pixels.

    Raises InputError if it is inverted, empty, or exceeds the image by more than a pixel.
    """
    width, height = size
    text = ",".join(f"{value:g}" for value in box)
    expected = f"{where} is {width} × {height} pixels; expected x1,y1,x2,y2, x1 < x2 <= {width}, y1 < y2 <= {height}"
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        raise InputError(f"box {text}: not four finite numbers; {expected}")
    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        raise InputError(f"box {text}: inverted or empty; {expected}")
    if min(x1, y1) < -1 or x2 > width + 1 or y2 > height + 1:
        raise InputError(f"box {text}: exceeds the image; {expected}")
    left, top, right, bottom = max(0, round(x1)), max(0, round(y1)), min(width, round(x2)), min(height, round(y2))
    if right <= left or bottom <= top:
        raise InputError(f"box {text}: contains no whole pixel; {expected}")
    return left, top, right, bottom
