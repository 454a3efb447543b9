"""Open HDF5 files safely: first in a process with limited memory and time, then in this one.

HDF5 is a large library that was not designed for hostile files. A child process, started on first use, inspects every
file before this process opens it; a file that makes HDF5 crash, hang or exhaust memory affects only the child.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import threading
from pathlib import Path
from typing import Any

import h5py

from asmk_engine.errors import DamagedError, InputError
from asmk_engine.storage.child_process import ChildProcess

SECONDS = 60.0
BYTES_PER_SECOND = 10e6  # a large file may take longer
_BOOTSTRAP = "from asmk_engine.storage.hdf5_inspection import main; main()"
_CURE = "it may be damaged or malicious; get it again from its source"


def open_hdf5(path: Path) -> h5py.File:
    """Inspect a file and open it for reading.

    Raises OSError with HDF5's message for a broken file, InputError for one with links, values, filters or sizes that
    reach outside it, and DamagedError for one that cannot be inspected in bounded time.
    """
    status = os.stat(path)
    stamp = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    _inspect_once(path, stamp)
    return h5py.File(path, "r")


@functools.lru_cache(maxsize=4096)
def _inspect_once(path: Path, stamp: tuple[int, ...]) -> None:
    """Raise the errors found by inspection; `stamp` identifies the file's state: a changed file is inspected again."""
    with _lock:
        if _process().has_ended:  # somebody killed it: no file is to blame
            _process().close()
            _process.cache_clear()
        verdict = _process().ask(path.absolute(), SECONDS + stamp[2] / BYTES_PER_SECOND)
    if "refused" in verdict:
        raise InputError(f"{path}: {verdict['refused']}")
    if "said" in verdict:
        raise OSError(verdict["errno"], verdict["said"]) if verdict["errno"] else OSError(verdict["said"])


class _Process:
    """The process that inspects files."""

    def __init__(self) -> None:
        self._child = ChildProcess(_BOOTSTRAP, "a process that inspects files", "end other programs and try again")
        atexit.register(self.close)

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, though nobody closed it."""
        return self._child.has_ended

    def ask(self, path: Path, seconds: float) -> dict[str, Any]:
        """Return the verdict on a file. Raises DamagedError if the process crashed or took too long."""
        try:
            with self._child.within(seconds):
                self._child.requests.write(json.dumps(str(path)).encode() + b"\n")
                self._child.requests.flush()
                return dict(json.loads(self._child.answers.readline()))
        except (OSError, ValueError, TypeError):
            _process.cache_clear()
            self.close()
            raise DamagedError(f"{path}: HDF5 crashed or hung on it within {seconds:.0f} s; {_CURE}") from None

    def close(self) -> None:
        """End the process."""
        atexit.unregister(self.close)
        self._child.close()


_lock = threading.Lock()


@functools.cache
def _process() -> _Process:
    return _Process()


def _start_over() -> None:
    """Reset this module in a forked child: the pipes belong to the parent, and a vanished thread may have used them."""
    global _lock
    _lock = threading.Lock()
    _process.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
