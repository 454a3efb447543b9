"""From image files to a feature set: several worker processes, resumable, and no image can stop the run.

An image is left alone when the set holds it and its file has the recorded size and modification time; when only the
time differs, the content decides. Images that failed before are tried again. Whatever the number of workers, the
features are written in the order of the images, so the same run gives the same parts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass

from asmk_engine.attempts import Extracted, Extractor, Outcome, attempt, file_fingerprint, file_stamp
from asmk_engine.errors import InputError
from asmk_engine.features import FeatureSet, FeatureWriter, part_names
from asmk_engine.image_lists import ImageFile, ImageList, PathLike, find_images, shown
from asmk_engine.threads import available_threads
from asmk_engine.workers import WorkerPool

IMAGE_SECONDS = 120.0
"""How long a worker may take for one image."""

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
        run = _Run(writer, len(found.images) + len(found.failures), strict, progress)
        removed = run.prune(found) if prune else 0
        for name, reason in found.failures.items():
            run.fail(name, reason)
        wanted = run.select(found.images)
        with closing(_outcomes(extractor, wanted, count, image_seconds)) as outcomes:
            for image, outcome in zip(wanted, outcomes, strict=True):
                run.take(image, outcome)
    run.check_any_readable(found.root)
    return ExtractionSummary(run.extracted, run.unchanged, removed, run.failed, time.monotonic() - begun)


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
    if workers == 0 or not paths:
        yield from (attempt(extractor, path) for path in paths)
        return
    with WorkerPool(extractor.origin, min(workers, len(paths)), seconds) as pool:
        yield from pool.attempt_all(paths)


class _Run:
    """The books of one run: what was known, what became of each image."""

    def __init__(self, writer: FeatureWriter, total: int, strict: bool, progress: Progress | None) -> None:
        self._writer, self._total, self._strict, self._progress = writer, total, strict, progress
        self._known = FeatureSet.open(writer.path) if part_names(writer.path) else None
        self.extracted = self.unchanged = 0
        self.failed: dict[str, str] = {}

    def prune(self, found: ImageList) -> int:
        """Forget the images of the set that were not found, and return how many."""
        if self._known is None:
            return 0
        found_names = {image.name for image in found.images} | set(found.failures)
        for name in self._known.failures.keys() - found_names:
            self._writer.remove(name)
        vanished = [name for name in self._known.names if name not in found_names]
        for name in vanished:
            self._writer.remove(name)
        return len(vanished)

    def select(self, images: list[ImageFile]) -> list[ImageFile]:
        """The images that need work: new, changed, or failed before."""
        wanted = [image for image in images if not self._is_unchanged(image)]
        self.unchanged = len(images) - len(wanted)
        self._report()
        return wanted

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

    def take(self, image: ImageFile, outcome: Outcome) -> None:
        """Write what became of an image."""
        if isinstance(outcome, Extracted):
            self._writer.add(image.name, outcome.features, outcome.source)
            self.extracted += 1
        else:
            self.fail(image.name, outcome.reason, gone=not image.path.exists())
        self._report()

    def fail(self, name: str, reason: str, *, gone: bool = False) -> None:
        """Note that an image cannot be read; InputError when that must not be.

        Features of a file that is gone are still right, so they stay; those of a file that has changed are not.
        """
        self.failed[name] = reason
        if not (gone and name in self._stored) and self._noted.get(name) != reason:
            self._writer.fail(name, reason)
        if self._strict:
            raise InputError(f"{shown(name)}: {reason}; without strict such images are skipped")

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self.extracted + self.unchanged + len(self.failed), self._total, len(self.failed))

    def check_any_readable(self, root: str) -> None:
        """InputError when there were images and none of them could be read."""
        if self.extracted or self.unchanged or not self.failed:
            return
        reasons = [f"{shown(name)}: {reason}" for name, reason in list(self.failed.items())[:3]]
        more = f"; and {len(self.failed) - 3} more" if len(self.failed) > 3 else ""
        raise InputError(f"{root or 'images'}: none of {len(self.failed)} could be read: {'; '.join(reasons)}{more}")
