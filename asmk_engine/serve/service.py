"""What the endpoints share: the indexes, the processes, the searches, and everything that is kept between requests."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import anyio.to_thread

from asmk_engine.errors import AsmkError
from asmk_engine.serve.access import Access
from asmk_engine.serve.grouping import FoundGroups
from asmk_engine.serve.jobs import Jobs
from asmk_engine.serve.metrics import Metrics
from asmk_engine.serve.options import ServeOptions
from asmk_engine.serve.pictures import Thumbnails
from asmk_engine.serve.processes import WorkerProcesses
from asmk_engine.serve.questions import Asked, Question, QuestionDescriber, Searches
from asmk_engine.serve.refusals import Refusal, refusal_of
from asmk_engine.serve.shelf import ServedIndex, Shelf
from asmk_engine.serve.uploads import Uploads

THUMBNAIL_SECONDS = 20.0
THUMBNAILS_WAITING = 100
THREADS = 200
"""More than all waiting photographs, thumbnails and searches, so that these do not keep other requests waiting."""
PATIENCE = 30.0
Result = TypeVar("Result")


class Service:
    """The state of a server; `start` and `close` begin and end what runs besides requests."""

    def __init__(self, shelf: Shelf, options: ServeOptions) -> None:
        self.shelf, self.options = shelf, options
        self.access, self.metrics = Access(options), Metrics()
        self.uploads, self.jobs, self.groups = Uploads(), Jobs(), FoundGroups()
        self.describing = WorkerProcesses(options.workers, options.seconds, options.memory, options.waiting)
        self.shrinking = WorkerProcesses(options.workers, THUMBNAIL_SECONDS, options.memory, THUMBNAILS_WAITING)
        self.describer, self.thumbnails = QuestionDescriber(self.describing), Thumbnails(self.shrinking)
        self.searches = Searches(options.waiting)
        self.is_stopping: Callable[[], bool] = lambda: False
        self._limiter: anyio.CapacityLimiter | None = None
        self._warming = threading.Thread(target=self._warm, name="asmk-warm", daemon=True)
        self._closed = False
        gauge = self.metrics.gauge
        gauge("asmk_uploads", "Photographs of clients that are kept", lambda: len(self.uploads))
        gauge("asmk_upload_bytes", "Bytes of photographs of clients that are kept", lambda: self.uploads.bytes)
        gauge("asmk_worker_deaths", "Worker processes that crashed or were stopped", self._deaths)
        gauge("asmk_refresh_failures", "Looks for new commits that failed", lambda: shelf.failures)
        gauge("asmk_images", "Images of all indexes", lambda: sum(one.index.images for one in shelf.served.values()))

    def _deaths(self) -> float:
        return self.describing.deaths + self.shrinking.deaths

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Do blocking work in a thread; errors of the engine become refusals."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(THREADS)

        def done() -> Result:
            try:
                return work()
            except AsmkError as error:
                raise refusal_of(error) from None

        return await anyio.to_thread.run_sync(done, limiter=self._limiter, abandon_on_cancel=True)

    def check_writable(self) -> None:
        """Raise Refusal 403 unless clients may change the indexes."""
        if not self.options.writable:
            raise Refusal(403, "this server changes nothing; start it with --writable")

    def start(self) -> None:
        """Begin to look for new commits, and make everything ready for the first question in the background."""
        self.shelf.start()
        self._warming.start()

    def _warm(self) -> None:
        for served in self.shelf.served.values():
            if self._closed:
                return
            with contextlib.suppress(AsmkError):
                self._warm_index(served)

    def _warm_index(self, served: ServedIndex) -> None:
        served.index.preload()
        extractors, _ = served.extractors
        if extractors:
            self.describing.ask({"task": "prepare", "extractors": extractors})
        table = served.names
        names = table.names[:1]
        if names and (features := served.remembered(names[0])) is not None:
            served.searcher.search(features, 2, rerank=2 if served.verifies else None)

    def close(self) -> None:
        """End all processes and work, and forget the photographs of clients."""
        self._closed = True
        self.describing.close()
        self.shrinking.close()
        self.jobs.close()
        self.shelf.stop()
        if self._warming.is_alive():
            self._warming.join(PATIENCE)
        self.uploads.close()


def index_values(service: Service, served: ServedIndex) -> dict[str, Any]:
    """Return what clients are told of an index."""
    return {
        "name": served.name,
        "images": served.index.images,
        "commit": served.commit,
        "writable": service.options.writable,
        "kinds": served.kinds,
        "verifies": served.verifies,
        "asks_photographs": bool(served.extractors[0]),
        "metadata": list(served.metadata.columns),
        "groups": service.groups.state(served, service.jobs.running("groups", served.name)),
    }


def asked_values(asked: Asked, size: tuple[int, int] | None) -> dict[str, Any]:
    """Return a photograph of a question as JSON values."""
    known = {"name": asked.name} if asked.upload is None else {"upload": asked.upload.key, "name": asked.upload.name}
    return {**known, "size": None if size is None else list(size)}


__all__ = ["Question", "Service", "asked_values", "index_values"]
