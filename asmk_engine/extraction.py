"""From image files to a feature set: several worker processes, resumable, and no image can stop the run.

An image is left alone when the set holds it and its file has the recorded size and modification time; when only the
time differs, the content decides. Images that failed before are tried again. Whatever the number of workers, the
features are written in the order of the images, so the same run gives the same parts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from asmk_engine.attempts import (
    Extracted,
    Extractor,
    Failed,
    Outcome,
    TwoStepExtractor,
    Viewed,
    attempt,
    file_fingerprint,
    file_stamp,
    unforeseen,
)
from asmk_engine.errors import AsmkError, InputError
from asmk_engine.features import Features, FeatureSet, FeatureWriter, check_features, part_names
from asmk_engine.image_lists import ImageFile, ImageList, PathLike, find_images, shown
from asmk_engine.threads import available_threads
from asmk_engine.workers import WorkerPool, block_interrupt

IMAGE_SECONDS = 120.0
"""How long a worker may take for one image."""
VIEWS_WAITING = 6
"""Decoded images per worker that may wait for the network."""
CALLS_WAITING = 64
"""Described images that may wait to be written."""

Progress = Callable[[int, int, int], None]
"""Called with the images done, all images, and the failures: once for what needs no work, then after every image."""


@dataclass(frozen=True)
class ExtractionSummary:
    """What a run of `extract_images` did.

    extracted  images whose features are new
    unchanged  images that the set already held
    removed    images forgotten because they are no longer there
    failed     images that could not be read, with the reason
    seconds    duration of the run
    """

    extracted: int
    unchanged: int
    removed: int
    failed: dict[str, str]
    seconds: float

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
    image_seconds: float = IMAGE_SECONDS,
    progress: Progress | None = None,
) -> ExtractionSummary:
    """Extract what is new or changed among the images into the feature set `output`, which is made when missing.

    images         what `find_images` takes or returns
    workers        processes; None is one per available processor, 0 this process, where a crash ends the run
    strict         InputError at the first image that cannot be read; what was extracted before it is kept
    prune          forget images of the set that are not among `images`
    image_seconds  a worker that takes longer for one image is ended, and the image counts as failed
    An image that cannot be read is noted in the set with its reason; InputError only when that is all of them.
    MismatchError when the set was made by another recipe; StorageError when it cannot be written.
    """
    begun = time.monotonic()
    found = images if isinstance(images, ImageList) else find_images(images)
    count = _worker_count(workers)
    with FeatureWriter(output, extractor.recipe, extractor.dim, images_root=found.root) as writer:
        run = _Run(writer, found, strict=strict, prune=prune, progress=progress)
        wanted = run.begin()
        with closing(_outcomes(extractor, wanted, count, image_seconds)) as outcomes, _Behind() as behind:
            for image, outcome in zip(wanted, outcomes, strict=True):
                behind.call(run.take, image, outcome)
    run.check_any_readable()
    return ExtractionSummary(run.extracted, run.unchanged, run.removed, run.failed, time.monotonic() - begun)


def _worker_count(workers: int | None) -> int:
    if workers is None:
        return available_threads()
    if workers < 0:
        raise InputError(f"workers is {workers}; give 0 (no worker processes) or more, or leave it out")
    return workers


def _outcomes(
    extractor: Extractor, images: list[ImageFile], workers: int, seconds: float
) -> Generator[Outcome, None, None]:
    paths = [image.path for image in images]
    if isinstance(extractor, TwoStepExtractor) and extractor.together > 1:
        yield from _described(extractor, _viewed(extractor, paths, workers, seconds))
        return
    if workers == 0 or not paths:
        yield from (attempt(extractor, path) for path in paths)
        return
    with WorkerPool(extractor.origin, min(workers, len(paths)), seconds) as pool:
        yield from pool.attempt_all(paths)


def _viewed(
    extractor: TwoStepExtractor, paths: list[Path], workers: int, seconds: float
) -> Generator[Outcome, None, None]:
    """The first step alone: decoded images, which are large, so few wait for each worker."""
    viewer = extractor.viewer
    if workers == 0 or not paths:
        yield from (attempt(viewer, path) for path in paths)
        return
    with WorkerPool(viewer.origin, min(workers, len(paths)), seconds, VIEWS_WAITING) as pool:
        yield from pool.attempt_all(paths)


def _described(extractor: TwoStepExtractor, outcomes: Iterable[Outcome]) -> Generator[Outcome, None, None]:
    """The second step: views are gathered until there are enough of them, and described together, in their order."""
    gathered: list[Outcome] = []
    for outcome in outcomes:
        gathered.append(outcome)
        if len(gathered) >= extractor.together:
            yield from _describe(extractor, gathered)
            gathered = []
    yield from _describe(extractor, gathered)


def _describe(extractor: TwoStepExtractor, outcomes: list[Outcome]) -> list[Outcome]:
    """The views among the outcomes described; where they cannot be together, one by one, so that one costs itself."""
    viewed = [outcome for outcome in outcomes if isinstance(outcome, Viewed)]
    try:
        features = extractor.describe([outcome.view for outcome in viewed])
    except Exception as error:  # whatever a network or its device makes of an image must not stop the run
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


class _Behind:
    """Calls that run one after another in a thread of their own, so that writing waits for nobody.

    The first error is raised by the next call or at the end, and no later call runs.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "asmk-write", initializer=block_interrupt)
        self._pending: deque[Future[None]] = deque()
        self._broken = False

    def __enter__(self) -> _Behind:
        return self

    def call(self, function: Callable[..., None], *arguments: object) -> None:
        """Call a function soon; waits when many calls are waiting already."""
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


class _Run:
    """The books of one run: what was known, what became of each image."""

    def __init__(
        self, writer: FeatureWriter, found: ImageList, *, strict: bool, prune: bool, progress: Progress | None
    ) -> None:
        self._writer, self._found, self._strict, self._prune, self._progress = writer, found, strict, prune, progress
        self._known = FeatureSet.open(writer.path) if part_names(writer.path) else None
        self._noted = self._known.failures if self._known else {}
        self.extracted = self.unchanged = self.removed = 0
        self.failed: dict[str, str] = {}

    def begin(self) -> list[ImageFile]:
        """Do what needs no extractor, and return the images that do: new, changed, or failed before."""
        if self._prune and self._known is not None:
            self._forget_vanished(self._known)
        for name, reason in self._found.failures.items():
            self._fail(name, reason)
        wanted = [image for image in self._found.images if not self._is_unchanged(image)]
        for image in wanted:
            self._check_same_photograph(image)
        self.unchanged = len(self._found.images) - len(wanted)
        self._report()
        return wanted

    def _forget_vanished(self, known: FeatureSet) -> None:
        names = {image.name for image in self._found.images if image.path.exists()} | self._found.failures.keys()
        vanished = [name for name in known.names if name not in names]
        for name in [*vanished, *sorted(known.failures.keys() - names)]:
            self._writer.remove(name)
        self.removed = len(vanished)

    def _is_unchanged(self, image: ImageFile) -> bool:
        if self._known is None or image.name not in self._known:
            return False
        recorded = self._known.source(image.name)
        try:
            size, mtime = file_stamp(image.path)
            if size != recorded.size:
                return False
            return mtime == recorded.mtime or file_fingerprint(image.path) == recorded.fingerprint
        except OSError:  # the attempt to extract it will say what is wrong
            return False

    def _check_same_photograph(self, image: ImageFile) -> None:
        """InputError when the name belongs to another photograph, in another folder that is still there."""
        if self._known is None or image.name not in self._known:
            return
        known = Path(self._known.root(image.name)) / image.name
        if known.is_absolute() and known.is_file() and not known.samefile(image.path):
            raise InputError(
                f"{shown(image.path)}: {shown(image.name)!r} is there already, from {shown(known)}; names must be "
                "unique: give the folder that holds both, or another output"
            )

    def take(self, image: ImageFile, outcome: Outcome) -> None:
        """Write what became of an image; InputError when it failed and must not."""
        if isinstance(outcome, Extracted):
            self._writer.add(image.name, outcome.features, outcome.source)
            self.extracted += 1
        elif isinstance(outcome, Failed):
            self._fail(image.name, outcome.reason, gone=not image.path.exists())
        self._report()

    def _fail(self, name: str, reason: str, *, gone: bool = False) -> None:
        """Features of a file that is gone are as right as before, so they stay; those of a changed file do not."""
        self.failed[name] = reason
        stays = gone and self._known is not None and name in self._known
        if not stays and self._noted.get(name) != reason:
            self._writer.fail(name, reason)
        if self._strict:
            raise InputError(f"{shown(name)}: {reason}; without strict such images are skipped")

    def _report(self) -> None:
        if self._progress is not None:
            done = self.extracted + self.unchanged + len(self.failed)
            self._progress(done, len(self._found.images) + len(self._found.failures), len(self.failed))

    def check_any_readable(self) -> None:
        """InputError when there were images and none of them could be read."""
        if self.extracted or self.unchanged or not self.failed:
            return
        reasons = [f"{shown(name)}: {reason}" for name, reason in list(self.failed.items())[:3]]
        more = f"; and {len(self.failed) - 3} more" if len(self.failed) > 3 else ""
        where = shown(self._found.root) or "the images given"
        raise InputError(f"{where}: none of {len(self.failed)} images could be read: {'; '.join(reasons)}{more}")
