"""A match as a picture: query and image side by side, the matched features joined by lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from asmk_engine.images.boxes import Box, Size
from asmk_engine.pictures.lettering import Lettering, letter, shorten, wrap
from asmk_engine.pictures.photographs import ShownPhotograph
from asmk_engine.pictures.strokes import (
    CASING,
    OUTLINE,
    draw_lines,
    draw_outline,
    draw_points,
    scale_colours,
)
from asmk_engine.verification.match import Match

PAPER, INK, PALE_INK, BOX = "#ffffff", "#1f2328", "#57606a", (255, 255, 255)
WIDTH, MARGIN, GAP, LINE = 1000, 16, 16, 19
HIGHEST = 560
"""The greatest height of a photograph in the picture."""
MOST_ENLARGED = 2.0
MOST_LINES = 50
"""Lines of a picture: with more of them nothing is seen. All matched features are drawn as points."""
MANY_POINTS = 150
"""Points are smaller where there are more of them."""


@dataclass(frozen=True)
class Caption:
    """What is written around a match.

    query, image  names of the two images
    score         what the score is called and its value, such as ("score", 0.25); None for none
    notes         further remarks, such as how the query was turned
    """

    query: str
    image: str
    score: tuple[str, float] | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class _Placed:
    """A photograph on the canvas: its left upper pixel, its size there, and pixels there per pixel of the original."""

    photograph: ShownPhotograph
    left: int
    top: int
    size: Size

    def to_canvas(self, points: object) -> np.ndarray:
        """Convert points [n, 2] of the original to the canvas."""
        factor = np.divide(self.size, self.photograph.size)
        corner = np.array([self.left, self.top])
        found: np.ndarray = (np.asarray(points, np.float64).reshape(-1, 2) + 0.5) * factor - 0.5 + corner
        return found

    def paste(self, canvas: np.ndarray) -> None:
        """Put the photograph, or grey, in its place."""
        width, height = self.size
        canvas[self.top : self.top + height, self.left : self.left + width] = self.photograph.resized(self.size)


def draw_match(
    query: ShownPhotograph, image: ShownPhotograph, match: Match | None, caption: Caption, box: Box | None = None
) -> np.ndarray:
    """Draw query and image side by side with what they have in common.

    The features that the map explains are points, coloured by the weights of their pairs; the strongest MOST_LINES
    pairs are joined by lines. The outlines are those of the match. A photograph that cannot be shown is a grey box with
    the reason.

    match   None if the image was not verified
    box     region of the query that was searched for, in pixels of the upright original

    Returns [h, w, 3] uint8, RGB, WIDTH pixels wide.
    """
    one, other = _placed(query, image, match)
    foot = MARGIN + LINE + max(one.size[1], other.size[1]) + 12
    lines = _legend(match, caption)
    letters = letter([caption.query, caption.image, *lines, query.reason, image.reason])
    height = foot + len(lines) * LINE + (LINE + 8 if match is not None and match.inliers else 0) + MARGIN
    canvas = _canvas(one, other, height, box)
    if match is not None:
        _draw_pairs(canvas, one, other, match)
    paper = Image.fromarray(canvas)
    draw = ImageDraw.Draw(paper)
    for placed, name in ((one, caption.query), (other, caption.image)):
        _write_head(draw, letters, placed, name)
    for number, line in enumerate(lines):
        draw.text((MARGIN, foot + number * LINE), line, PALE_INK if number else INK, letters.regular)
    if match is not None and match.inliers:
        _draw_scale(paper, draw, letters, match, foot + len(lines) * LINE + 8)
    return np.asarray(paper)


def draw_pair(
    query: ShownPhotograph, image: ShownPhotograph, query_name: str, image_name: str, box: Box | None = None
) -> np.ndarray:
    """Draw query and image side by side with their names and nothing else; see `draw_match`."""
    one, other = _placed(query, image, None)
    canvas = _canvas(one, other, MARGIN + LINE + max(one.size[1], other.size[1]) + MARGIN, box)
    letters = letter([query_name, image_name, query.reason, image.reason])
    paper = Image.fromarray(canvas)
    draw = ImageDraw.Draw(paper)
    _write_head(draw, letters, one, query_name)
    _write_head(draw, letters, other, image_name)
    return np.asarray(paper)


def _canvas(one: _Placed, other: _Placed, height: int, box: Box | None) -> np.ndarray:
    """Return white paper with both photographs, and the box in the first."""
    canvas = np.full((height, WIDTH, 3), 255, np.uint8)
    for placed in (one, other):
        placed.paste(canvas)
    if box is not None:
        x1, y1, x2, y2 = box
        draw_outline(canvas, one.to_canvas([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]), BOX, 1)
    return canvas


def _placed(query: ShownPhotograph, image: ShownPhotograph, match: Match | None) -> tuple[_Placed, _Placed]:
    if match is not None:
        query, image = query.sized_as(match.query_size), image.sized_as(match.size)
    room = (WIDTH - 2 * MARGIN - GAP) // 2
    top = MARGIN + LINE
    sizes = [_fitted(one, (room, HIGHEST)) for one in (query, image)]
    return (
        _Placed(query, MARGIN + (room - sizes[0][0]) // 2, top, sizes[0]),
        _Placed(image, MARGIN + room + GAP + (room - sizes[1][0]) // 2, top, sizes[1]),
    )


def _fitted(photograph: ShownPhotograph, room: Size) -> Size:
    """Return the size that fits into the room; small photographs are enlarged only a little."""
    width, height = photograph.size
    factor = min(room[0] / width, room[1] / height)
    if photograph.pixels is not None:
        factor = min(factor, MOST_ENLARGED)
    return max(1, round(width * factor)), max(1, round(height * factor))


def relative_weights(match: Match) -> np.ndarray:
    """Return the weights of the inliers [n] as shares of the largest."""
    return match.weights / max(float(match.weights.max(initial=0.0)), 1e-12)


def _draw_pairs(canvas: np.ndarray, one: _Placed, other: _Placed, match: Match) -> None:
    colours = scale_colours(relative_weights(match))
    order = np.argsort(match.weights, kind="stable")  # the strongest last, on top
    begins, ends = one.to_canvas(match.query_points), other.to_canvas(match.points)
    radius = 2.5 * min(1.0, max(0.5, math.sqrt(MANY_POINTS / len(order)))) if len(order) else 0.0
    joined = order[-MOST_LINES:]
    draw_lines(canvas, begins[joined], ends[joined], colours[joined])
    draw_outline(canvas, one.to_canvas(match.query_outline))
    draw_outline(canvas, other.to_canvas(match.outline))
    for points in (begins, ends):
        draw_points(canvas, points[order], colours[order], radius)


def _write_head(draw: ImageDraw.ImageDraw, letters: Lettering, placed: _Placed, name: str) -> None:
    end = (WIDTH - GAP) // 2 if placed.left < WIDTH // 2 else WIDTH - MARGIN
    draw.text((placed.left, MARGIN - 4), shorten(letters, name, end - placed.left), INK, letters.regular)
    if placed.photograph.pixels is not None:
        return
    lines = wrap(letters, placed.photograph.reason, placed.size[0] - 24)
    for number, line in enumerate(lines[: max(1, (placed.size[1] - 24) // LINE)]):
        at = (placed.left + 12, placed.top + 12 + number * LINE)
        draw.text(at, line, PALE_INK, letters.regular, stroke_width=2, stroke_fill="#e4e4e4")


def match_line(match: Match | None) -> str:
    """Return the numbers of a match in words."""
    if match is None:
        return "not verified"
    if not match.pairs:
        return "no feature in common"
    if not match.inliers:
        return f"{_counted(match.pairs, 'pair')} of similar features, of which no map explains any"
    one, other = match.overlap
    copy = ", a copy" if match.is_copy else ""
    return (
        f"{_counted(match.inliers, 'inlier')} of {_counted(match.pairs, 'pair')} of similar features, at "
        f"{_counted(match.places, 'place')}{copy}; overlap "
        f"{one:.1f} % of the query, {other:.1f} % of the image"
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _legend(match: Match | None, caption: Caption) -> list[str]:
    score = [] if caption.score is None else [f"{caption.score[0]} {caption.score[1]:.4f}"]
    lines = ["; ".join([*score, match_line(match)])]
    notes = list(caption.notes)
    if match is not None and match.inliers > MOST_LINES:
        notes.insert(0, f"lines join the strongest {MOST_LINES} of the {match.inliers} inliers")
    return [*lines, "; ".join(notes)] if notes else lines


def _draw_scale(paper: Image.Image, draw: ImageDraw.ImageDraw, letters: Lettering, match: Match, top: int) -> None:
    """Draw the colour scale of the weights, and what the outline is."""
    x, length, height = MARGIN, 160, 12
    paper.paste(Image.fromarray(np.tile(scale_colours(np.linspace(0, 1, length)), (height, 1, 1))), (x, top))
    draw.rectangle([x - 1, top - 1, x + length, top + height], None, CASING)
    text = f"weight of a pair, 0 to {match.weights.max():.3f}"
    draw.text((x + length + 10, top + height // 2), text, INK, letters.regular, anchor="lm")
    x += length + 10 + round(letters.regular.getlength(text)) + 30
    draw.line([(x, top + height // 2), (x + 26, top + height // 2)], CASING, 5)
    draw.line([(x + 1, top + height // 2), (x + 25, top + height // 2)], OUTLINE, 3)
    draw.text((x + 36, top + height // 2), "outline of the inliers", INK, letters.regular, anchor="lm")
