"""Attempts at images that are no files here: each is a temporary file for as long as it is read."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from asmk_engine.errors import AsmkError
from asmk_engine.extraction.attempts import Failed, Outcome
from asmk_engine.images.listing import ImageFile
from asmk_engine.images.stored import StoredImage
from asmk_engine.storage.folder import storage_errors

Attempts = Callable[[Iterable[Path]], Iterator[Outcome]]


def fetched(images: Sequence[ImageFile], attempts: Attempts) -> Iterator[Outcome]:
    """Yield the outcome of each image, in order; those that are no files here are files during their attempt.

    attempts  yields the outcome of each path, in order; it may ask for paths in advance
    Size and time of a temporary file are those of the image, so that the record of it does not depend on the place.
    """
    if all(image.stored is None for image in images):
        yield from attempts([image.path for image in images])
        return
    with tempfile.TemporaryDirectory(prefix="asmk-engine-") as folder:
        waiting: deque[Path | Failed] = deque()
        given = iter(images)
        for outcome in attempts(_paths(images, Path(folder), waiting)):
            while isinstance(place := waiting.popleft(), Failed):
                next(given)
                yield place
            _remove(place, folder)
            yield _renamed(outcome, place, next(given))
        yield from (place for place in waiting if isinstance(place, Failed))


def _paths(images: Sequence[ImageFile], folder: Path, waiting: deque[Path | Failed]) -> Iterator[Path]:
    """Yield the path of each image that could be read; `waiting` gets these, and the reasons of the others."""
    for number, image in enumerate(images):
        path = image.path
        if image.stored is not None:
            path = folder / f"{number}{image.path.suffix}"
            try:
                _write(image.stored, path)
            except AsmkError as error:
                waiting.append(Failed(" ".join(str(error).split())))
                continue
        waiting.append(path)
        yield path


def _write(stored: StoredImage, path: Path) -> None:
    data = stored.read()
    with storage_errors(path, "write the image for its decoder"):
        path.write_bytes(data)
        os.utime(path, ns=(stored.mtime, stored.mtime))


def _remove(path: Path, folder: str) -> None:
    if path.is_relative_to(folder):
        path.unlink(missing_ok=True)


def _renamed(outcome: Outcome, place: Path, image: ImageFile) -> Outcome:
    """Return an outcome whose reason has the path of the image, where it is not in the temporary folder."""
    return Failed(outcome.reason.replace(str(place), str(image.path))) if isinstance(outcome, Failed) else outcome
