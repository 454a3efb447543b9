"""The boxes of Detect-to-Retrieve: a folder with a file IMAGE.boxes for each image, a message of protocol buffers.

    Boxes { repeated Box box = 1; }
    Box { float ymin = 1, xmin = 2, ymax = 3, xmax = 4, score = 5; int32 class_index = 6; }

Coordinates are shares of the height and the width. Fields that are missing are 0, unknown ones are skipped, as the
encoding of protocol buffers demands; nothing but these two messages is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from asmk_engine.errors import InputError
from asmk_engine.regions.boxes import ImageBoxes, ScoredBox
from asmk_engine.storage.folder import storage_errors
from asmk_engine.storage.user_files import read_file

SUFFIX = ".boxes"
MOST_BYTES = 1 << 24
VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5
"""The wire types of a field: an integer of variable length, 8 bytes, bytes with their length, 4 bytes."""
BOX, YMIN, XMIN, YMAX, XMAX, SCORE = 1, 1, 2, 3, 4, 5


def read_box_folder(path: Path) -> ImageBoxes:
    """Read all boxes of a folder; names are paths below it without `.boxes`. Raises InputError if there are none."""
    with storage_errors(path, "list the folder"):
        files = sorted(path.rglob(f"*{SUFFIX}"))
    if not files:
        raise InputError(f"{path}: has no file {SUFFIX}; expected a folder of boxes of Detect-to-Retrieve")
    found = {file.relative_to(path).as_posix().removesuffix(SUFFIX): read_box_file(file) for file in files}
    return ImageBoxes(found, are_shares=True, where=str(path))


def read_box_file(path: Path) -> list[ScoredBox]:
    """Read the boxes of one image, in shares of its sides; raises InputError, with the byte, for another content."""
    content = read_file(path, "boxes of Detect-to-Retrieve", MOST_BYTES)
    try:
        return [_box(part) for number, part in _fields(content) if number == BOX and isinstance(part, bytes)]
    except (ValueError, struct.error) as error:
        raise InputError(f"{path}: {error}; expected boxes of Detect-to-Retrieve, which a detector wrote") from None


def _box(content: bytes) -> ScoredBox:
    parts = [(number, part) for number, part in _fields(content) if isinstance(part, bytes) and len(part) == 4]
    values = {number: struct.unpack("<f", part)[0] for number, part in parts}
    y1, x1, y2, x2, score = (values.get(number, 0.0) for number in (YMIN, XMIN, YMAX, XMAX, SCORE))
    return ScoredBox((x1, y1, x2, y2), score)


def _fields(content: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Iterate over the numbers and values of the fields of a message; raises ValueError if it ends too early."""
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        kind = key & 7
        if kind == VARINT:
            value, place = _varint(content, place)
            yield key >> 3, value
            continue
        if kind not in (EIGHT_BYTES, LENGTH, FOUR_BYTES):
            raise ValueError(f"byte {place}: a field of the unknown type {kind}")
        size = 8 if kind == EIGHT_BYTES else 4
        if kind == LENGTH:
            size, place = _varint(content, place)
        if size > len(content) - place:
            raise ValueError(f"byte {place}: a field of {size} bytes, but only {len(content) - place} are left")
        yield key >> 3, content[place : place + size]
        place += size


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """Return an integer of variable length and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(content):
            raise ValueError(f"byte {place}: the content ends within a number")
        value |= (content[place] & 0x7F) << shift
        place += 1
        if content[place - 1] < 0x80:
            return value, place
    raise ValueError(f"byte {place}: a number of more than 10 bytes")
