"""A reader of pickles that builds only plain containers, strings, numbers and numpy arrays.

A list of allowed classes does not make the standard reader safe: a few bytes can make it allocate gigabytes, number a
memo entry in the billions or nest tuples until the interpreter crashes. Here `machine` interprets the opcodes, and it
can do only what it implements.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.errors import DamagedError, FormatError
from asmk_engine.storage.pickles.arrays import READABLE
from asmk_engine.storage.pickles.machine import SCALARS, Machine
from asmk_engine.storage.user_files import read_file

MAX_BYTES = 4 * 2**30

_CURE = "fetch or write the file again"
_CONTAINERS = {list, tuple, dict, set, frozenset}
_LEAVES = {*SCALARS, bytearray, np.ndarray}
_MOST_NESTED = 100
_MOST_SHARED = 1_000_000


def read_plain_pickle(path: Path | str, max_bytes: int = MAX_BYTES) -> Any:
    """Return the value in a pickle of any protocol: None, bool, int, float, str, bytes, containers and numpy arrays.

    Strings of Python 2 are read as latin-1; data after the end of the pickle are ignored.

    Raises FormatError for a file that is no pickle or needs any class, function or extension (named in the message),
    DamagedError for one that is truncated, altered, or needs more than its size can justify, NotFoundError,
    StorageError, and InputError for more than `max_bytes`.
    """
    path = Path(path)
    return parse_plain_pickle(read_file(path, "a pickle", max_bytes), path)


def parse_plain_pickle(data: bytes, path: Path) -> Any:
    """Return the value of the pickle in `data`; `path` is for messages. See `read_plain_pickle`."""
    try:
        value = Machine(data).run()
        _check_harmless(value, len(data))
        return value
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None
    except DamagedError as error:
        raise DamagedError(f"{path}: {error}; {_CURE}") from None
    except (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        raise DamagedError(f"{path}: not a valid pickle ({type(error).__name__}); {_CURE}") from None


def _check_harmless(value: Any, size: int) -> None:
    """Refuse values that are small to store but huge to traverse: cycles, deep nesting, lists repeated in lists."""
    values, _ = _measure(value, {}, set())
    if values > size + _MOST_SHARED:
        raise DamagedError("unfolds into far more values than a file of its size can justify")


def _measure(value: Any, known: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    """Return the number of values a value unfolds into, and its nesting depth; `known` caches measured containers."""
    if type(value) in _LEAVES or isinstance(value, np.generic):
        return 1, 0
    if type(value) not in _CONTAINERS:
        raise FormatError(f"holds a class or an incomplete array; {READABLE}")
    if id(value) in above:
        raise DamagedError("holds a container that contains itself")
    if id(value) not in known:
        above.add(id(value))
        known[id(value)] = _measure_container(value, known, above)
        above.remove(id(value))
    return known[id(value)]


def _measure_container(value: Any, known: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    parts = [*value.keys(), *value.values()] if type(value) is dict else list(value)
    measured = [_measure(part, known, above) for part in parts] if len(above) <= _MOST_NESTED else []
    depth = max((depth for _, depth in measured), default=0) + 1
    if max(depth, len(above)) > _MOST_NESTED:
        raise DamagedError(f"nested deeper than {_MOST_NESTED} containers")
    return sum(count for count, _ in measured) + 1, depth
