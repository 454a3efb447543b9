"""The original ground truths of Oxford5k and Paris6k: a folder of text files.

Four files per query, NAME_query.txt, NAME_good.txt, NAME_ok.txt and NAME_junk.txt. The first has one line, the name of
an image and the box x1 y1 x2 y2 in its pixels; the others have one name per line. Good and ok images are positives.
Source: Philbin et al., "Object retrieval with large vocabularies and fast spatial matching", CVPR 2007.
"""

from __future__ import annotations

import math
from pathlib import Path

from asmk_engine.errors import DamagedError, InputError
from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.images.boxes import Box
from asmk_engine.storage.user_files import read_file

MAX_BYTES = 2**24

_ENDING = "_query.txt"
_PREFIX = "oxc1_"  # prefix of the names in the query files of Oxford5k, which the images lack


def is_oxford(path: Path) -> bool:
    """Return whether this is a folder of such files."""
    return path.is_dir() and any(path.glob(f"*{_ENDING}"))


def read_oxford(path: Path) -> GroundTruth:
    """Read the ground truth of such a folder, with queries sorted by name; its images are those that the files name.

    raises  NotFoundError for a missing file, DamagedError for invalid lines or contradictions, StorageError
    """
    stems = sorted(file.name.removesuffix(_ENDING) for file in path.glob(f"*{_ENDING}"))
    queries = tuple(_read_query(path, stem) for stem in stems)
    named = {name for query in queries for name in (query.name, *query.easy, *query.junk)}
    try:
        return GroundTruth(tuple(sorted(named)), queries, protocol="original", complete=False)
    except InputError as error:
        raise DamagedError(f"{path}: {error}") from None


def _read_query(folder: Path, stem: str) -> GroundTruthQuery:
    path = folder / f"{stem}{_ENDING}"
    lines = [columns for columns in map(str.split, _lines(path)) if columns]
    if len(lines) != 1 or len(lines[0]) != 5:
        raise DamagedError(
            f"{path}: expected one line, the name of an image and the box x1 y1 x2 y2; download it again"
        )
    name = lines[0][0].removeprefix(_PREFIX)
    good, ok, junk = (_read_list(folder / f"{stem}_{label}.txt") for label in ("good", "ok", "junk"))
    return GroundTruthQuery(name, _box(lines[0][1:], path), good | ok, frozenset(), junk, True, name in good | ok)


def _box(columns: list[str], path: Path) -> Box:
    try:
        x1, y1, x2, y2 = map(float, columns)
    except ValueError:
        raise DamagedError(f"{path}: the box {' '.join(columns)!r} is not four numbers; download it again") from None
    if not (x1 < x2 and y1 < y2 and all(map(math.isfinite, (x1, y1, x2, y2)))):
        raise DamagedError(f"{path}: the box {x1:g},{y1:g},{x2:g},{y2:g}, expected x1 < x2 and y1 < y2")
    return x1, y1, x2, y2


def _read_list(path: Path) -> frozenset[str]:
    return frozenset(name for line in _lines(path) if (name := line.strip()))


def _lines(path: Path) -> list[str]:
    try:
        return read_file(path, "a list of Oxford5k or Paris6k", MAX_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DamagedError(f"{path}: not text in UTF-8; download it again") from None
