"""Lines, points and outlines that are legible on any photograph, in colours that everybody can tell apart."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from asmk_engine.verification.match import Outline

Colour = tuple[int, int, int]

CASING: Colour = (16, 16, 16)
CASING_SHARE = 0.55
"""How opaque the casing of lines is."""
OUTLINE: Colour = (255, 105, 64)
"""Orange-red, which is on no part of the colour scale."""
DARKEST = 0.25
"""The scale begins here: darker colours are not legible beside their casing."""
_FRACTION = 4  # bits of the fraction of a pixel


def scale_colours(values: np.ndarray) -> np.ndarray:
    """Return colours [n, 3] uint8 of values [n] from 0 to 1 on viridis, which is perceptually uniform.

    It increases in lightness too, so that it is read alike with any colour vision, and in grey.
    """
    shares = DARKEST + (1 - DARKEST) * np.clip(np.nan_to_num(values), 0, 1)
    levels = np.rint(255 * shares).astype(np.uint8).reshape(-1, 1)
    if not len(levels):
        return np.zeros((0, 3), np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[:, 0, ::-1])


def draw_lines(canvas: np.ndarray, begins: np.ndarray, ends: np.ndarray, colours: np.ndarray, width: int = 1) -> None:
    """Draw lines from points [n, 2] to points [n, 2] in colours [n, 3], with a dark casing, the last one on top.

    The casing is half transparent, so that a photograph is seen between many lines.

    canvas  [h, w, 3] uint8, changed in place
    """
    cased = canvas.copy()
    for begin, end in zip(_fixed(begins), _fixed(ends), strict=True):
        cv2.line(cased, begin, end, CASING, width + 2, cv2.LINE_AA, _FRACTION)
    cv2.addWeighted(cased, CASING_SHARE, canvas, 1 - CASING_SHARE, 0, canvas)
    for begin, end, colour in zip(_fixed(begins), _fixed(ends), colours.tolist(), strict=True):
        cv2.line(canvas, begin, end, colour, width, cv2.LINE_AA, _FRACTION)


def draw_points(canvas: np.ndarray, points: np.ndarray, colours: np.ndarray, radius: float = 2.5) -> None:
    """Draw discs at points [n, 2] in colours [n, 3], each with a dark casing, the last one on top."""
    inner, outer = (round(size * (1 << _FRACTION)) for size in (radius, radius + 1.0))
    for point, colour in zip(_fixed(points), colours.tolist(), strict=True):
        cv2.circle(canvas, point, outer, CASING, -1, cv2.LINE_AA, _FRACTION)
        cv2.circle(canvas, point, inner, colour, -1, cv2.LINE_AA, _FRACTION)


def draw_circles(canvas: np.ndarray, points: np.ndarray, radii: np.ndarray, colours: np.ndarray) -> None:
    """Draw circles around points [n, 2] with radii [n] in colours [n, 3], each with a dark casing, the last on top."""
    sizes = np.maximum(1, np.rint(radii * (1 << _FRACTION))).astype(int).tolist()
    for width, inks in ((3, np.broadcast_to(CASING, colours.shape)), (1, colours)):
        for point, size, colour in zip(_fixed(points), sizes, inks.tolist(), strict=True):
            cv2.circle(canvas, point, size, colour, width, cv2.LINE_AA, _FRACTION)


def draw_outline(canvas: np.ndarray, corners: np.ndarray | Outline, colour: Colour = OUTLINE, width: int = 2) -> None:
    """Draw a closed outline through corners [n, 2] with a dark casing; a single corner is a point."""
    points = np.asarray(corners, np.float64).reshape(-1, 2)
    if len(points) == 1:
        draw_points(canvas, points, np.array([colour]), width + 1)
    if len(points) < 2:
        return
    fixed = np.array(_fixed(points), np.int32).reshape(-1, 1, 2)
    for ink, thick in ((CASING, width + 2), (colour, width)):
        cv2.polylines(canvas, [fixed], True, ink, thick, cv2.LINE_AA, _FRACTION)


def _fixed(points: np.ndarray) -> list[Sequence[int]]:
    """Return points in whole fractions of a pixel, as OpenCV takes them; far ones stay in its range."""
    found: list[Sequence[int]] = np.rint(np.clip(points, -1e5, 1e5) * (1 << _FRACTION)).astype(int).tolist()
    return found
