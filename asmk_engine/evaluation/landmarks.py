"""The CSV files of Google Landmarks v2: solutions, submissions and labels.

    id,images,Usage       retrieval solution: the images to find, white space between; Public, Private or Ignored
    id,landmarks,Usage    recognition solution: the landmarks in the image, none for an image without
    id,images             retrieval submission, best image first
    id,landmarks          recognition submission: `landmark confidence`, or nothing
    landmark_id,images    train_clean.csv; any CSV with a column for the image and one for its label is read as well

Source: Weyand et al., "Google Landmarks Dataset v2", CVPR 2020, and the files of its release.
"""

from __future__ import annotations

import csv
import io
import math
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asmk_engine.errors import DamagedError, FormatError, NotFoundError
from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery, Prediction
from asmk_engine.storage.user_files import first_bytes, read_file

MAX_BYTES = 2**32
IMAGE_COLUMNS = ("image", "images", "id", "name", "file", "path")
LABEL_COLUMNS = ("label", "landmark_id", "landmark", "landmarks", "class")

_NOTHING = ("", "none")
_IGNORED = "ignored"
_LONGEST_HEADER = 4096
_LONGEST_FIELD = 1 << 30  # a landmark of train_clean.csv names more images than the module's own limit can hold


@dataclass(frozen=True)
class Recognition:
    """A recognition solution: part of the images (`public`, `private`, or `all`) → image → its labels, maybe none."""

    parts: dict[str, dict[str, frozenset[str]]]
    ignored: frozenset[str]


def header(data: bytes) -> list[str]:
    """The columns of the first line of a CSV, in small letters."""
    first = data.removeprefix(BOM_UTF8)[:_LONGEST_HEADER].partition(b"\n")[0]
    return [column.strip().strip('"').lower() for column in first.decode(errors="replace").split(",")]


def retrieval_header(data: bytes) -> bool:
    """Whether a file begins as a retrieval solution does."""
    return header(data)[:2] == ["id", "images"]


def parse_retrieval(data: bytes, path: Path) -> GroundTruth:
    """The retrieval solution in the bytes of a file, without the queries that have no images or are ignored.

    raises  DamagedError for rows that do not fit, InputError for contradictions, NotFoundError when no query is left
    """
    queries = []
    for _, row in _rows(data, path):
        images = frozenset(row["images"].split())
        part = _part(row)
        if part != _IGNORED and row["images"].strip().lower() not in _NOTHING:
            queries.append(GroundTruthQuery(row["id"], None, images, frozenset(), frozenset(), False, part=part))
    if not queries:
        raise NotFoundError(f"{path}: no query with images to find; give the retrieval solution, id,images,Usage")
    named = sorted(frozenset[str]().union(*(query.easy for query in queries)))
    return GroundTruth(tuple(named), tuple(queries), protocol="gldv2", complete=False)


def is_recognition(path: Path | str) -> bool:
    """Whether a file is a CSV of recognition; False for what is no file, or cannot be opened."""
    return header(first_bytes(path, _LONGEST_HEADER))[:2] == ["id", "landmarks"]


def read_recognition(path: Path | str) -> Recognition:
    """A recognition solution; DamagedError for rows that do not fit, NotFoundError, StorageError."""
    path = Path(path)
    parts: dict[str, dict[str, frozenset[str]]] = {}
    for _, row in _rows(_read(path, "a recognition solution"), path, ("id", "landmarks")):
        labels = row["landmarks"].split()
        there = [] if [label.lower() for label in labels] == ["none"] else labels
        parts.setdefault(_part(row), {})[row["id"]] = frozenset(there)
    ignored = frozenset(parts.pop(_IGNORED, {}))
    if not parts:
        raise NotFoundError(f"{path}: no image to be recognised; give the recognition solution, id,landmarks,Usage")
    return Recognition(parts, ignored)


def read_guesses(path: Path | str) -> dict[str, Prediction | None]:
    """A recognition submission: image → its label, or None; DamagedError for rows that do not fit."""
    path = Path(path)
    guesses: dict[str, Prediction | None] = {}
    for number, row in _rows(_read(path, "a recognition submission"), path, ("id", "landmarks")):
        guesses[row["id"]] = _guess(row["landmarks"].split(), number, path)
    return guesses


def read_submission(path: Path | str) -> dict[str, list[str]]:
    """A retrieval submission: query → images, best first, as they stand; DamagedError for rows that do not fit."""
    path = Path(path)
    rows = _rows(_read(path, "a retrieval submission"), path, ("id", "images"))
    return {row["id"]: row["images"].split() for _, row in rows}


def read_labels(path: Path | str) -> dict[str, str]:
    """Image → label from a CSV with a header, a row for an image or, as train_clean.csv, a row for a label.

    The columns are found by their names, `IMAGE_COLUMNS` and `LABEL_COLUMNS`; under `images` a row may name several,
    with white space between.

    raises  FormatError without such columns, DamagedError for a row that does not fit or two labels of one image
    """
    path = Path(path)
    data = _read(path, "a CSV of labels")
    image, label = (_column(header(data), names, path) for names in (IMAGE_COLUMNS, LABEL_COLUMNS))
    labels: dict[str, str] = {}
    for number, row in _rows(data, path, unique=False):
        for name in row[image].split() if image == "images" else [row[image]]:
            if not name or not row[label].strip():
                raise DamagedError(f"{path}: line {number}: an image or a label is empty; write both")
            if labels.setdefault(name, row[label].strip()) != row[label].strip():
                raise DamagedError(
                    f"{path}: line {number}: {name!r} has the label {row[label].strip()!r} here and {labels[name]!r} "
                    "above; keep one"
                )
    return labels


def _column(columns: list[str], names: tuple[str, ...], path: Path) -> str:
    found = [name for name in names if name in columns]
    if not found:
        raise FormatError(f"{path}: its columns are {', '.join(columns)}; one must be named {' or '.join(names)}")
    return found[0]


def _read(path: Path, kind: str) -> bytes:
    return read_file(path, kind, MAX_BYTES)


def _rows(
    data: bytes, path: Path, columns: tuple[str, ...] = (), *, unique: bool = True
) -> Iterator[tuple[int, dict[str, str]]]:
    """Number of the line and values by column; with `unique`, no id may stand in two rows."""
    names = header(data)
    if names[: len(columns)] != list(columns):
        raise FormatError(f"{path}: its columns are {', '.join(names)}, expected {', '.join(columns)} first")
    seen: set[str] = set()
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(io.StringIO(_text(data, path), newline=""), strict=True)
    next(reader, None)
    try:
        for values in filter(None, reader):
            if len(values) != len(names):
                raise DamagedError(f"{path}: line {reader.line_num}: {len(values)} columns, expected {len(names)}")
            row = dict(zip(names, values, strict=True))
            if unique and (row["id"] in seen or not row["id"]):
                raise DamagedError(f"{path}: line {reader.line_num}: the id {row['id']!r} is empty or stands twice")
            seen.add(row.get("id", ""))
            yield reader.line_num, row
    except csv.Error as error:
        raise DamagedError(f"{path}: line {reader.line_num}: {error}; write the file again") from None


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DamagedError(f"{path}: not text in UTF-8; write the file again") from None


def _part(row: dict[str, str]) -> str:
    return row.get("usage", "").strip().lower() or "all"


def _guess(columns: list[str], number: int, path: Path) -> Prediction | None:
    if not columns:
        return None
    try:
        label, confidence = columns[0], float(columns[1])
    except (IndexError, ValueError):
        confidence = math.nan
    if len(columns) != 2 or not math.isfinite(confidence):
        raise DamagedError(f"{path}: line {number}: {' '.join(columns)!r}, expected a landmark and a finite confidence")
    return Prediction(label, confidence)
