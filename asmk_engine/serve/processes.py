"""Worker processes of the server and the queue in front of them, which has an end."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from asmk_engine.extraction.workers import START_SECONDS, interrupt_blocked
from asmk_engine.serve.options import MEBIBYTE
from asmk_engine.serve.refusals import Refusal, busy, discreet
from asmk_engine.storage.child_process import ChildProcess, told_end
from asmk_engine.storage.messages import receive, send

_PROGRAM = "from asmk_engine.serve.worker import main; main()"
_ENVIRONMENT = {"OPENCV_FOR_THREADS_NUM": "1", "ASMK_ENGINE_TOKEN": ""}  # what decodes for strangers knows no token
_BROKEN = (EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError)
"""What reading an answer raises whose process died, or was taken over by a hostile photograph."""


class _LimitedProcess:
    """One process, and whether it is still usable."""

    def __init__(self, memory: int) -> None:
        self._child = ChildProcess(_PROGRAM, "a worker process", "use fewer workers", _ENVIRONMENT)
        self.alive = True
        self.told = self.ask({"memory": memory * MEBIBYTE}, START_SECONDS)

    def ask(self, order: dict[str, Any], seconds: float) -> tuple[dict[str, Any], list[np.ndarray]] | None:
        """Return the answer to an order, None if the process died or took longer."""
        try:
            with self._child.within(seconds):
                send(self._child.requests, {**order, "seconds": seconds})
                return receive(self._child.answers)
        except _BROKEN:
            self.alive = False
            return None
        finally:
            self.alive = self.alive and not self._child.expired

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._child.has_ended

    @property
    def has_expired(self) -> bool:
        """Whether it was killed because it took too long."""
        return self._child.expired

    def close(self) -> str:
        """End the process and say how it ended."""
        return told_end(self._child.close(1.0 if not self.alive else 0.0))

    def kill(self) -> None:
        """Kill the process; a thread that waits for it goes on at once."""
        self._child.kill()


class WorkerProcesses:
    """A fixed number of worker processes, each started when it is first needed and after it died.

    count    number of processes
    seconds  for one order
    memory   MiB for one process
    waiting  orders that may wait for a process; further ones are refused
    """

    def __init__(self, count: int, seconds: float, memory: int, waiting: int) -> None:
        self.seconds, self.memory = seconds, memory
        self._room = threading.BoundedSemaphore(count + waiting)
        self._idle: queue.LifoQueue[_LimitedProcess | None] = queue.LifoQueue()
        self._alive: set[_LimitedProcess] = set()
        self._lock, self._closed = threading.Lock(), False
        self.deaths = 0
        for _ in range(count):
            self._idle.put(None)

    def ask(self, order: dict[str, Any]) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Return the answer to an order; blocks until there is one.

        Raises Refusal 429 if too many wait, 422 with the reason if the photograph cannot be used, 503 at the end.
        """
        with self._admitted():
            worker = self._idle.get()
            try:
                if self._closed:
                    raise Refusal(503, "the server is stopping")
                worker = self._usable(worker) or self._start()
                found = worker.ask(order, self.seconds)
                if found is None:
                    raise self._failure(worker)
            finally:
                self._idle.put(worker if worker is not None and worker.alive else None)
        content, arrays = found
        if "reason" in content:
            raise Refusal(422, discreet(str(content["reason"])))
        return content, arrays

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[None]:
        if not self._room.acquire(blocking=False):
            raise busy("photographs")
        try:
            yield
        finally:
            self._room.release()

    def _usable(self, worker: _LimitedProcess | None) -> _LimitedProcess | None:
        """Return a process unless it has ended while it had nothing to do, which is no photograph's fault."""
        if worker is not None and worker.has_ended:
            self._discard(worker)
            self.deaths += 1
        return worker if worker is not None and worker.alive else None

    def _start(self) -> _LimitedProcess:
        with interrupt_blocked():
            worker = _LimitedProcess(self.memory)
        with self._lock:
            self._alive.add(worker)
            if self._closed:
                worker.kill()
        if worker.told is None:
            self._discard(worker)
            raise Refusal(503, "a worker process does not start; the server needs more memory", 10)
        return worker

    def _failure(self, worker: _LimitedProcess) -> Refusal:
        expired = worker.has_expired
        ended = self._discard(worker)
        if self._closed:
            return Refusal(503, "the server is stopping")
        self.deaths += 1
        if expired:
            return Refusal(422, f"took longer than {self.seconds:g} s and was stopped; send a smaller photograph")
        return Refusal(422, f"crashed the decoder, or needs more memory than the server allows ({ended})")

    def _discard(self, worker: _LimitedProcess) -> str:
        worker.alive = False
        with self._lock:
            self._alive.discard(worker)
        return worker.close()

    def close(self) -> None:
        """Kill all processes; orders under way are refused."""
        with self._lock:
            self._closed = True
            workers = list(self._alive)
        for worker in workers:
            worker.kill()
        idle = []
        with contextlib.suppress(queue.Empty):
            while True:
                idle.append(self._idle.get_nowait())
        for known in idle:
            if known is not None:
                self._discard(known)
            self._idle.put(None)  # for orders that wait, which are refused now
