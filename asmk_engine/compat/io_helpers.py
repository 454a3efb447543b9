"""Runs of equal image ids, progress, parameter files and stored states."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from asmk_engine.compat.checks import check_image_ids
from asmk_engine.compat.states import read_state, write_state
from asmk_engine.errors import DependencyError, FormatError, InputError
from asmk_engine.storage.user_files import read_file

Item = TypeVar("Item")

TEMPLATE = "__template__"
_MAX_PARAMETERS = 1 << 20
_MOST_TEMPLATES = 16


def slice_unique(ids: object) -> Iterator[tuple[int, slice]]:
    """Yield each image id and its rows, in order; raises InputError if the rows of an image are not contiguous."""
    array = check_image_ids(ids, len(np.asarray(ids)))
    begins = np.flatnonzero(np.diff(array, prepend=-1))
    if len(np.unique(array)) != len(begins):
        raise InputError("the rows of an image are not contiguous; sort the descriptors by image id")
    for begin, end in itertools.pairwise([*begins, len(array)]):
        yield int(array[begin]), slice(int(begin), int(end))


def progress(items: Sequence[Item], *, frequency: int | None = None, header: str = "") -> Iterable[Item]:
    """Return the items, with a progress bar on standard error that is updated every `frequency` items, unless None."""
    if frequency is None:
        return items
    from tqdm import tqdm

    shown: Iterable[Item] = tqdm(items, desc=header, miniters=frequency, file=sys.stderr)
    return shown


def load_pickle(path: Path | str) -> Any:
    """Read a file of `save_pickle`, or, safely, a pickle of plain values and numpy arrays."""
    return read_state(Path(path))


def save_pickle(path: Path | str, data: Any) -> None:
    """Store plain values and numpy arrays as an array file, which is not a pickle whatever the name of the file."""
    write_state(Path(path), data)


def load_params(path: Path | str) -> dict[str, Any]:
    """Read the parameters in a YAML file; they override those of the file named by its key `__template__`, if given.

    Raises DependencyError without PyYAML, FormatError for other content, and InputError for circular templates.
    """
    layers: list[dict[str, Any]] = []
    here: Path | None = Path(path)
    while here is not None:
        if len(layers) == _MOST_TEMPLATES:
            raise InputError(f"{path}: more than {_MOST_TEMPLATES} nested templates; are they circular?")
        layers.append(_read_yaml(here))
        template = layers[-1].pop(TEMPLATE, None)
        here = here.parent / str(template) if template is not None else None
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = _overlay(merged, layer)
    return merged


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        yaml: Any = import_module("yaml")  # not a dependency: only needed for such files
    except ImportError:
        raise DependencyError(f"{path}: PyYAML is needed to read parameter files; `pip install pyyaml`") from None
    try:
        content = yaml.safe_load(read_file(path, "a YAML file of parameters", _MAX_PARAMETERS))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{path}: not YAML ({' '.join(str(error).split())[:120]})") from None
    if not isinstance(content, dict):
        raise FormatError(f"{path}: not a mapping; expected parameters by name")
    return content


def _overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _overlay(merged[key], value) if both else value
    return merged
