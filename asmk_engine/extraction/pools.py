"""What describes the images of a run: the processors of this machine, or whatever else a caller brings."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol

from asmk_engine.errors import AsmkError
from asmk_engine.extraction.attempts import (
    Extracted,
    Extractor,
    Failed,
    Outcome,
    TwoStepExtractor,
    Viewed,
    Viewer,
    attempt,
    unforeseen,
)
from asmk_engine.extraction.fetching import fetched
from asmk_engine.extraction.workers import WINDOW, WorkerPool
from asmk_engine.features import Features, check_features
from asmk_engine.images.listing import ImageFile

VIEWS_WAITING = 6
"""Decoded images per worker that may wait for the network."""


class ImagePool(Protocol):
    """Processes that describe images; for any number of them the outcomes are equal and in the order of the images."""

    def attempt_all(self, images: Sequence[ImageFile]) -> Iterator[Outcome]:
        """Yield the outcome of each image, in the given order."""
        ...


PoolMaker = Callable[[Extractor, float], AbstractContextManager[ImagePool]]
"""Makes a pool for an extractor and a time limit per image in seconds."""


class LocalPool:
    """The processors of this machine; use it as a context manager, as often as needed within it.

    extractor  describes the images
    workers    number of worker processes, 0 for this process
    seconds    time limit per image of a worker
    """

    def __init__(self, extractor: Extractor, workers: int, seconds: float) -> None:
        self._extractor, self._workers, self._seconds = extractor, workers, seconds
        self._pools: dict[int, WorkerPool] = {}

    def __enter__(self) -> LocalPool:
        self._open = ExitStack()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def attempt_all(self, images: Sequence[ImageFile]) -> Generator[Outcome, None, None]:
        """Yield the outcome of each image, in the given order; on a GPU the images are described in batches."""
        extractor = self._extractor
        if isinstance(extractor, TwoStepExtractor) and extractor.batch_size > 1:
            # Decoded images are large, so only a few wait for each worker.
            yield from _described(extractor, self._attempts(extractor.viewer, images, VIEWS_WAITING))
        else:
            yield from self._attempts(extractor, images, WINDOW)

    def _attempts(self, maker: Extractor | Viewer, images: Sequence[ImageFile], window: int) -> Iterator[Outcome]:
        if self._workers == 0 or not images:
            return fetched(images, lambda paths: (attempt(maker, path) for path in paths))

        def attempts(paths: Iterable[Path]) -> Iterator[Outcome]:
            return self._worker_pool(maker, window).attempt_all(paths)

        return fetched(images, attempts)

    def _worker_pool(self, maker: Extractor | Viewer, window: int) -> WorkerPool:
        """Return the worker processes, which stay for the next call."""
        if window not in self._pools:
            pool = WorkerPool(maker.origin, self._workers, self._seconds, window)
            self._pools[window] = self._open.enter_context(pool)
        return self._pools[window]


def _described(extractor: TwoStepExtractor, outcomes: Iterable[Outcome]) -> Generator[Outcome, None, None]:
    """Run the second step: gather views until there are enough and describe them together, in order."""
    gathered: list[Outcome] = []
    for outcome in outcomes:
        gathered.append(outcome)
        if len(gathered) >= extractor.batch_size:
            yield from _describe(extractor, gathered)
            gathered = []
    yield from _describe(extractor, gathered)


def _describe(extractor: TwoStepExtractor, outcomes: list[Outcome]) -> list[Outcome]:
    """Describe the views among the outcomes; if that fails, one by one, so that a bad image affects only itself."""
    viewed = [outcome for outcome in outcomes if isinstance(outcome, Viewed)]
    try:
        features = extractor.describe([outcome.view for outcome in viewed])
    except Exception as error:  # no exception of a network or its device may stop the run
        if len(outcomes) > 1:
            return [found for outcome in outcomes for found in _describe(extractor, [outcome])]
        return [unforeseen(error)]
    made = iter(zip(viewed, features, strict=True))
    return [_checked(extractor, *next(made)) if isinstance(outcome, Viewed) else outcome for outcome in outcomes]


def _checked(extractor: TwoStepExtractor, viewed: Viewed, features: Features) -> Outcome:
    try:
        check_features("features", features, extractor.dim)
    except AsmkError as error:
        return Failed(str(error))
    return Extracted(features, viewed.source)
