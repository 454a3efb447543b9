"""Boxes from files: tables of comma-separated values, COCO's JSON, and folders of Detect-to-Retrieve."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from asmk_engine.errors import InputError
from asmk_engine.regions.boxes import ImageBoxes, ScoredBox
from asmk_engine.regions.detect_to_retrieve import read_box_folder
from asmk_engine.storage.user_files import read_file

MOST_BYTES = 1 << 30
COLUMNS = ("image", "x1", "y1", "x2", "y2")
SCORE = "score"
KIND = "a file of boxes"
EXPECTED = (
    "expected the columns image,x1,y1,x2,y2 and perhaps score, in pixels, COCO's JSON, or a folder of .boxes files"
)


def read_boxes(path: Path | str) -> ImageBoxes:
    """Read the boxes of images.

    Parameters
    ----------
    path : path-like
        A table with the header ``image,x1,y1,x2,y2`` and perhaps ``score``, in pixels of the upright image; JSON in
        the layout of COCO, with ``images`` (``id``, ``file_name``) and ``annotations`` (``image_id``, ``bbox`` as
        x, y, width, height, perhaps ``score``); or a folder of ``IMAGE.boxes`` files of Detect-to-Retrieve.

    Returns
    -------
    ImageBoxes

    Raises
    ------
    NotFoundError
        If there is nothing at `path`.
    InputError
        If it has another layout, or a box is not one; the message names the line or the entry.
    """
    path = Path(path)
    if path.is_dir():
        return read_box_folder(path)
    content = read_file(path, KIND, MOST_BYTES)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; {EXPECTED}") from None
    found = _of_json(text, path) if text.lstrip().startswith("{") else _of_table(text, path)
    return ImageBoxes(found, where=str(path))


def write_boxes(boxes: Mapping[str, Sequence[ScoredBox]]) -> str:
    """Return boxes as the text of a table that `read_boxes` reads."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*COLUMNS, SCORE])
    for name, found in boxes.items():
        writer.writerows([name, *(f"{value:.10g}" for value in (*one.box, one.score))] for one in found)
    return file.getvalue()


def _of_table(text: str, path: Path) -> dict[str, list[ScoredBox]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"{path}: has no column {missing[0]!r}; {EXPECTED}")
    found: dict[str, list[ScoredBox]] = {}
    for row in _rows(reader, path):
        where = f"{path}: line {reader.line_num}"
        numbers = [_number(row[name], where) for name in COLUMNS[1:]]
        score = _number(row[SCORE], where) if row.get(SCORE) else 1.0
        if not row["image"]:
            raise InputError(f"{where}: has no name of an image; {EXPECTED}")
        found.setdefault(row["image"], []).append(_scored(numbers, score))
    return found


def _rows(reader: csv.DictReader[str], path: Path) -> Any:
    try:
        yield from reader
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}; {EXPECTED}") from None


def _of_json(text: str, path: Path) -> dict[str, list[ScoredBox]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); {EXPECTED}") from None
    images, annotations = (_entries(content, key, path) for key in ("images", "annotations"))
    names = dict(_each(images, _name_of, f"{path}: image"))
    found: dict[str, list[ScoredBox]] = {name: [] for name in names.values()}
    for number, (key, box) in enumerate(_each(annotations, _annotation, f"{path}: annotation")):
        if key not in names:
            raise InputError(f"{path}: annotation {number}: its image_id {key!r} is not among the images; {EXPECTED}")
        found[names[key]].append(box)
    return found


def _entries(content: dict[str, Any], key: str, path: Path) -> list[Any]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise InputError(f"{path}: has no list {key!r}; {EXPECTED}")
    return entries


def _each(entries: list[Any], read: Callable[[Any, str], Any], what: str) -> list[Any]:
    return [read(entry, f"{what} {number}") for number, entry in enumerate(entries)]


def _name_of(entry: Any, where: str) -> tuple[int | str, str]:
    key, name = (entry.get(part) if isinstance(entry, dict) else None for part in ("id", "file_name"))
    if not isinstance(key, int | str) or not isinstance(name, str) or not name:
        raise InputError(f"{where}: has no id or no file_name; {EXPECTED}")
    return key, name


def _annotation(entry: Any, where: str) -> tuple[int | str, ScoredBox]:
    parts = entry if isinstance(entry, dict) else {}
    key, box, score = parts.get("image_id"), parts.get("bbox"), parts.get(SCORE, 1.0)
    if not isinstance(key, int | str) or not isinstance(box, list) or len(box) != 4:
        raise InputError(f"{where}: has no image_id or no bbox of four numbers; {EXPECTED}")
    x, y, width, height, strength = (_number(value, where) for value in (*box, score))
    return key, _scored([x, y, x + width, y + height], strength)


def _number(value: Any, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: {value!r} is no number; {EXPECTED}") from None


def _scored(numbers: Sequence[float], score: float) -> ScoredBox:
    return ScoredBox((numbers[0], numbers[1], numbers[2], numbers[3]), score)
