"""The contact sheet of a group of images that belong together: a grid, with one caption below each image."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from asmk_engine.errors import InputError
from asmk_engine.images.listing import shown
from asmk_engine.pictures.contact_sheet import (
    CAPTION,
    GAP,
    INK,
    LINE,
    MARGIN,
    PALE_INK,
    PAPER,
    ROW_GAP,
    RULE,
    Thumbnail,
    draw_thumbnail,
    load_thumbnails,
)
from asmk_engine.pictures.lettering import Lettering, letter, shorten
from asmk_engine.storage.folder import Folder

SAME = "#bf8700"  # the frame of a copy; the captions say the same in words


@dataclass(frozen=True)
class SheetImage:
    """An image of a sheet.

    path     its file, or where it should be
    caption  what it is, such as `copy of beach.jpg`; empty for none
    is_copy  whether it has the frame of a copy
    """

    path: Path
    caption: str = ""
    is_copy: bool = False


@dataclass(frozen=True)
class _Sheet:
    draw: ImageDraw.ImageDraw
    paper: Image.Image
    letters: Lettering
    thumb: int
    thumbnails: dict[Path, Thumbnail]


def write_group_sheet(
    path: Path | str,
    parts: Sequence[Sequence[SheetImage]],
    *,
    title: str,
    note: str = "",
    columns: int = 6,
    thumb: int = 160,
) -> None:
    """Write a PNG of the images of a group, part by part with a line between them, atomically.

    title, note  a headline, and a line below it
    thumb        longest side of an image on the sheet, in pixels

    An image that cannot be read is shown as a grey box with the reason. Raises InputError for a file name that does not
    end in .png or a group without images, and StorageError if the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{shown(path)}: a contact sheet is a PNG file; give a name that ends in .png")
    if not any(parts):
        raise InputError(f"{shown(path)}: no image to show; give at least one")
    data = io.BytesIO()
    draw_group_sheet(parts, title=title, note=note, columns=columns, thumb=thumb).save(data, "PNG")
    Folder(path.parent).write(path.name, [data.getbuffer()])


def draw_group_sheet(
    parts: Sequence[Sequence[SheetImage]], *, title: str, note: str, columns: int, thumb: int
) -> Image.Image:
    """Draw the image that `write_group_sheet` writes."""
    thumbnails = load_thumbnails([image.path for part in parts for image in part], thumb)
    rows = [(part[begin : begin + columns], begin == 0) for part in parts for begin in range(0, len(part), columns)]
    heights = [max(_height(thumbnails[image.path], thumb) for image in row) + CAPTION for row, _ in rows]
    head = MARGIN + (3 if note else 2) * LINE
    width = 2 * MARGIN + columns * thumb + (columns - 1) * GAP
    paper = Image.new("RGB", (width, head + sum(heights) + len(rows) * ROW_GAP + MARGIN // 2), PAPER)
    letters = letter([title, note, *(text for part in parts for one in part for text in (one.path.name, one.caption))])
    sheet = _Sheet(ImageDraw.Draw(paper), paper, letters, thumb, thumbnails)
    sheet.draw.text((MARGIN, MARGIN), title, INK, letters.large, anchor="lt")
    sheet.draw.text((MARGIN, MARGIN + 2 * LINE), note, PALE_INK, letters.regular, anchor="lt")
    top = head
    for (row, is_first), height in zip(rows, heights, strict=True):
        if is_first:
            sheet.draw.line([(MARGIN, top + ROW_GAP // 2), (width - MARGIN, top + ROW_GAP // 2)], RULE)
        top += ROW_GAP
        for place, image in enumerate(row):
            _draw_image(sheet, MARGIN + place * (thumb + GAP), top + height - CAPTION, image)
        top += height
    return paper


def _height(thumbnail: Thumbnail, thumb: int) -> int:
    return thumbnail.picture.height if thumbnail.picture else thumb


def _draw_image(sheet: _Sheet, x: int, foot: int, image: SheetImage) -> None:
    thumbnail = sheet.thumbnails[image.path]
    draw_thumbnail(
        sheet.draw, sheet.paper, sheet.letters, thumbnail, sheet.thumb, x, foot, SAME if image.is_copy else None
    )
    for line, (text, colour) in enumerate(((image.path.name, INK), (image.caption, PALE_INK))):
        y = foot + CAPTION - (2 - line) * LINE
        sheet.draw.text((x, y), shorten(sheet.letters, text, sheet.thumb), colour, sheet.letters.regular)
