"""Numerical kernels: functions of arrays, compiled by Numba.

Each file imports only numpy, numba and `kernel` from here, never another file of this project: Numba's disk cache does
not notice a change of a callee in another file.
"""

import concurrent.futures.thread  # noqa: F401  (it and logging register for forks)
import functools
import logging  # noqa: F401
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


def _choose_cache() -> None:
    """Use a private temporary folder for Numba's cache if neither this folder nor the home directory is writable.

    Numba refuses to compile without a cache folder. The folder is new for each process: the cache holds code, so a
    folder that other users could have filled must not be used.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = next((folder for folder in (home, *home.parents) if folder.exists()), home)
    if "NUMBA_CACHE_DIR" not in os.environ and not any(os.access(folder, os.W_OK) for folder in (_HERE, home)):
        os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="asmk-engine-numba-")


_choose_cache()


_compiling = threading.RLock()  # shared by all kernels: Numba compiles one function at a time

# A child forked during a compilation would inherit a compiler in an inconsistent state. `before` hooks run in reverse
# order of registration: logging, which the compiler uses, must not be locked yet while the fork waits for this lock.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_compiling.acquire, after_in_parent=_compiling.release, after_in_child=_compiling.release
    )


class Kernel:
    """A function that Numba compiles for one signature on its first call and caches on disk.

    With a signature, Numba itself compiles when the module is imported: a search would wait for the kernels of a merge.
    """

    def __init__(self, function: Callable[..., Any], signature: str) -> None:
        functools.update_wrapper(self, function)
        self._function, self._signature = function, signature
        self._compiled: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Call the compiled function; the GIL is released while it runs."""
        return (self._compiled or self.compiled)(*arguments)

    @property
    def compiled(self) -> Any:
        """The function as compiled by Numba."""
        with _compiling:
            if self._compiled is None:
                from numba import njit

                self._compiled = njit(self._signature, nogil=True, cache=True)(self._function)
            return self._compiled


def kernel(signature: str) -> Callable[[Callable[..., Any]], Kernel]:
    """Decorate a function as a kernel of this signature, in Numba's notation: `void(...)` or its return type."""
    return lambda function: Kernel(function, signature)
