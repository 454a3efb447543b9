"""A fresh interpreter for work that may crash or hang, so that it costs that process and not this one.

It is spawned, never forked, and talked to through its standard input and output. It does not import the program that
started it, so scripts need no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from asmk_engine.errors import StorageError

# One thread each: such processes work beside each other, and every thread reserves memory.
_LIBRARIES = ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "VECLIB_MAXIMUM")
_ONE_THREAD = {f"{library}_THREADS": "1" for library in _LIBRARIES}


class ChildProcess:
    """An interpreter that runs `program`, and the pipes to it.

    name, cure   for the error when the system starts no more processes
    environment  variables that it gets beside those of this process
    expired      whether it was ended for taking too long
    """

    def __init__(self, program: str, name: str, cure: str, environment: Mapping[str, str] | None = None) -> None:
        path = os.pathsep.join(sys.path)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", program],  # -P: modules in the current folder must not shadow ours
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD, **(environment or {}), "PYTHONPATH": path},
            )
        except OSError as error:
            raise StorageError(f"cannot start {name}: {error.strerror}; {cure}") from error
        self.requests, self.answers = _pipe(self._process.stdin), _pipe(self._process.stdout)
        self.expired = False

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Inside, the process is ended once so many seconds have passed."""
        watch = threading.Timer(seconds, self._expire)
        watch.start()
        try:
            yield
        finally:
            watch.cancel()

    def _expire(self) -> None:
        self.expired = True
        self.kill()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def close(self, patience: float = 0.0) -> int:
        """End the process unless it ends by itself within `patience` seconds, give back its pipes; its status."""
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        for pipe in (self.requests, self.answers):
            with contextlib.suppress(OSError):  # the last request may not have gone out
                pipe.close()
        return code


def _pipe(pipe: Any) -> BinaryIO:
    stream: BinaryIO = pipe
    return stream


def told_end(code: int) -> str:
    """How a process of that status ended, in words: `ended by signal 11 SIGSEGV`."""
    if code >= 0:
        return f"ended with status {code}"
    names = {number.value: f" {number.name}" for number in signal.Signals}
    return f"ended by signal {-code}{names.get(-code, '')}"


def serve_parent() -> tuple[BinaryIO, BinaryIO]:
    """Inside such a process: the requests of the parent, and where answers go. The parent decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed must not mix with the answers
    return requests, answers
