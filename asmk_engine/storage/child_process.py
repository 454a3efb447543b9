"""Child interpreters for work that may crash or hang, so that only the child is lost.

A child is spawned, never forked, and uses its standard input and output to communicate. It does not import the main
script of its parent, so scripts need no `if __name__ == "__main__"`.
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

# One thread each: several such processes run in parallel, and every thread reserves memory.
_LIBRARIES = ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "VECLIB_MAXIMUM")
_ONE_THREAD = {f"{library}_THREADS": "1" for library in _LIBRARIES}


class ChildProcess:
    """An interpreter that runs `program`, and the pipes to it.

    name, cure   for the error message if the process cannot be started
    environment  variables added to those of this process
    expired      whether it was killed because it took too long
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
        """Kill the process if the block takes longer than `seconds`."""
        watch = threading.Timer(seconds, self._expire)
        watch.start()
        try:
            yield
        finally:
            watch.cancel()

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def _expire(self) -> None:
        self.expired = True
        self.kill()

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()

    def close(self, patience: float = 0.0) -> int:
        """Wait `patience` seconds for the process to end, else kill it; close its pipes and return its exit status."""
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        for pipe in (self.requests, self.answers):
            with contextlib.suppress(OSError):  # the last request may still be unsent
                pipe.close()
        return code


def _pipe(pipe: Any) -> BinaryIO:
    stream: BinaryIO = pipe
    return stream


def told_end(code: int) -> str:
    """Return how a process with this exit status ended: `ended by signal 11 SIGSEGV`."""
    if code >= 0:
        return f"ended with status {code}"
    names = {number.value: f" {number.name}" for number in signal.Signals}
    return f"ended by signal {-code}{names.get(-code, '')}"


def serve_parent() -> tuple[BinaryIO, BinaryIO]:
    """Inside a child: return the stream of requests and the stream for answers. The parent decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed must not mix with the answers
    return requests, answers
