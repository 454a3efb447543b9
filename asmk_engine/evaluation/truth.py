"""Ground truths in one form: which images a query should find, which are hard to find, and which do not count.

Two layouts are read, from JSON or from a pickle, told apart by their content:

    {"imlist": [name, ...], "queries": [{"query": name, "bbox": [x1, y1, x2, y2] or null,
                                         "easy": [name, ...], "hard": [name, ...], "junk": [name, ...]}, ...]}
    {"imlist": [name, ...], "qimlist": [name, ...], "gnd": [{"bbx": [x1, y1, x2, y2],
                                         "easy": [number, ...], "hard": [number, ...], "junk": [number, ...]}, ...]}

The second is that of the published gnd_roxford5k.pkl and gnd_rparis6k.pkl; its numbers are 0-based places in imlist.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.errors import DamagedError, FormatError, InputError
from asmk_engine.escape import list_names
from asmk_engine.evaluation.files import read_file
from asmk_engine.evaluation.unpickle import parse_plain_pickle

MAX_BYTES = 2**28
SUPPORTED = "ground truths read are gnd_roxford5k.pkl, gnd_rparis6k.pkl and JSON or pickles of their layout"

_LABELS = ("easy", "hard", "junk")

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class TruthQuery:
    """One query and what is known of the database images; the images not named are negatives.

    box          x1, y1, x2, y2 in pixels of the original upright image, or None for all of it
    in_database  whether the query is itself one of the images, and is then left out of its own ranking
    """

    name: str
    box: Box | None
    easy: frozenset[str]
    hard: frozenset[str]
    junk: frozenset[str]
    in_database: bool


@dataclass(frozen=True)
class Truth:
    """The names of the database images and the queries; InputError when they contradict each other.

    ignored  names that count in no ranking: the photographs of the queries, where the database is without them
    """

    images: tuple[str, ...]
    queries: tuple[TruthQuery, ...]
    ignored: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        _check_unique("image", self.images)
        _check_unique("query", [query.name for query in self.queries])
        images = set(self.images)
        for query in self.queries:
            _check_query(query, images)


def read_truth(path: Path | str) -> Truth:
    """The ground truth in a file of either layout, JSON or pickle.

    raises  FormatError for another layout or kind of file (what is supported stands in the message),
            DamagedError for contradictions, NotFoundError and StorageError
    """
    path = Path(path)
    content = _load(read_file(path, "a ground truth", MAX_BYTES), path)
    if not isinstance(content, dict) or "imlist" not in content:
        raise FormatError(f"{path}: no object with the key imlist; {SUPPORTED}")
    images = tuple(_names(content["imlist"], "imlist", path))
    if "queries" in content:
        queries = _named_queries(content["queries"], images, path)
    elif "qimlist" in content and "gnd" in content:
        queries = _numbered_queries(content["qimlist"], content["gnd"], images, path)
    else:
        raise FormatError(f"{path}: neither the key queries nor the keys qimlist and gnd; {SUPPORTED}")
    try:
        return Truth(images, tuple(queries), frozenset(query.name for query in queries if not query.in_database))
    except InputError as error:
        raise DamagedError(f"{path}: {error}") from None


def _check_unique(kind: str, names: tuple[str, ...] | list[str]) -> None:
    if len(set(names)) < len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise InputError(f"this {kind} stands twice in the ground truth: {list_names(twice)}; list each once")


def _check_query(query: TruthQuery, images: set[str]) -> None:
    for one, other in (("easy", "hard"), ("easy", "junk"), ("hard", "junk")):
        if both := getattr(query, one) & getattr(query, other):
            raise InputError(
                f"query {query.name!r}: {list_names(sorted(both))} stands under {one} and {other}; keep one of them"
            )
    if unknown := (query.easy | query.hard | query.junk) - images:
        raise InputError(
            f"query {query.name!r}: {list_names(sorted(unknown))} is not one of the {len(images)} database images"
        )
    if query.in_database and query.name not in images:
        raise InputError(f"query {query.name!r} is said to be in the database and is not one of its images")


def _load(data: bytes, path: Path) -> Any:
    start = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start in (b"{", b"["):
        try:
            return json.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"{path}: not sound JSON ({error}); write the file again") from None
    if start in (b"\x80", b"(", b"}"):
        return parse_plain_pickle(data, path)
    raise FormatError(f"{path}: neither JSON nor a pickle; {SUPPORTED}")


def _named_queries(entries: Any, images: tuple[str, ...], path: Path) -> list[TruthQuery]:
    known = set(images)
    queries = []
    for number, entry in enumerate(_sequence(entries, "queries", path)):
        where = f"queries[{number}]"
        _check_entry(entry, where, path)
        name = entry.get("query")
        if not isinstance(name, str):
            raise DamagedError(f"{path}: {where} has no name under the key query")
        labels = {label: frozenset(_names(entry.get(label, ()), f"{where} {label}", path)) for label in _LABELS}
        queries.append(TruthQuery(name, _box(entry.get("bbox"), where, path), **labels, in_database=name in known))
    return queries


def _numbered_queries(names: Any, entries: Any, images: tuple[str, ...], path: Path) -> list[TruthQuery]:
    names, entries = _names(names, "qimlist", path), _sequence(entries, "gnd", path)
    if len(names) != len(entries):
        raise DamagedError(f"{path}: {len(names)} names in qimlist and {len(entries)} queries in gnd")
    known = set(images)
    queries = []
    for number, (name, entry) in enumerate(zip(names, entries, strict=True)):
        where = f"gnd[{number}]"
        _check_entry(entry, where, path)
        labels = {label: _numbered(entry.get(label, ()), images, f"{where} {label}", path) for label in _LABELS}
        queries.append(TruthQuery(name, _box(entry.get("bbx"), where, path), **labels, in_database=name in known))
    return queries


def _check_entry(entry: Any, where: str, path: Path) -> None:
    if not isinstance(entry, dict):
        raise DamagedError(f"{path}: {where} is no object")
    if "easy" in entry and "hard" in entry:
        return
    if "ok" in entry:
        raise FormatError(
            f"{path}: {where} has ok and no easy and hard: the original Oxford5k or Paris6k protocol; {SUPPORTED}"
        )
    raise FormatError(f"{path}: {where} lacks the key easy or hard; {SUPPORTED}")


def _sequence(value: Any, where: str, path: Path) -> list[Any]:
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return list(value.tolist())
    if not isinstance(value, list | tuple):
        raise DamagedError(f"{path}: {where} is no list")
    return list(value)


def _names(value: Any, where: str, path: Path) -> list[str]:
    names = _sequence(value, where, path)
    for name in names:
        if not isinstance(name, str) or not name:
            raise DamagedError(f"{path}: {where} holds something else than names")
    return [str(name) for name in names]


def _numbered(value: Any, images: tuple[str, ...], where: str, path: Path) -> frozenset[str]:
    numbers = _sequence(value, where, path)
    for number in numbers:
        if not isinstance(number, int | np.integer) or isinstance(number, bool):
            raise DamagedError(f"{path}: {where} holds something else than numbers of images")
        if not 0 <= number < len(images):
            raise DamagedError(f"{path}: {where} holds the number {number} of 0 to {len(images) - 1} images")
    return frozenset(images[number] for number in numbers)


def _box(value: Any, where: str, path: Path) -> Box | None:
    if value is None:
        return None
    numbers = _sequence(value, f"{where} box", path)
    if len(numbers) != 4 or not all(isinstance(n, int | float | np.number) and math.isfinite(n) for n in numbers):
        raise DamagedError(f"{path}: {where} has a box that is not the four numbers x1, y1, x2, y2")
    x1, y1, x2, y2 = map(float, numbers)
    if x1 >= x2 or y1 >= y2:
        raise DamagedError(f"{path}: {where} has the box {x1:g},{y1:g},{x2:g},{y2:g}, expected x1 < x2 and y1 < y2")
    return x1, y1, x2, y2
