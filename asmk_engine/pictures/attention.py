"""What an extractor looks at: the strengths of the features of a photograph as a map, and the strongest as circles."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw

from asmk_engine.features import Features
from asmk_engine.pictures.lettering import letter, shorten
from asmk_engine.pictures.photographs import ShownPhotograph
from asmk_engine.pictures.strokes import CASING, draw_circles, draw_outline, scale_colours
from asmk_engine.regions.attention import attention_map as attention_map
from asmk_engine.regions.attention import feature_boxes

PANEL, HIGHEST, MARGIN, GAP, LINE = 480, 640, 16, 12, 19
MAP_SIDE = 160
"""The longer side of the map before it is enlarged, in places."""
SATURATED = 99
"""Strengths above this percentile have the colour of the largest: a few of SIFT's are many times the others."""
PAPER, INK, PALE_INK = "#ffffff", "#1f2328", "#57606a"


def draw_attention(
    photograph: ShownPhotograph,
    features: Features,
    name: str,
    extractor: str,
    most: int,
    threshold: float | None = None,
) -> np.ndarray:
    """Draw a photograph, the map of its attention, and its strongest features as circles of their scale, side by side.

    name, extractor  what is written about them
    most             number of features that are drawn as circles
    threshold        where the attention reaches this share of its range, boxes are drawn around its connected parts on
                     the photograph, see `feature_boxes`; None draws none (Song et al., CVPR 2024, Fig. 5)

    Returns [h, w, 3] uint8, RGB.
    """
    width, height = photograph.size
    factor = min(PANEL / width, HIGHEST / height)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    pixels = photograph.resized(size)
    limits = _limits(features)
    panels = [
        _boxes(pixels, features, threshold),
        _heat(pixels, features, limits),
        _circles(pixels, features, limits, most),
    ]
    count = len(features)
    titles = [name, f"attention of {extractor}", f"the strongest {min(most, count)} of {count} features"]
    letters = letter(titles)
    paper = Image.new("RGB", (2 * MARGIN + 3 * size[0] + 2 * GAP, 2 * MARGIN + LINE + size[1] + LINE + 8), PAPER)
    draw = ImageDraw.Draw(paper)
    for place, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        left = MARGIN + place * (size[0] + GAP)
        paper.paste(Image.fromarray(panel), (left, MARGIN + LINE))
        draw.text((left, MARGIN - 4), shorten(letters, title, size[0]), INK, letters.regular)
    foot, length = MARGIN + LINE + size[1] + 14, 160
    paper.paste(Image.fromarray(np.tile(scale_colours(np.linspace(0, 1, length)), (12, 1, 1))), (MARGIN, foot))
    draw.rectangle([MARGIN - 1, foot - 1, MARGIN + length, foot + 12], None, CASING)
    draw.text((MARGIN + length + 10, foot + 6), _legend(features, limits), PALE_INK, letters.regular, anchor="lm")
    return np.asarray(paper)


def _limits(features: Features) -> tuple[float, float]:
    """Return the strengths of the darkest colour, which is that of the weakest kept feature, and of the lightest."""
    if not len(features):
        return 0.0, 1.0
    low, high = float(features.scores.min()), float(np.percentile(features.scores, SATURATED))
    return (low, high) if high > low else (0.0, high or 1.0)


def _shares(strengths: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return np.asarray((strengths - limits[0]) / (limits[1] - limits[0]))


def _legend(features: Features, limits: tuple[float, float]) -> str:
    if not len(features):
        return "no feature was found"
    return f"strength of the features that are kept, {limits[0]:.3g} or less to {limits[1]:.3g}"


def _heat(pixels: np.ndarray, features: Features, limits: tuple[float, float]) -> np.ndarray:
    """Return the photograph in grey under the colours of the map."""
    height, width = pixels.shape[:2]
    factor = min(1.0, MAP_SIDE / max(width, height))
    small = max(1, round(width * factor)), max(1, round(height * factor))
    strengths = cv2.resize(attention_map(features, small), (width, height), interpolation=cv2.INTER_CUBIC)
    colours = scale_colours(_shares(strengths, limits).ravel()).reshape(pixels.shape).astype(np.float32)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)[:, :, None]
    return np.rint(0.4 * grey + 0.6 * colours).astype(np.uint8)


def _boxes(pixels: np.ndarray, features: Features, threshold: float | None) -> np.ndarray:
    canvas = pixels.copy()
    factor = np.divide(canvas.shape[1::-1], np.maximum(features.image_size, 1))
    for one in feature_boxes(features, threshold) if threshold is not None else ():
        x1, y1, x2, y2 = one.box
        draw_outline(canvas, np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]) * factor - 0.5)
    return canvas


def _circles(pixels: np.ndarray, features: Features, limits: tuple[float, float], most: int) -> np.ndarray:
    canvas, kept = pixels.copy(), features.strongest(most)
    factor = np.divide(canvas.shape[1::-1], np.maximum(features.image_size, 1))
    points = (kept.keypoints[::-1, :2] + 0.5) * factor - 0.5  # the strongest on top
    radii = kept.keypoints[::-1, 2] * float(np.sqrt(factor.prod())) / 2
    draw_circles(canvas, points, radii, scale_colours(_shares(kept.scores[::-1], limits)))
    return canvas
