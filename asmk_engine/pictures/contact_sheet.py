"""The contact sheet: one row per query, with the query image first, then the images of its hits.

Queries have a blue frame; correct hits a green one and wrong hits a red one, if that is known. In hits that were
verified, the regions that match the query are outlined. Below each image may be its map of attention (Song et al., CVPR
2024, Fig. 6).
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageDraw

from asmk_engine import threads
from asmk_engine.errors import AsmkError, InputError
from asmk_engine.images.boxes import Box
from asmk_engine.images.decoding import view_image
from asmk_engine.images.listing import shown
from asmk_engine.indexes.answers import Hit
from asmk_engine.pictures.attention_maps import laid_over
from asmk_engine.pictures.lettering import Lettering, letter, shorten, wrap
from asmk_engine.pictures.strokes import draw_outline
from asmk_engine.regions.attention_maps import AttentionMap
from asmk_engine.storage.folder import Folder
from asmk_engine.verification.match import Outline

Row = tuple[Path, Sequence[tuple[Path, Hit]]]
"""The image file of a query, and the image file and hit of each result."""
IsCorrect = Callable[[Path, Hit], bool | None]
"""A function that returns whether a hit is correct for a query image; None if unknown."""
Shown = tuple[Path, Box | None]
"""An image file, and the region of it that was searched for; None for the whole, and for hits."""
NO_MAPS: Mapping[Shown, AttentionMap] = MappingProxyType({})

PAPER, INK, PALE_INK, RULE, GREY = "#ffffff", "#1f2328", "#6e7781", "#e4e7eb", "#f0f2f4"
QUERY, RIGHT, WRONG, REGION = "#1f6feb", "#2da44e", "#cf222e", "#ffd33d"
MARGIN, GAP, QUERY_GAP, ROW_GAP, FRAME = 40, 18, 34, 44, 3
LINE = 19
ATTENTION_GAP = 4
CAPTION = 8 + 2 * LINE


@dataclass(frozen=True)
class Thumbnail:
    """A thumbnail, and original pixels per thumbnail pixel along x and y; or the reason why there is none."""

    picture: Image.Image | None
    factor: tuple[float, float]
    reason: str


@dataclass(frozen=True)
class _ContactSheet:
    """The state that all drawing functions share; sizes in pixels."""

    draw: ImageDraw.ImageDraw
    paper: Image.Image
    letters: Lettering
    thumb: int
    thumbnails: dict[Shown, Thumbnail]


def write_contact_sheet(
    path: Path | str,
    rows: Iterable[Row],
    columns: int = 6,
    thumb: int = 160,
    *,
    correct: IsCorrect | None = None,
    box: Box | None = None,
    title: str = "Queries and what was found",
    most_rows: int = 50,
    attention: Mapping[Shown, AttentionMap] = NO_MAPS,
) -> None:
    """Write a PNG of queries and their first `columns` hits, atomically.

    thumb      longest side of an image on the sheet, in pixels
    correct    function that marks hits as correct or wrong; without it, or if it returns None, hits have no frame
    box        region of the query images that was searched for, in pixels of the upright originals
    title      headline of the sheet
    most_rows  maximum number of queries; a note at the bottom says if there are more
    attention  the maps that are laid over images, which are shown below these without

    An image that cannot be read is shown as a grey box with the reason. Raises InputError for a file name that does not
    end in .png or a sheet without rows, and StorageError if the file cannot be written.
    """
    path, rows = Path(path), list(rows)
    if path.suffix.lower() != ".png":
        raise InputError(f"{shown(path)}: a contact sheet is a PNG file; give a name that ends in .png")
    if not rows:
        raise InputError(f"{shown(path)}: no query to show; give at least one query image")
    paper = draw_contact_sheet(
        rows, columns, thumb, correct=correct, box=box, title=title, most_rows=most_rows, attention=attention
    )
    data = io.BytesIO()
    paper.save(data, "PNG")
    folder = Folder(path.parent)
    folder.make()
    folder.write(path.name, [data.getbuffer()])
    folder.sync()


def draw_contact_sheet(
    rows: Sequence[Row],
    columns: int,
    thumb: int,
    *,
    correct: IsCorrect | None,
    box: Box | None,
    title: str,
    most_rows: int,
    attention: Mapping[Shown, AttentionMap] = NO_MAPS,
) -> Image.Image:
    """Draw the image that `write_contact_sheet` writes."""
    kept = [(query, list(hits[:columns])) for query, hits in rows[:most_rows]]
    note = f"The first {len(kept)} of {len(rows)} queries are shown." if len(rows) > len(kept) else ""
    thumbnails = _thumbnails(kept, thumb, box, attention)
    head = MARGIN + 2 * LINE + (LINE if correct else 0)
    heights = [_row_height(row, thumbnails, thumb, box) for row in kept]
    tops = list(itertools.accumulate((height + ROW_GAP for height in heights), initial=head + ROW_GAP))
    columns = max(3, *(len(hits) for _, hits in kept))
    width = 2 * MARGIN + thumb + QUERY_GAP + columns * thumb + (columns - 1) * GAP
    paper = Image.new("RGB", (width, tops[-1] + (MARGIN if note else 0)), PAPER)
    letters = letter(text for query, hits in kept for text in (query.name, *(hit.name for _, hit in hits)))
    sheet = _ContactSheet(ImageDraw.Draw(paper), paper, letters, thumb, thumbnails)
    _draw_head(sheet, title, correct is not None)
    for top, height, (query, hits) in zip(tops, heights, kept, strict=False):
        sheet.draw.line([(MARGIN, top - ROW_GAP // 2), (width - MARGIN, top - ROW_GAP // 2)], RULE)
        _draw_row(sheet, top + height - CAPTION, query, hits, correct, box)
    sheet.draw.text((MARGIN, tops[-1]), note, PALE_INK, letters.regular, anchor="lm")
    return paper


def shown_images(row: Row, box: Box | None) -> list[Shown]:
    """Return what is shown of a row: the query, searched with a box of it, and the images of its hits."""
    return [(row[0], box), *((path, None) for path, _ in row[1])]


def _row_height(row: Row, thumbnails: dict[Shown, Thumbnail], thumb: int, box: Box | None) -> int:
    pictures = [thumbnails[one].picture for one in shown_images(row, box)]
    return max(picture.height if picture else thumb for picture in pictures) + CAPTION


def _thumbnails(
    rows: Sequence[Row], thumb: int, box: Box | None, attention: Mapping[Shown, AttentionMap]
) -> dict[Shown, Thumbnail]:
    each = dict.fromkeys(one for row in rows for one in shown_images(row, box))
    loaded = load_thumbnails([path for path, _ in each], thumb)
    return {one: _attended(loaded[one[0]], attention.get(one)) for one in each}


def _attended(thumbnail: Thumbnail, attention: AttentionMap | None) -> Thumbnail:
    """Return a thumbnail with the map of its attention laid over it below."""
    if attention is None or thumbnail.picture is None:
        return thumbnail
    pixels = np.asarray(thumbnail.picture)
    height, width = pixels.shape[:2]
    both = Image.new("RGB", (width, 2 * height + ATTENTION_GAP), PAPER)
    both.paste(thumbnail.picture, (0, 0))
    both.paste(Image.fromarray(laid_over(pixels, attention)), (0, height + ATTENTION_GAP))
    return Thumbnail(both, thumbnail.factor, "")


def load_thumbnails(paths: Iterable[Path], thumb: int) -> dict[Path, Thumbnail]:
    """Load image files as thumbnails whose longer side is at most `thumb` pixels; what cannot be read has a reason."""
    each = list(dict.fromkeys(paths))
    loaded = threads.run(lambda path: _load(path, thumb), each, threads.thread_count(None))
    return dict(zip(each, loaded, strict=True))


def _load(path: Path, thumb: int) -> Thumbnail:
    try:
        view = view_image(path, thumb)
    except AsmkError as error:
        return Thumbnail(None, (1, 1), str(error).removeprefix(f"{shown(path)}: "))
    return Thumbnail(Image.fromarray(view.pixels), view.factor, "")


def _draw_head(sheet: _ContactSheet, title: str, evaluated: bool) -> None:
    sheet.draw.text((MARGIN, MARGIN), title, INK, sheet.letters.large, anchor="lt")
    legend = [(QUERY, "query"), (RIGHT, "right"), (WRONG, "wrong")] if evaluated else []
    x, y = float(MARGIN), MARGIN + 2 * LINE
    for colour, word in legend:
        sheet.draw.rounded_rectangle([x, y - 6, x + 12, y + 6], 2, PAPER, colour, 2)
        sheet.draw.text((x + 20, y), word, PALE_INK, sheet.letters.regular, anchor="lm")
        x += sheet.letters.regular.getlength(word) + 44


def _draw_row(
    sheet: _ContactSheet,
    foot: int,
    query: Path,
    hits: Sequence[tuple[Path, Hit]],
    correct: IsCorrect | None,
    box: Box | None,
) -> None:
    """Draw a row with the bottom edges of all images at `foot`, so that the captions are aligned."""
    _draw_photo(sheet, MARGIN, foot, query, QUERY, box)
    _draw_caption(sheet, MARGIN, foot, "query", query.name)
    begin = MARGIN + sheet.thumb + QUERY_GAP
    for place, (path, hit) in enumerate(hits):
        x = begin + place * (sheet.thumb + GAP)
        right = correct(query, hit) if correct else None
        colour = None if right is None else RIGHT if right else WRONG
        _draw_photo(sheet, x, foot, path, colour, None, [match.outline for match in hit.matches if match is not None])
        _draw_caption(sheet, x, foot, f"{place + 1}", hit.name, f"{hit.score:.4f}")
    if not hits:
        text = "nothing in common with any indexed image"
        sheet.draw.text((begin, foot - LINE), text, PALE_INK, sheet.letters.regular, anchor="lm")


def _draw_photo(
    sheet: _ContactSheet,
    x: int,
    foot: int,
    path: Path,
    colour: str | None,
    box: Box | None,
    outlines: Sequence[Outline] = (),
) -> None:
    thumbnail = sheet.thumbnails[path, box]
    draw_thumbnail(sheet.draw, sheet.paper, sheet.letters, thumbnail, sheet.thumb, x, foot, colour, box, outlines)


def draw_thumbnail(
    draw: ImageDraw.ImageDraw,
    paper: Image.Image,
    letters: Lettering,
    thumbnail: Thumbnail,
    thumb: int,
    x: int,
    foot: int,
    colour: str | None,
    box: Box | None = None,
    outlines: Sequence[Outline] = (),
) -> None:
    """Draw a thumbnail, or the reason why there is none, in a square whose left edge is `x` and whose foot is `foot`.

    colour    of its frame, None for none
    box       a region to outline, in pixels of the upright original
    outlines  more regions, likewise
    """
    width, height = thumbnail.picture.size if thumbnail.picture else (thumb, thumb)
    left, top = x + (thumb - width) // 2, foot - height
    if thumbnail.picture is None:
        _draw_reason(draw, letters, thumb, left, top, thumbnail.reason)
    else:
        paper.paste(_outlined(thumbnail.picture, thumbnail.factor, outlines), (left, top))
        if box:
            x1, x2 = (left + edge / thumbnail.factor[0] for edge in (box[0], box[2]))
            y1, y2 = (top + edge / thumbnail.factor[1] for edge in (box[1], box[3]))
            draw.rectangle([x1, y1, x2, y2], None, REGION, 2)
    if colour:
        around = [left - FRAME, top - FRAME, left + width + FRAME - 1, foot + FRAME - 1]
        draw.rounded_rectangle(around, FRAME, None, colour, FRAME)


def _outlined(picture: Image.Image, factor: tuple[float, float], outlines: Sequence[Outline]) -> Image.Image:
    """Return a thumbnail with regions of its photograph, given in pixels of the original."""
    if not outlines:
        return picture
    canvas = np.array(picture)
    for outline in outlines:
        draw_outline(canvas, (np.array(outline, np.float64).reshape(-1, 2) + 0.5) / factor - 0.5)
    return Image.fromarray(canvas)


def _draw_reason(draw: ImageDraw.ImageDraw, letters: Lettering, side: int, x: int, y: int, reason: str) -> None:
    draw.rectangle([x, y, x + side - 1, y + side - 1], GREY)
    lines = wrap(letters, reason, side - 24)[: max(1, (side - 24) // LINE)]
    for number, line in enumerate(lines):
        draw.text((x + 12, y + 12 + number * LINE), line, PALE_INK, letters.regular)


def _draw_caption(sheet: _ContactSheet, x: int, foot: int, first: str, name: str, score: str = "") -> None:
    y = foot + CAPTION - 2 * LINE
    sheet.draw.text((x, y), first, QUERY if first == "query" else PALE_INK, sheet.letters.regular)
    if score:
        sheet.draw.text((x + sheet.thumb, y), score, INK, sheet.letters.regular, anchor="ra")
    sheet.draw.text((x, y + LINE), shorten(sheet.letters, name, sheet.thumb), INK, sheet.letters.regular)
