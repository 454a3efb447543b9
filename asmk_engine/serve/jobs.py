"""Long work in the background: its progress, what failed, and how it is cancelled."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from asmk_engine.errors import AsmkError
from asmk_engine.serve.refusals import Refusal

KEPT_JOBS = 100
RUNNING, DONE, FAILED, CANCELLED = "running", "done", "failed", "cancelled"


class CancelledError(Exception):
    """Work ends because a client cancelled it."""


class BackgroundJob:
    """One piece of work, which is also the display that the work reports to.

    key   what requests call it
    kind  `add` or `groups`
    """

    def __init__(self, kind: str) -> None:
        self.key, self.kind = secrets.token_urlsafe(12), kind
        self.state, self.step, self.message = RUNNING, "", ""
        self.done, self.total = 0, 0
        self.failures: list[dict[str, str]] = []
        self.added: list[str] = []
        self._cancelled, self._changed = threading.Event(), threading.Condition()

    def say(self, message: str) -> None:
        """Show one line of text."""
        self.check()
        with self._changed:
            self.message = message
            self._changed.notify_all()

    @contextmanager
    def bar(self, what: str, unit: str, *, by_last: bool = False) -> Iterator[Callable[..., None]]:
        """Show the progress of a stage."""
        self._progress(what, 0, 0)
        yield lambda done, total, failed=0: self._progress(what, done, total)

    def _progress(self, what: str, done: int, total: int) -> None:
        self.check()
        with self._changed:
            self.step, self.done, self.total = what, done, total
            self._changed.notify_all()

    def check(self) -> None:
        """Raise CancelledError if the work was cancelled."""
        if self._cancelled.is_set():
            raise CancelledError

    def cancel(self) -> None:
        """Let the work end at its next report."""
        self._cancelled.set()

    def finish(self, state: str, message: str) -> None:
        """Say how the work ended."""
        with self._changed:
            self.state, self.message = state, message
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait until something changes, so many seconds at most."""
        with self._changed:
            if self.state == RUNNING:
                self._changed.wait(seconds)

    def values(self) -> dict[str, Any]:
        """Return the job as JSON values."""
        return {
            "job": self.key, "kind": self.kind, "state": self.state, "done": self.done, "total": self.total,
            "step": self.step, "message": self.message, "failures": self.failures[:500], "added": self.added[:5000],
        }  # fmt: skip


class Jobs:
    """The jobs of a server, one of a kind and index at a time."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, BackgroundJob] = OrderedDict()
        self._running: dict[tuple[str, str], BackgroundJob] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def get(self, key: str) -> BackgroundJob:
        """Return a job; raises Refusal 404."""
        if key not in self._known:
            raise Refusal(404, "no such job; it may have been forgotten")
        return self._known[key]

    def running(self, kind: str, index: str) -> BackgroundJob | None:
        """Return the job of this kind that is running for an index."""
        return self._running.get((kind, index))

    def start(self, kind: str, index: str, work: Callable[[BackgroundJob], str]) -> BackgroundJob:
        """Do work in a thread; it returns what is said at its end. Raises Refusal 409 if such work is running."""
        with self._lock:
            if (kind, index) in self._running:
                raise Refusal(409, f"{index}: such work is running already; wait for its end, or cancel it")
            job = BackgroundJob(kind)
            self._running[kind, index] = self._known[job.key] = job
            while len(self._known) > KEPT_JOBS:
                oldest = next(key for key, one in self._known.items() if one.state != RUNNING)
                del self._known[oldest]
            thread = threading.Thread(target=self._run, args=(job, index, work), name=f"asmk-{kind}", daemon=True)
            self._threads = [*(one for one in self._threads if one.is_alive()), thread]
        thread.start()
        return job

    def _run(self, job: BackgroundJob, index: str, work: Callable[[BackgroundJob], str]) -> None:
        try:
            job.finish(DONE, work(job))
        except CancelledError:
            job.finish(CANCELLED, "cancelled")
        except AsmkError as error:
            job.finish(FAILED, " ".join(str(error).split()))
        except Exception as error:  # a job must end whatever happens
            job.finish(FAILED, f"the server failed ({type(error).__name__})")
        finally:
            with self._lock:
                self._running.pop((job.kind, index), None)

    def close(self) -> None:
        """Cancel all work and wait for its end."""
        for job in list(self._running.values()):
            job.cancel()
        for thread in self._threads:
            thread.join(30)
