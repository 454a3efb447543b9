"""Worker processes that run an extractor, so that an image that crashes its decoder ends one worker, not the run.

A worker (see `storage.child_process`) answers in JSON and plain arrays, so that a decoder compromised by a hostile
image cannot make the parent execute anything.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from asmk_engine import errors
from asmk_engine.errors import StorageError
from asmk_engine.extraction.attempts import Extracted, Extractor, Failed, Origin, Outcome, Viewed, Viewer, attempt
from asmk_engine.features import Features, Source
from asmk_engine.images.decoding import View
from asmk_engine.storage.child_process import ChildProcess, serve_parent, told_end
from asmk_engine.storage.messages import receive, send

START_SECONDS = 120.0
WINDOW = 16
"""Images per worker that may be finished ahead of the first unfinished one; they wait in memory."""

_BOOTSTRAP = "from asmk_engine.extraction.workers import main; main()"
# Feature maps are large and short-lived. By default the C library returns such memory to the system at once, and a
# third of the time of the next map is spent waiting for cleared pages.
_ENVIRONMENT = {
    "OPENCV_FOR_THREADS_NUM": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
}


# ------------------------------------------------------------------------------------------- in the worker


def main() -> None:
    """Serve one parent: create the extractor it describes, then answer each path with features or a reason."""
    requests, answers = serve_parent()
    with contextlib.suppress(EOFError, BrokenPipeError):
        extractor = _make_extractor(receive(requests)[0], answers)
        while True:
            path = Path(receive(requests)[0]["path"])
            _answer(answers, attempt(extractor, path))


def _make_extractor(order: dict[str, Any], answers: BinaryIO) -> Extractor | Viewer:
    try:
        extractor = Origin(order["function"], order["options"]).make()
    except Exception as error:
        send(answers, {"error": type(error).__name__, "message": str(error)})
        raise
    send(answers, {})
    return extractor


def _answer(answers: BinaryIO, outcome: Outcome) -> None:
    if isinstance(outcome, Failed):
        return send(answers, {"reason": outcome.reason})
    source = outcome.source
    facts: dict[str, Any] = {"source": [source.size, source.mtime, source.fingerprint], "note": outcome.note}
    if isinstance(outcome, Viewed):
        view = outcome.view
        facts |= {"image_size": list(view.image_size), "offset": list(view.offset), "factor": list(view.factor)}
        return send(answers, facts, (view.pixels,))
    features = outcome.features
    facts["image_size"] = [int(side) for side in features.image_size]
    return send(answers, facts, (features.descriptors, features.keypoints, features.scores))


# ------------------------------------------------------------------------------------------- in the parent


class _Worker:
    """One process, and whether it is still usable."""

    def __init__(self, origin: Origin) -> None:
        self._child = ChildProcess(_BOOTSTRAP, "a worker process", "use fewer workers", _ENVIRONMENT)
        self.alive = True
        self._origin = origin

    def start(self) -> None:
        """Wait until the worker has created its extractor; raises the error that prevented it."""
        order = {"function": self._origin.function, "options": self._origin.options}
        answer = self._ask(order, START_SECONDS)
        if answer is None:
            raise StorageError(
                f"a worker process {told_end(self.close())} while starting; use fewer workers, or none (0)"
            )
        if "error" in answer[0]:
            kind, message = answer[0]["error"], answer[0]["message"]
            raise getattr(errors, kind)(message) if hasattr(errors, kind) else RuntimeError(f"{kind}: {message}")

    def attempt(self, path: Path, seconds: float) -> Outcome:
        """Return the worker's outcome for an image file; a crash or an answer later than `seconds` is a failure too."""
        answer = self._ask({"path": str(path)}, seconds)
        if answer is not None:
            with contextlib.suppress(KeyError, TypeError, ValueError):
                return _outcome(*answer)
            self.alive = False
        return Failed(self._failure_reason(seconds))

    def _ask(self, content: dict[str, Any], seconds: float) -> tuple[dict[str, Any], list[np.ndarray]] | None:
        """Return the answer to a message, or None if there is none and the worker is no longer usable."""
        try:
            with self._child.within(seconds):
                send(self._child.requests, content)
                return receive(self._child.answers)
        except (EOFError, OSError, ValueError, KeyError, TypeError):  # gone, or died in the middle of an answer
            self.alive = False
            return None
        finally:
            self.alive = self.alive and not self._child.expired

    def _failure_reason(self, seconds: float) -> str:
        if self._child.expired:
            return f"took longer than {seconds:g} s to extract and was stopped; leave the image out"
        return f"crashed the decoder (the worker process {told_end(self.close())}); leave the image out"

    def kill(self) -> None:
        """Kill the process; it holds no data worth keeping."""
        self._child.kill()

    def close(self) -> int:
        """End the process if it is alive, close its pipes, and return its exit status."""
        code = self._child.close(0.0 if self.alive else 1.0)
        self.alive = False
        return code


def _outcome(content: dict[str, Any], arrays: list[np.ndarray]) -> Outcome:
    """Decode what `_answer` wrote. Raises KeyError, TypeError or ValueError if it is invalid."""
    if "reason" in content:
        return Failed(str(content["reason"]))
    width, height = (int(side) for side in content["image_size"])
    source, note = Source(*(int(number) for number in content["source"])), str(content["note"])
    if "factor" in content:
        (pixels,), (left, top), (x, y) = arrays, content["offset"], content["factor"]
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise ValueError("a view without pixels")
        return Viewed(View(pixels, (width, height), (int(left), int(top)), (float(x), float(y))), source, note)
    descriptors, keypoints, scores = arrays
    return Extracted(Features(descriptors, keypoints, scores, (width, height)), source, note)


class WorkerPool:
    """A pool of worker processes that extract images; use it as a context manager.

    origin   how each worker creates its extractor
    workers  number of processes
    seconds  time limit per image
    window   images per worker that may be finished ahead of the first unfinished one
    """

    def __init__(self, origin: Origin, workers: int, seconds: float, window: int = WINDOW) -> None:
        self._origin, self._workers, self._seconds, self._window = origin, workers, seconds, window
        self._idle: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        self._workers_alive: set[_Worker] = set()
        self._lock, self._closed = threading.Lock(), False

    def __enter__(self) -> WorkerPool:
        for _ in range(self._workers):
            self._idle.put(None)
        self._threads = ThreadPoolExecutor(self._workers, "asmk-worker", initializer=block_interrupt)
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._closed = True
            for worker in self._workers_alive:
                worker.kill()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers_alive:
            worker.close()

    def attempt_all(self, paths: Iterable[Path]) -> Iterator[Outcome]:
        """Yield the outcome of each image file, in the given order."""
        waiting: deque[Future[Outcome]] = deque()
        for path in paths:
            waiting.append(self._threads.submit(self._attempt, path))
            if len(waiting) >= self._window * self._workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _attempt(self, path: Path) -> Outcome:
        """Run one attempt; called in one thread per worker, which only waits for the worker."""
        worker = self._idle.get()
        try:
            if worker is None:
                worker = self._start()
            return worker.attempt(path, self._seconds)
        finally:
            if worker is not None and not worker.alive:
                self._discard(worker)
                worker = None
            self._idle.put(worker)

    def _start(self) -> _Worker:
        with self._lock:
            worker = _Worker(self._origin)
            self._workers_alive.add(worker)
            if self._closed:
                worker.kill()
        try:
            worker.start()
        except BaseException:
            self._discard(worker)
            raise
        return worker

    def _discard(self, worker: _Worker) -> None:
        with self._lock:
            self._workers_alive.discard(worker)
        worker.close()


def block_interrupt() -> None:
    """Block Ctrl-C in this thread, so that the main thread receives it, and in the workers that this thread starts."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])


@contextlib.contextmanager
def interrupt_blocked() -> Iterator[None]:
    """Block Ctrl-C in the processes that this thread starts in the block; the thread itself receives it again after."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
