"""Maps of attention laid over a photograph, and the masks and boxes that thresholds make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from asmk_engine.pictures.lettering import Lettering, letter, shorten
from asmk_engine.pictures.photographs import ShownPhotograph
from asmk_engine.pictures.strokes import CASING, OUTLINE, draw_outline, scale_colours
from asmk_engine.regions.attention import MOST_BOXES
from asmk_engine.regions.attention_maps import AttentionMap, MaskBox, mask_boxes

PANEL, HIGHEST, MARGIN, GAP, LINE = 480, 640, 16, 12, 19
BAR, BAR_HEIGHT = 90, 10
COLUMNS = {1: 1, 2: 2, 3: 3, 4: 2}
"""Panels of a row, by their number; three where there are more."""
PAPER, INK, PALE_INK = "#ffffff", "#1f2328", "#57606a"
SATURATED = 99
"""Values above this percentile have the lightest colour."""
STEEP, DECADES = 10.0, 3
"""Where the greatest value is so many times that percentile, as where a softmax chooses, the scale is logarithmic and
has so many powers of ten."""
COLOURED, DIMMED = 0.6, 0.3


@dataclass(frozen=True)
class ColourScale:
    """The values of the darkest and the lightest colour, and whether the colours between are of their logarithms."""

    low: float
    high: float
    is_logarithmic: bool = False

    @classmethod
    def of(cls, one: AttentionMap) -> ColourScale:
        """Return the scale for a map."""
        low, high = one.limits
        if one.thresholds:
            return cls(low, high) if high > low else cls(low - 1, low)
        usual = float(np.percentile(one.values, SATURATED))
        if high > 0 <= low and high > STEEP * usual:
            return cls(max(low, high / 10**DECADES), high, is_logarithmic=True)
        return cls(low, usual) if usual > low else cls(low, high) if high > low else cls(low - 1, low)

    def shares(self, values: np.ndarray) -> np.ndarray:
        """Return where values are on the scale, from 0 to 1 within it."""
        if not self.is_logarithmic:
            return np.asarray((values - self.low) / (self.high - self.low))
        return np.asarray(np.log(np.maximum(values, self.low) / self.low) / np.log(self.high / self.low))

    def __str__(self) -> str:
        low = 0.0 if abs(self.low) < self.high / 10**DECADES / 2 else self.low
        return f"{_number(low)} to {_number(self.high)}{' (log)' if self.is_logarithmic else ''}"


def _number(value: float) -> str:
    """Return a number with three digits, or all digits of larger ones."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class _Panel:
    """A picture with a title above it and a note below it; perhaps with a colour scale."""

    pixels: np.ndarray
    title: str
    note: str = ""
    scale: ColourScale | None = None


def draw_attention_maps(
    photograph: ShownPhotograph,
    maps: Sequence[AttentionMap],
    name: str,
    extractor: str,
    threshold: float | None = None,
) -> np.ndarray:
    """Draw a photograph, each of its maps of attention laid over it, and the masks of the first with their boxes.

    name, extractor  what is written about them
    maps             at least one
    threshold        of the mask that is drawn, from 0 to 1; None draws the masks of the network itself, if it has some.
                     A mask darkens what is below its threshold, as with β = 0 in Song et al., CVPR 2024, Fig. 5 (c);
                     on it are the boxes of `mask_boxes` and their confidence (Fig. 5 d)

    Returns [h, w, 3] uint8, RGB.
    """
    width, height = photograph.size
    factor = min(PANEL / width, HIGHEST / height)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    pixels = photograph.resized(size)
    letters = letter([name, extractor])
    panels = [_Panel(pixels, name, extractor)]
    for one in maps:
        panels.append(_Panel(laid_over(pixels, one), one.title, one.meaning, ColourScale.of(one)))
    panels += _masks(pixels, maps[0], threshold, letters)
    return _arranged(panels, size, letters)


def laid_over(pixels: np.ndarray, one: AttentionMap) -> np.ndarray:
    """Return the pixels [h, w, 3] of a photograph in grey under the colours of a map; grey alone where it has none."""
    values = one.drawn((pixels.shape[1], pixels.shape[0]))
    colours = scale_colours(ColourScale.of(one).shares(values).ravel()).reshape(pixels.shape).astype(np.float32)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)[:, :, None]
    share = np.where(np.isnan(values), 0.0, COLOURED)[:, :, None].astype(np.float32)
    return np.rint((1 - share) * grey + share * colours).astype(np.uint8)


def _masks(pixels: np.ndarray, one: AttentionMap, threshold: float | None, letters: Lettering) -> list[_Panel]:
    if threshold is None and not one.thresholds:
        return []
    boxes = mask_boxes(one, threshold, None)
    found = []
    for number, each in enumerate(one.thresholds if threshold is None else (threshold,), start=1):
        mine = [box for box in boxes if box.mask == number]
        title = f"mask {number}: attention of {each:.2g} or more"
        few = f"the largest {MOST_BOXES} of " if len(mine) > MOST_BOXES else ""
        note = f"{few}{len(mine)} box{'' if len(mine) == 1 else 'es'}, with the mean attention in each"
        found.append(_Panel(_masked(pixels, one, each, mine[:MOST_BOXES], letters), title, note))
    return found


def _masked(
    pixels: np.ndarray, one: AttentionMap, threshold: float, boxes: Sequence[MaskBox], letters: Lettering
) -> np.ndarray:
    height, width = pixels.shape[:2]
    low, high = one.limits
    values = (one.drawn((width, height), nearest=True) - low) / (high - low) if high > low else np.ones((height, width))
    with np.errstate(invalid="ignore"):
        inside = values >= threshold
    canvas = np.where(inside[:, :, None], pixels, np.rint(DIMMED * pixels)).astype(np.uint8)
    factor = np.divide((width, height), one.image_size)
    for box in boxes:
        x1, y1, x2, y2 = box.scored.box
        corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]) * factor - 0.5
        draw_outline(canvas, np.clip(corners, 1.5, (width - 2.5, height - 2.5)))
    paper = Image.fromarray(canvas)
    for box in boxes:
        _write_confidence(ImageDraw.Draw(paper), box, factor, (width, height), letters)
    return np.asarray(paper)


def _write_confidence(
    draw: ImageDraw.ImageDraw, box: MaskBox, factor: np.ndarray, size: tuple[int, int], letters: Lettering
) -> None:
    """Write the confidence of a box above it, or within where there is no room above, on the colour of its outline."""
    text, high = f"{box.scored.score:.2f}", LINE - 2
    width = letters.regular.getlength(text) + 8
    left, top = box.scored.box[0] * factor[0], box.scored.box[1] * factor[1]
    x = min(max(0.0, left - 1), size[0] - width)
    y = top - high if top >= high else max(0.0, top)
    draw.rectangle([x, y, x + width, y + high], OUTLINE)
    draw.text((x + 4, y + high / 2), text, INK, letters.regular, anchor="lm")


def _arranged(panels: Sequence[_Panel], size: tuple[int, int], letters: Lettering) -> np.ndarray:
    """Return the panels, all of one size, in rows."""
    columns = COLUMNS.get(len(panels), 3)
    across, down = size[0] + GAP, LINE + size[1] + LINE + 20
    rows = -(-len(panels) // columns)
    paper = Image.new("RGB", (2 * MARGIN + columns * across - GAP, 2 * MARGIN + rows * down - 20), PAPER)
    draw = ImageDraw.Draw(paper)
    for place, panel in enumerate(panels):
        left, top = MARGIN + place % columns * across, MARGIN + place // columns * down
        draw.text((left, top - 2), shorten(letters, panel.title, size[0]), INK, letters.regular)
        paper.paste(Image.fromarray(panel.pixels), (left, top + LINE))
        _draw_foot(paper, draw, panel, (left, top + LINE + size[1] + 12), size[0], letters)
    return np.asarray(paper)


def _draw_foot(
    paper: Image.Image, draw: ImageDraw.ImageDraw, panel: _Panel, place: tuple[int, int], width: int, letters: Lettering
) -> None:
    (left, middle), note = place, panel.note
    if panel.scale is not None and width > 2 * BAR:
        bar = np.tile(scale_colours(np.linspace(0, 1, BAR)), (BAR_HEIGHT, 1, 1))
        top = middle - BAR_HEIGHT // 2
        paper.paste(Image.fromarray(bar), (left, top))
        draw.rectangle([left - 1, top - 1, left + BAR, top + BAR_HEIGHT], None, CASING)
        note = f"{panel.scale}: {note}"
        left, width = left + BAR + 8, width - BAR - 8
    draw.text((left, middle), shorten(letters, note, width), PALE_INK, letters.regular, anchor="lm")
