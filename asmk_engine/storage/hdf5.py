"""Opening HDF5 files: first in a process with limited memory and time, then here.

HDF5 is a large library that was not written with hostile files in mind. One process, started when it is first needed,
looks at every file before this one opens it; a file that makes it crash, hang or grow costs that process only.
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
_CURE = "it may be damaged or mean harm; get it again from where it came"


def open_hdf5(path: Path) -> h5py.File:
    """Open a file for reading after it was inspected.

    Raises OSError with what HDF5 says of a broken file, InputError for one with links, values, filters or claims that
    lead out of it, and DamagedError for one that cannot be inspected in bounded time.
    """
    status = os.stat(path)
    stamp = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    _inspect_once(path, stamp)
    return h5py.File(path, "r")


@functools.lru_cache(maxsize=4096)
def _inspect_once(path: Path, stamp: tuple[int, ...]) -> None:
    """Raise what inspection found; `stamp` names the state of the file, so that a changed one is inspected again."""
    with _lock:
        verdict = _process().ask(path.absolute(), SECONDS + stamp[2] / BYTES_PER_SECOND)
    if "refused" in verdict:
        raise InputError(f"{path}: {verdict['refused']}")
    if "said" in verdict:
        raise OSError(verdict["errno"], verdict["said"]) if verdict["errno"] else OSError(verdict["said"])


class _Process:
    """The inspecting process."""

    def __init__(self) -> None:
        self._child = ChildProcess(_BOOTSTRAP, "a process that inspects files", "end other programs and try again")
        atexit.register(self.close)

    def ask(self, path: Path, seconds: float) -> dict[str, Any]:
        """The verdict on a file; DamagedError when the process died of it or took too long."""
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
    """In a forked child: the pipes belong to the parent, and a thread that is gone may be using them."""
    global _lock
    _lock = threading.Lock()
    _process.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
