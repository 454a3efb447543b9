"""Reading ground truths from files and folders, whose layout is detected from their content.

JSON or a pickle, with names or with 0-based positions in the list of images:

    {"imlist": [name, ...], "queries": [{"query": name, "bbox": [x1, y1, x2, y2] or null,
                                         "easy": [name, ...], "hard": [name, ...], "junk": [name, ...]}, ...]}
    {"imlist": [name, ...], "qimlist": [name, ...], "gnd": [{"bbx": [x1, y1, x2, y2],
                                         "easy": [place, ...], "hard": [place, ...], "junk": [place, ...]}, ...]}
    {"cids": [name, ...], "qidx": [place, ...], "gnd": [{"ok": [place, ...], "junk": [place, ...]}, ...]}

The second is the layout of the published gnd_roxford5k.pkl and gnd_rparis6k.pkl, the third that of HOW's validation
set. In the first two an entry may have "ok" instead of "easy" and "hard", as in the original Oxford5k and Paris6k. A
folder holds the text files of Oxford5k (`oxford.py`), a CSV the retrieval solution of Google Landmarks v2
(`landmarks.py`).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.errors import DamagedError, FormatError, InputError
from asmk_engine.evaluation.landmarks import parse_retrieval, retrieval_header
from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.evaluation.oxford import is_oxford, read_oxford
from asmk_engine.images.boxes import Box
from asmk_engine.storage.pickles.unpickle import parse_plain_pickle
from asmk_engine.storage.user_files import read_file

__all__ = ["SUPPORTED", "GroundTruth", "GroundTruthQuery", "read_ground_truth"]

MAX_BYTES = 2**28
SUPPORTED = (
    "supported ground truths are gnd_roxford5k.pkl, gnd_rparis6k.pkl, JSON or pickles of their layout (easy, hard and "
    "junk, or ok and junk), HOW's validation set (cids, qidx, gnd), the folder of Oxford5k's text files, and the "
    "retrieval solution of Google Landmarks v2 (CSV)"
)

_REVISITED = ("easy", "hard", "junk")
_ORIGINAL = ("ok", "junk")


def read_ground_truth(path: Path | str) -> GroundTruth:
    """Read the ground truth in a file or folder of any of the layouts above.

    raises  FormatError for another layout or kind of file (the message lists what is supported),
            DamagedError for contradictions, NotFoundError and StorageError
    """
    path = Path(path)
    if is_oxford(path):
        return read_oxford(path)
    data = read_file(path, "a ground truth", MAX_BYTES)
    try:
        return parse_retrieval(data, path) if retrieval_header(data) else _ground_truth(_load(data, path), path)
    except InputError as error:
        raise DamagedError(f"{path}: {error}") from None


def _ground_truth(content: Any, path: Path) -> GroundTruth:
    if isinstance(content, dict) and {"cids", "qidx", "gnd"} <= content.keys():
        return _validation_set(content, path)
    if not isinstance(content, dict) or "imlist" not in content:
        raise FormatError(f"{path}: not an object with the key imlist; {SUPPORTED}")
    images = tuple(_names(content["imlist"], "imlist", path))
    if "queries" in content:
        queries, labels = _named_queries(content["queries"], images, path)
    elif "qimlist" in content and "gnd" in content:
        names = _names(content["qimlist"], "qimlist", path)
        queries, labels = _numbered_queries(names, content["gnd"], images, path)
    else:
        raise FormatError(f"{path}: neither the key queries nor the keys qimlist and gnd; {SUPPORTED}")
    outside = frozenset(query.name for query in queries if not query.in_database)
    return GroundTruth(images, tuple(queries), outside, "original" if labels == _ORIGINAL else "revisited")


def _validation_set(content: dict[str, Any], path: Path) -> GroundTruth:
    images = tuple(_names(content["cids"], "cids", path))
    names = [images[place] for place in _places(content["qidx"], images, "qidx", path)]
    queries, labels = _numbered_queries(names, content["gnd"], images, path)
    if labels != _ORIGINAL:
        raise FormatError(f"{path}: gnd has easy and hard, where a validation set has ok and junk; {SUPPORTED}")
    return GroundTruth(images, tuple(queries), frozenset(), "how")


def _load(data: bytes, path: Path) -> Any:
    start = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start in (b"{", b"["):
        try:
            return json.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"{path}: not valid JSON ({error}); write the file again") from None
    if start in (b"\x80", b"(", b"}"):
        return parse_plain_pickle(data, path)
    raise FormatError(f"{path}: neither JSON nor a pickle; {SUPPORTED}")


def _named_queries(entries: Any, images: tuple[str, ...], path: Path) -> tuple[list[GroundTruthQuery], tuple[str, ...]]:
    known, entries = set(images), _sequence(entries, "queries", path)
    keys = _labels(entries, "queries", path)
    queries = []
    for number, entry in enumerate(entries):
        where = f"queries[{number}]"
        name = entry.get("query")
        if not isinstance(name, str):
            raise DamagedError(f"{path}: {where} has no name under the key query")
        labels = [frozenset(_names(entry.get(key, ()), f"{where} {key}", path)) for key in keys]
        queries.append(_query(name, _box(entry.get("bbox"), where, path), labels, known))
    return queries, keys


def _numbered_queries(
    names: list[str], entries: Any, images: tuple[str, ...], path: Path
) -> tuple[list[GroundTruthQuery], tuple[str, ...]]:
    known, entries = set(images), _sequence(entries, "gnd", path)
    if len(names) != len(entries):
        raise DamagedError(f"{path}: {len(names)} names of queries and {len(entries)} queries in gnd")
    keys = _labels(entries, "gnd", path)
    queries = []
    for number, (name, entry) in enumerate(zip(names, entries, strict=True)):
        where = f"gnd[{number}]"
        labels = [_numbered(entry.get(key, ()), images, f"{where} {key}", path) for key in keys]
        queries.append(_query(name, _box(entry.get("bbx"), where, path), labels, known))
    return queries, keys


def _query(name: str, box: Box | None, labels: list[frozenset[str]], known: set[str]) -> GroundTruthQuery:
    easy, hard, junk = labels if len(labels) == len(_REVISITED) else (labels[0], frozenset[str](), labels[1])
    # Only ground truths without difficulty may list a query among the images that it should find.
    itself = len(labels) == len(_ORIGINAL) and name in easy
    return GroundTruthQuery(name, box, easy, hard, junk, name in known, itself)


def _labels(entries: list[Any], where: str, path: Path) -> tuple[str, ...]:
    """Return the label keys of the entries; FormatError for other keys, DamagedError if entries differ."""
    found = {_labels_of(entry, f"{where}[{number}]", path): number for number, entry in enumerate(entries)}
    if len(found) > 1:
        one, other = found.values()
        raise DamagedError(f"{path}: {where}[{one}] and {where}[{other}] differ: one has ok, one has easy and hard")
    return next(iter(found), _REVISITED)


def _labels_of(entry: Any, where: str, path: Path) -> tuple[str, ...]:
    if not isinstance(entry, dict):
        raise DamagedError(f"{path}: {where} is not an object")
    if "easy" in entry and "hard" in entry:
        return _REVISITED
    if "ok" in entry and not {"easy", "hard"} & entry.keys():
        return _ORIGINAL
    raise FormatError(f"{path}: {where} lacks the key easy or hard, and ok; {SUPPORTED}")


def _sequence(value: Any, where: str, path: Path) -> list[Any]:
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return list(value.tolist())
    if not isinstance(value, list | tuple):
        raise DamagedError(f"{path}: {where} is not a list")
    return list(value)


def _names(value: Any, where: str, path: Path) -> list[str]:
    names = _sequence(value, where, path)
    for name in names:
        if not isinstance(name, str) or not name:
            raise DamagedError(f"{path}: {where} holds a value that is not a name")
    return [str(name) for name in names]


def _numbered(value: Any, images: tuple[str, ...], where: str, path: Path) -> frozenset[str]:
    return frozenset(images[place] for place in _places(value, images, where, path))


def _places(value: Any, images: tuple[str, ...], where: str, path: Path) -> list[int]:
    places = _sequence(value, where, path)
    for place in places:
        if not isinstance(place, int | np.integer) or isinstance(place, bool):
            raise DamagedError(f"{path}: {where} holds a value that is not the number of an image")
        if not 0 <= place < len(images):
            raise DamagedError(f"{path}: {where} holds the image number {place}, expected 0 to {len(images) - 1}")
    return [int(place) for place in places]


def _box(value: Any, where: str, path: Path) -> Box | None:
    if value is None:
        return None
    numbers = _sequence(value, f"{where} box", path)
    if len(numbers) != 4 or not all(map(_is_finite, numbers)):
        raise DamagedError(f"{path}: {where} has a box that is not the four numbers x1, y1, x2, y2")
    x1, y1, x2, y2 = map(float, numbers)
    if x1 >= x2 or y1 >= y2:
        raise DamagedError(f"{path}: {where} has the box {x1:g},{y1:g},{x2:g},{y2:g}, expected x1 < x2 and y1 < y2")
    return x1, y1, x2, y2


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float | np.integer | np.floating) and math.isfinite(value)
    except OverflowError:  # an integer beyond the range of float
        return False
