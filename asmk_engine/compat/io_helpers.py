"""Runs of equal image ids, progress, logs, downloads, parameter files and stored states."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from asmk_engine.compat.checks import check_image_ids
from asmk_engine.compat.states import read_state, write_state
from asmk_engine.errors import DependencyError, FormatError, InputError, StorageError
from asmk_engine.networks.downloads import download
from asmk_engine.storage.folder import Folder
from asmk_engine.storage.user_files import read_file

Item = TypeVar("Item")

TEMPLATE = "__template__"
_HANDLERS = ("asmk-engine stdout", "asmk-engine file")
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


def progress(
    items: Iterable[Item], *, size: int | None = None, frequency: int | None = 1, header: str = ""
) -> Iterable[Item]:
    """The items, with a progress bar on standard error unless `frequency` is 0 or None; it moves every so many items.

    size  how many there are, where `len` does not say
    """
    if not frequency:
        return items
    from tqdm import tqdm

    shown: Iterable[Item] = tqdm(items, desc=header, total=size, miniters=frequency, file=sys.stderr)
    return shown


def init_logger(log_path: Path | str | None) -> logging.Logger:
    """The logger `ASMK`: messages from INFO on go to standard output, and all of them to a file where one is named.

    Called again it tells nothing twice: the file of the last call counts.
    """
    logger = logging.getLogger("ASMK")
    logger.setLevel(logging.DEBUG)
    for handler in [handler for handler in logger.handlers if handler.get_name() in _HANDLERS]:
        logger.removeHandler(handler)
        handler.close()
    _add_handler(logger, logging.StreamHandler(sys.stdout), _HANDLERS[0], logging.INFO, "%(message)s")
    if log_path:
        try:
            file = logging.FileHandler(log_path, encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{log_path}: cannot write a log there: {error.strerror}; give another file") from None
        _add_handler(logger, file, _HANDLERS[1], logging.DEBUG, "%(asctime)s %(message)s")
    return logger


def _add_handler(logger: logging.Logger, handler: logging.Handler, name: str, level: int, line: str) -> None:
    handler.set_name(name)
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter(line.replace("%(message)s", "%(name)s %(levelname)s: %(message)s")))
    logger.addHandler(handler)


def capture_stdout(func: Callable[[], object], logger: logging.Logger) -> None:
    """Call a function and log what it prints line by line, even if it raises."""
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            func()
    finally:
        for line in text.getvalue().strip().splitlines():
            logger.info(line)


def download_files(
    names: Iterable[str], root_path: Path | str, base_url: str, logfunc: Callable[[str], object] | None = None
) -> None:
    """Fetch those of the files that are not below `root_path` yet, each whole or not at all.

    base_url  what a name is appended to; logfunc receives the name of every file before it is fetched
    Raises NotFoundError, StorageError, DamagedError as the answer of the server says, InputError for another address.
    """
    for name in names:
        path = Path(root_path) / name
        if not path.exists():
            if logfunc:
                logfunc(f"Downloading file '{name}'")
            folder = Folder(path.parent)
            folder.make()
            download(base_url + name, folder, path.name)


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
        here = here.parent / Path(str(template)).expanduser() if template is not None else None
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = dict_deep_overlay(merged, layer)
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


def dict_deep_overlay(defaults: Any, params: Any) -> Any:
    """`params` laid over `defaults`, key by key where both are dictionaries; neither of them is changed."""
    if not (isinstance(defaults, dict) and isinstance(params, dict)):
        return params
    return {**defaults, **{key: dict_deep_overlay(defaults.get(key), value) for key, value in params.items()}}
