"""The CSV files of Google Landmarks v2: solutions, submissions and labels.

    id,images,Usage       retrieval solution: the images to find, separated by white space; Public, Private or Ignored
    id,landmarks,Usage    recognition solution: the landmarks in the image, `none` for an image without
    id,images             retrieval submission, best image first
    id,landmarks          recognition submission: `landmark confidence`, or empty
    landmark_id,images    train_clean.csv; any other CSV with a column of images and one of labels is read too

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
_LONGEST_FIELD = 1 << 30  # the image list of a landmark in train_clean.csv exceeds the default limit of csv


@dataclass(frozen=True)
class Recognition:
    """A recognition solution: part of the images (`public`, `private` or `all`) → image → its labels, if any."""

    parts: dict[str, dict[str, frozenset[str]]]
    ignored: frozenset[str]


def header(data: bytes) -> list[str]:
    """Return the column names in the first line of a CSV, in lower case."""
    first = data.removeprefix(BOM_UTF8)[:_LONGEST_HEADER].partition(b"\n")[0]
    return [column.strip().strip('"').lower() for column in first.decode(errors="replace").split(",")]


def retrieval_header(data: bytes) -> bool:
    """Return whether the header is that of a retrieval solution or submission."""
    return header(data)[:2] == ["id", "images"]


def parse_retrieval(data: bytes, path: Path) -> GroundTruth:
    """Parse a retrieval solution, without the queries that are ignored or have no images.

    raises  DamagedError for invalid rows, InputError for contradictions, NotFoundError if no query is left
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
    """Return whether a file is a recognition CSV; False if it is not a file or cannot be opened."""
    return header(first_bytes(path, _LONGEST_HEADER))[:2] == ["id", "landmarks"]


def read_recognition(path: Path | str) -> Recognition:
    """Read a recognition solution; raises DamagedError for invalid rows, NotFoundError, StorageError."""
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
    """Read a recognition submission: image → its label, or None; raises DamagedError for invalid rows."""
    path = Path(path)
    guesses: dict[str, Prediction | None] = {}
    for number, row in _rows(_read(path, "a recognition submission"), path, ("id", "landmarks")):
        guesses[row["id"]] = _guess(row["landmarks"].split(), number, path)
    return guesses


def read_submission(path: Path | str) -> dict[str, list[str]]:
    """Read a retrieval submission: query → images, in the order of the file; raises DamagedError for invalid rows."""
    path = Path(path)
    rows = _rows(_read(path, "a retrieval submission"), path, ("id", "images"))
    return {row["id"]: row["images"].split() for _, row in rows}


def read_labels(path: Path | str) -> dict[str, str]:
    """Read image → label from a CSV with a header and one row per image or, like train_clean.csv, per label.

    The columns are found by their names, `IMAGE_COLUMNS` and `LABEL_COLUMNS`; a row of the column `images` may name
    several, separated by white space.

    raises  FormatError without such columns, DamagedError for an invalid row or two labels of one image
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
    """Yield the line number and the values by column of every row; `unique`: no id may occur twice."""
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
                raise DamagedError(f"{path}: line {reader.line_num}: the id {row['id']!r} is empty or repeated")
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
