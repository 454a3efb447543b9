"""An image moved onto the query by the map of a match: both blended, and as frames that alternate."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from asmk_engine.images.boxes import Size
from asmk_engine.pictures.lettering import letter, shorten
from asmk_engine.pictures.photographs import ShownPhotograph
from asmk_engine.pictures.strokes import draw_outline
from asmk_engine.verification.match import Match

WIDTH, HIGHEST, BAND = 800, 700, 24
MOST_ENLARGED, LEAST_WIDTH = 2.0, 400
"""Pixels of the query are enlarged at most so many times, or until the overlay is this wide."""
AROUND = 0.6
"""What is shown around the outline, as a share of its longer side, where it is a small part of the query."""
LEAST_SHARE, MOST_SHARE = 0.4, 0.75
"""The part of the query that is shown has at least this share of its sides; a part above the other is all of it."""
FADED = 0.35
"""What the image does not cover keeps this share of its contrast."""


@dataclass(frozen=True, eq=False)
class MovedImage:
    """The same part of the query twice: as it is, and under the image.

    query    [h, w, 3] uint8, RGB
    moved    [h, w, 3] uint8: the image where it lies on the query, elsewhere the query in faint grey
    covered  [h, w] float32, from 0 to 1: where the image lies
    outline  [n, 2] float64, the outline of the inliers in pixels of these arrays
    """

    query: np.ndarray
    moved: np.ndarray
    covered: np.ndarray
    outline: np.ndarray

    def blend(self) -> np.ndarray:
        """Return query and image in equal parts where both are, with the outline of the inliers; [h, w, 3] uint8."""
        share = 0.5 * self.covered[:, :, None]
        base = self.covered[:, :, None] * self.query + (1 - self.covered[:, :, None]) * _faded(self.query)
        blended = np.rint((1 - share) * base + share * self.moved).astype(np.uint8)
        draw_outline(blended, self.outline)
        return blended

    def frames(self, query: str, image: str) -> list[np.ndarray]:
        """Return the two frames of a blinking picture with a name below each; [h, w, 3] uint8."""
        letters = letter([query, image])
        found = []
        for pixels, ink, text in ((self.query, "#1f6feb", query), (self.moved, "#b35900", image)):
            height, width = pixels.shape[:2]
            paper = Image.new("RGB", (width, height + BAND), ink)
            paper.paste(Image.fromarray(pixels))
            text = shorten(letters, text, width - 16)
            ImageDraw.Draw(paper).text((8, height + BAND // 2), text, "#ffffff", letters.regular, anchor="lm")
            found.append(np.asarray(paper))
        return found


def overlay(query: ShownPhotograph, image: ShownPhotograph, match: Match, width: int = WIDTH) -> MovedImage | None:
    """Move an image onto the query by the inverse of the map of a match.

    Where the outline is a small part of the query, only this part and what is around it is shown.

    width   greatest width of the arrays in pixels

    Returns None if a photograph cannot be shown or no map explains anything.
    """
    if query.pixels is None or image.pixels is None or not match.inliers:
        return None
    corner, size = _window(match, query.size)
    factor = min(width / size[0], HIGHEST / size[1], max(MOST_ENLARGED, LEAST_WIDTH / size[0]))
    out = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
    to_query = _map_of(np.divide(size, out), corner)
    lower = query.pixels.shape[1::-1]
    below = _sampled(query.pixels, _pixels_of(query.size, lower) @ to_query, out)
    upper = _pixels_of(image.size, image.pixels.shape[1::-1]) @ np.vstack([match.affine, [0, 0, 1]]) @ to_query
    above = _sampled(image.pixels, upper, out)
    covered = cv2.warpAffine(
        np.ones(image.pixels.shape[:2], np.float32), upper[:2], out, flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
    )
    moved = covered[:, :, None] * above + (1 - covered[:, :, None]) * _faded(below)
    corners = np.array(match.query_outline, np.float64).reshape(-1, 2)
    inverse = np.linalg.inv(to_query)
    placed = corners @ inverse[:2, :2].T + inverse[:2, 2]
    return MovedImage(below, np.rint(moved).astype(np.uint8), covered, placed)


def _window(match: Match, size: Size) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the left upper corner and the size of the part of the query that is shown, in its pixels.

    The part has the shape of the query.
    """
    left, top, right, bottom = match.query_box or (0.0, 0.0, *size)
    around = 2 * AROUND * max(right - left, bottom - top)
    share = max((right - left + around) / size[0], (bottom - top + around) / size[1], LEAST_SHARE)
    if share > MOST_SHARE:
        return (0.0, 0.0), size
    width, height = share * size[0], share * size[1]
    x = min(max(0.0, (left + right - width) / 2), size[0] - width)
    y = min(max(0.0, (top + bottom - height) / 2), size[1] - height)
    return (x, y), (width, height)


def _map_of(factor: np.ndarray, corner: tuple[float, float]) -> np.ndarray:
    """Return [3, 3], from shown pixels to pixels of the original; the centre of the first pixel is (0, 0) in both."""
    found = np.diag([*factor, 1.0])
    found[:2, 2] = 0.5 * factor - 0.5 + corner
    return found


def _pixels_of(size: Size, kept: Size) -> np.ndarray:
    """Return [3, 3], from pixels of the original to those that are kept of it."""
    return np.linalg.inv(_map_of(np.divide(size, kept), (0.0, 0.0)))


def _sampled(pixels: np.ndarray, matrix: np.ndarray, out: Size) -> np.ndarray:
    """Return pixels at mapped places [h, w, 3] uint8; many pixels for one are averaged first.

    matrix  [3, 3], from the places of the result to pixels
    """
    step = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    if step > 1.5:
        height, width = pixels.shape[:2]
        small = max(1, round(width / step)), max(1, round(height / step))
        matrix = _pixels_of((width, height), small) @ matrix
        pixels = np.asarray(cv2.resize(pixels, small, interpolation=cv2.INTER_AREA))
    flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
    return cv2.warpAffine(pixels, matrix[:2], out, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _faded(pixels: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)[:, :, None]
    return np.broadcast_to(FADED * grey + (1 - FADED) * 200.0, pixels.shape)
