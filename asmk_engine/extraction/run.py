"""Extraction runs, from image files to a feature set: parallel, resumable, and robust against broken images.

An image is skipped if the set holds it and its file has the recorded size and modification time; if only the time
differs, the content decides. Images that failed before are tried again. Features are written in the order of the
images for any number of workers, so the same run gives the same parts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from asmk_engine.errors import InputError
from asmk_engine.escape import list_first
from asmk_engine.extraction.attempts import Extracted, Extractor, Failed, Outcome
from asmk_engine.extraction.intake import Held, Intake, can_be_read, find_vanished, take_in
from asmk_engine.extraction.pools import LocalPool, PoolMaker
from asmk_engine.extraction.workers import block_interrupt
from asmk_engine.features import FeatureSet, FeatureWriter, part_names
from asmk_engine.images.listing import ImageFile, ImageList, PathLike, find_images, shown
from asmk_engine.images.roots import UNKNOWN, Root
from asmk_engine.iteration import FailureProgress
from asmk_engine.threads import available_threads

IMAGE_SECONDS = 120.0
"""Time limit of a worker for one image."""
CALLS_WAITING = 64
"""Described images that may wait to be written."""


@dataclass(frozen=True)
class ExtractionSummary:
    """The result of `extract_images`.

    extracted  number of images with new features
    unchanged  number of images that the set already held
    forgotten  names of images removed from the set because their files are gone
    failed     images that could not be read, with the reason
    seconds    duration of the run
    names      the images of this run whose features are in the set now
    intake     which images were moved, changed, or have the name of another: see `Intake`
    notes      remarks about images that were extracted nevertheless
    found      the images of the run, and other files found with them
    """

    extracted: int
    unchanged: int
    forgotten: tuple[str, ...]
    failed: dict[str, str]
    seconds: float
    names: tuple[str, ...]
    intake: Intake
    notes: dict[str, str]
    found: ImageList

    @property
    def removed(self) -> int:
        """The number of images removed from the set because their files are gone."""
        return len(self.forgotten)

    @property
    def images_per_second(self) -> float:
        """Extracted images per second of the run."""
        return self.extracted / self.seconds if self.seconds > 0 else 0.0


def extract_images(
    extractor: Extractor,
    images: ImageList | PathLike | Iterable[PathLike],
    output: PathLike,
    *,
    workers: int | None = None,
    strict: bool = False,
    prune: bool = False,
    trusting: bool = False,
    update: bool = False,
    held: Held | None = None,
    image_seconds: float = IMAGE_SECONDS,
    allow_none: bool = False,
    progress: FailureProgress | None = None,
    pool: PoolMaker | None = None,
) -> ExtractionSummary:
    """Extract new and changed images into the feature set `output`, which is created if missing.

    images         as `find_images` accepts or returns
    workers        number of processes; None is one per available processor, 0 this process, where a crash ends the run
    strict         raise InputError at the first unreadable image; images extracted before it are kept
    prune          remove images from the set whose files are provably gone from the folders of this run
    trusting       with `prune`, also remove images of folders that are empty now, like those of unmounted disks
    update, held   which names may be given to other content: see `intake.take_in`
    image_seconds  time limit per image; a worker that exceeds it is killed, and the image counts as failed
    allow_none     whether it is no error that no image is readable
    progress       receives (done, total, failed): once for images that need no work, then after every image
    pool           makes what describes the images, by default `workers` processes of this machine
    An unreadable image is recorded in the set with its reason; raises InputError only if no image is readable,
    MismatchError if the set was made with another recipe, StorageError if it cannot be written.
    """
    begun = time.monotonic()
    found = _rooted(images) if isinstance(images, ImageList) else find_images(images)
    count = _worker_count(workers)
    with FeatureWriter(output, extractor.recipe, extractor.dim) as writer:
        run = _ExtractionRun(writer, found, strict=strict, progress=progress)
        wanted = run.begin(update=update, held=held)
        if prune:
            run.forget_vanished(trusting=trusting)
        made = pool(extractor, image_seconds) if pool else LocalPool(extractor, min(count, len(wanted)), image_seconds)
        with made as describing, _BackgroundWriter() as background:
            for image, outcome in zip(wanted, describing.attempt_all(wanted), strict=True):
                background.call(run.take, image, outcome)
    if not allow_none:
        run.check_any_readable()
    return run.summary(time.monotonic() - begun)


def _rooted(found: ImageList) -> ImageList:
    """Return the images, giving those with an unknown root the root of the list."""
    root = Root.of(found.root) if found.root else UNKNOWN
    images = [image if image.root.is_known else replace(image, root=root) for image in found.images]
    return replace(found, images=images)


def _worker_count(workers: int | None) -> int:
    if workers is None:
        return available_threads()
    if workers < 0:
        raise InputError(f"workers is {workers}; give 0 (no worker processes) or more, or leave it out")
    return workers


class _BackgroundWriter:
    """Runs calls one after another in a background thread, so that extraction does not wait for writing.

    The first error is raised by the next call or at the end, and no later call runs.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "asmk-write", initializer=block_interrupt)
        self._pending: deque[Future[None]] = deque()
        self._broken = False

    def __enter__(self) -> _BackgroundWriter:
        return self

    def call(self, function: Callable[..., None], *arguments: object) -> None:
        """Queue a call of a function; blocks while too many calls are queued."""
        while self._pending and (self._pending[0].done() or len(self._pending) >= CALLS_WAITING):
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._run, function, arguments))

    def _run(self, function: Callable[..., None], arguments: tuple[object, ...]) -> None:
        if not self._broken:
            try:
                function(*arguments)
            except BaseException:
                self._broken = True
                raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            for future in self._pending:
                future.result()


class _ExtractionRun:
    """The state of one run: the known features, and the outcome of each image."""

    def __init__(
        self, writer: FeatureWriter, found: ImageList, *, strict: bool, progress: FailureProgress | None
    ) -> None:
        self._writer, self._found, self._strict, self._progress = writer, found, strict, progress
        self._known = FeatureSet.open(writer.path) if part_names(writer.path) else None
        self._noted = self._known.failures if self._known else {}
        self._intake = Intake()
        self._extracted: list[str] = []
        self._forgotten: tuple[str, ...] = ()
        self._failed: dict[str, str] = {}
        self._notes: dict[str, str] = {}

    def begin(self, *, update: bool, held: Held | None) -> list[ImageFile]:
        """Process the images that need no extractor; return the others: new, changed, or failed before."""
        for name, reason in self._found.failures.items():
            self._fail(name, reason, UNKNOWN)
        self._intake = take_in(self._found.images, self._known, update=update, held=held)
        for name, root in self._intake.moved.items():
            self._writer.move(name, root)
        self._report()
        return self._intake.wanted

    def forget_vanished(self, *, trusting: bool) -> None:
        """Remove images and failures from the set whose files are gone."""
        if self._known is None:
            return
        known, again = self._known, self._found.failures
        left = self._intake.left
        stay = [(name, known.root(name)) for name in known.names if known.source(name).fingerprint not in left]
        gone = self._vanished(stay, trusting)
        failed = [(name, known.failed_below(name)) for name in known.failures if name not in again]
        noted = self._vanished(failed, trusting)
        for name in [*gone, *noted]:
            self._writer.remove(name)
        self._forgotten = tuple(gone)

    def _vanished(self, images: list[tuple[str, Root]], trusting: bool) -> list[str]:
        vanished = find_vanished(images, self._found)
        return [*vanished.gone, *(vanished.doubtful if trusting else ())]

    def take(self, image: ImageFile, outcome: Outcome) -> None:
        """Write the outcome of an image. Raises InputError if it failed and the run is strict."""
        if isinstance(outcome, Extracted):
            self._writer.add(image.name, outcome.features, outcome.source, image.root)
            self._extracted.append(image.name)
            if outcome.note:
                self._notes[image.name] = outcome.note
        elif isinstance(outcome, Failed):
            self._fail(image.name, outcome.reason, image.root, stays=self._keeps_features(image))
        self._report()

    def _keeps_features(self, image: ImageFile) -> bool:
        """Return whether the set keeps its features of this name although the image failed.

        It does if the file is gone or unreadable, or if the features are those of another image.
        """
        if self._known is None or image.name not in self._known:
            return False
        return self._known.root(image.name) != image.root or not can_be_read(image)

    def _fail(self, name: str, reason: str, root: Root, *, stays: bool = False) -> None:
        self._failed[name] = reason
        if not stays and self._noted.get(name) != reason:
            self._writer.fail(name, reason, root)
        if self._strict:
            raise InputError(f"{shown(name)}: {reason}; without strict such images are skipped")

    def _report(self) -> None:
        if self._progress is not None:
            total = len(self._found.images) + len(self._found.failures)
            waiting = len(self._intake.wanted) - len(self._extracted) - len(self._failed) + len(self._found.failures)
            self._progress(total - waiting, total, len(self._failed))

    def check_any_readable(self) -> None:
        """Raise InputError if there were images and none of them could be read."""
        intake = self._intake
        if self._extracted or intake.unchanged or intake.changed or intake.taken or intake.same or not self._failed:
            return
        reasons = [f"{shown(name)}: {reason}" for name, reason in list(self._failed.items())[:3]]
        listed = list_first(reasons, len(self._failed), "; ")
        where = shown(self._found.root) or "the images given"
        raise InputError(f"{where}: none of {len(self._failed)} images could be read: {listed}")

    def summary(self, seconds: float) -> ExtractionSummary:
        """Return the summary of the run."""
        names = (*self._extracted, *self._intake.unchanged)
        return ExtractionSummary(
            len(self._extracted), len(self._intake.unchanged), self._forgotten, self._failed, seconds, names,
            self._intake, self._notes, self._found,
        )  # fmt: skip
