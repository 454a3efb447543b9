"""The arithmetic: functions of arrays, compiled by Numba.

Each file imports numpy and numba only, and `kernel` from here, never another file of this project: Numba's disk cache
does not notice a changed callee in another file. It is also why each can be read alone.
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
    """Where neither this folder nor the home can be written, let Numba keep its cache in a private temporary folder.

    Without one, Numba refuses to compile. The folder is new for each process: the cache holds code, so a folder that
    others could have filled beforehand must not be used.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = next((folder for folder in (home, *home.parents) if folder.exists()), home)
    if "NUMBA_CACHE_DIR" not in os.environ and not any(os.access(folder, os.W_OK) for folder in (_HERE, home)):
        os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="asmk-engine-numba-")


_choose_cache()


_compiling = threading.RLock()  # one for all: Numba compiles one function at a time

# A child that was forked in the middle of it would inherit half a compiler. What was registered last is called first
# before a fork: logging, which the compiler needs, must not be locked while the fork waits here.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_compiling.acquire, after_in_parent=_compiling.release, after_in_child=_compiling.release
    )


class Kernel:
    """A function that Numba compiles for one signature when it is first called, and keeps on the disk.

    Numba itself compiles such a function when its module is imported: a search would wait for the kernels of a merge.
    """

    def __init__(self, function: Callable[..., Any], signature: str) -> None:
        functools.update_wrapper(self, function)
        self._function, self._signature = function, signature
        self._compiled: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns; the interpreter is released while it runs."""
        return (self._compiled or self.compiled)(*arguments)

    @property
    def compiled(self) -> Any:
        """The function as Numba made it."""
        with _compiling:
            if self._compiled is None:
                from numba import njit

                self._compiled = njit(self._signature, nogil=True, cache=True)(self._function)
            return self._compiled


def kernel(signature: str) -> Callable[[Callable[..., Any]], Kernel]:
    """Make a function a kernel of this signature: void(...) or the type it returns, in Numba's words."""
    return lambda function: Kernel(function, signature)
