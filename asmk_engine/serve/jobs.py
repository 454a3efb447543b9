"""Long work in the background: its progress, what failed, and how it is cancelled."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from asmk_engine.errors import AsmkError
from asmk_engine.serve.refusals import Refusal, discreet, told

KEPT_JOBS = 100
ALONE = ("groups",)
"""Kinds of work that take all processors: one at a time in the whole server."""
_LOG = logging.getLogger("uvicorn.error")
RUNNING, DONE, FAILED, CANCELLED = "running", "done", "failed", "cancelled"


class CancelledError(Exception):
    """Work ends because a client cancelled it."""


class BackgroundJob:
    """One piece of work, which is also the display that the work reports to.

    key      what requests call it
    kind     `add` or `groups`
    changes  counts them
    """

    def __init__(self, kind: str) -> None:
        self.key, self.kind = secrets.token_urlsafe(12), kind
        self.state, self.step, self.message = RUNNING, "", ""
        self.done, self.total = 0, 0
        self.failures: list[dict[str, str]] = []
        self.added: list[str] = []
        self.changes = 0
        self._cancelled, self._lock = threading.Event(), threading.Lock()

    def say(self, message: str) -> None:
        """Show one line of text."""
        self.check()
        with self._lock:
            self.message = discreet(message)
            self.changes += 1

    @contextmanager
    def bar(self, what: str, unit: str, *, by_last: bool = False) -> Iterator[Callable[..., None]]:
        """Show the progress of a stage."""
        self._progress(what, 0, 0)
        yield lambda done, total, failed=0: self._progress(what, done, total)

    def _progress(self, what: str, done: int, total: int) -> None:
        self.check()
        with self._lock:
            self.step, self.done, self.total = what, done, total
            self.changes += 1

    def check(self) -> None:
        """Raise CancelledError if the work was cancelled."""
        if self._cancelled.is_set():
            raise CancelledError

    def cancel(self) -> None:
        """Let the work end at its next report."""
        self._cancelled.set()

    def finish(self, state: str, message: str) -> None:
        """Say how the work ended."""
        with self._lock:
            self.state, self.message = state, message
            self.changes += 1

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
        found = self._known.get(key)
        if found is None:
            raise Refusal(404, "no such job; it may have been forgotten")
        return found

    def running(self, kind: str, index: str) -> BackgroundJob | None:
        """Return the job of this kind that is running for an index."""
        return self._running.get((kind, index))

    def check_free(self, kind: str, index: str) -> None:
        """Raise Refusal 409 if work of this kind is running for an index, or, of `ALONE`, for any."""
        busy = [one for known, one in list(self._running) if known == kind and (one == index or kind in ALONE)]
        if busy:
            raise Refusal(409, f"{busy[0]}: such work is running already; wait for its end, or cancel it")

    def start(self, kind: str, index: str, work: Callable[[BackgroundJob], str]) -> BackgroundJob:
        """Do work in a thread; it returns what is said at its end. Raises Refusal 409 if such work is running."""
        with self._lock:
            self.check_free(kind, index)
            job = BackgroundJob(kind)
            self._running[kind, index] = self._known[job.key] = job
            while len(self._known) > KEPT_JOBS:
                oldest = next((key for key, one in self._known.items() if one.state != RUNNING), job.key)
                if oldest == job.key:
                    break
                del self._known[oldest]
            thread = threading.Thread(target=self._run, args=(job, index, work), name=f"asmk-{kind}", daemon=True)
            self._threads = [*(one for one in self._threads if one.is_alive()), thread]
        thread.start()
        return job

    def _run(self, job: BackgroundJob, index: str, work: Callable[[BackgroundJob], str]) -> None:
        state, message = _outcome(job, index, work)
        with self._lock:  # before a client learns of the end, who may begin the next one at once
            self._running.pop((job.kind, index), None)
        job.finish(state, message)

    def close(self) -> None:
        """Cancel all work and wait for its end."""
        for job in list(self._running.values()):
            job.cancel()
        for thread in self._threads:
            thread.join(30)


def _outcome(job: BackgroundJob, index: str, work: Callable[[BackgroundJob], str]) -> tuple[str, str]:
    """Do the work; returns how it ended and what is said of it."""
    try:
        return DONE, work(job)
    except CancelledError:
        return CANCELLED, "cancelled"
    except AsmkError as error:
        return FAILED, told(error)
    except Exception as error:  # a job must end whatever happens
        _LOG.exception("the job %s of %s failed", job.kind, index)
        return FAILED, f"the server failed ({type(error).__name__}); its log says more"
