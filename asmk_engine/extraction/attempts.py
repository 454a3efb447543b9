"""One image, one attempt: its features and the file they came from, or the reason why there are none."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from asmk_engine.errors import AsmkError, StorageError
from asmk_engine.features import Features, Source, check_features, fingerprint_bytes
from asmk_engine.images.boxes import Box
from asmk_engine.images.decoding import View, collected_notes, view_image
from asmk_engine.images.listing import PathLike, shown
from asmk_engine.recipes import Recipe


@dataclass(frozen=True)
class Origin:
    """How another process makes an equal extractor: `module:function` and its keyword arguments, JSON values only."""

    function: str
    options: dict[str, Any]

    def make(self) -> Extractor | Viewer:
        """A new extractor, or viewer."""
        module, name = self.function.split(":")
        extractor: Extractor | Viewer = getattr(import_module(module), name)(**self.options)
        return extractor


class Extractor(Protocol):
    """What turns an image into local features."""

    @property
    def recipe(self) -> Recipe:
        """Name, options and weights: everything that decides what `extract` returns."""
        ...

    @property
    def dim(self) -> int:
        """Dimensions of a descriptor."""
        ...

    @property
    def origin(self) -> Origin:
        """How a worker process makes an equal extractor."""
        ...

    def extract(self, image: PathLike | np.ndarray, box: Box | None = None) -> Features:
        """The features of an image file or of [H, W, 3] uint8 RGB pixels, strongest first.

        box  x1, y1, x2, y2 in pixels of the upright original: only this part is looked at
        Keypoints are in pixels of the whole upright original. InputError when the image or the box cannot be used.
        """
        ...


@dataclass(frozen=True)
class Extracted:
    """The features of an image, the file they were read from, and what is to be said of it: a line, or nothing."""

    features: Features
    source: Source
    note: str = ""


@dataclass(frozen=True)
class Failed:
    """Why an image has no features."""

    reason: str


@dataclass(frozen=True)
class Viewed:
    """What an extractor will see of an image, the file it was read from, and what is to be said of it, as a line."""

    view: View
    source: Source
    note: str = ""


Outcome = Extracted | Viewed | Failed


@dataclass(frozen=True)
class Viewer:
    """The first of two steps of a network's extraction, which needs no network: decode, orient and shrink.

    max_side, lanczos  as for `decoding.view_image`
    """

    max_side: int
    lanczos: bool = True

    @property
    def origin(self) -> Origin:
        """How a worker process makes an equal viewer."""
        return Origin("asmk_engine.extraction.attempts:Viewer", {"max_side": self.max_side, "lanczos": self.lanczos})

    def view(self, image: PathLike | np.ndarray, box: Box | None = None) -> View:
        """The part of an image at the size it is looked at; raises as `decoding.view_image`."""
        return view_image(image, self.max_side, box, lanczos=self.lanczos)


@runtime_checkable
class TwoStepExtractor(Extractor, Protocol):
    """An extractor that can describe images together, decoded by worker processes, where that is faster: on a GPU."""

    @property
    def viewer(self) -> Viewer:
        """The first step."""
        ...

    @property
    def batch_size(self) -> int:
        """How many images to have at hand before some of one size are described; 1 where workers describe them too."""
        ...

    def describe(self, views: Sequence[View]) -> list[Features]:
        """The features of each view, in their order."""
        ...


def attempt(maker: Extractor | Viewer, path: Path) -> Outcome:
    """Extract or view an image file; whatever is wrong with it becomes a reason of one line."""
    try:
        source = read_source(path)
        with collected_notes() as notes:
            if isinstance(maker, Viewer):
                view = maker.view(path)
                return Viewed(view, source, "; ".join(notes))
            features = maker.extract(path)
        check_features("features", features, maker.dim)
        return Extracted(features, source, "; ".join(notes))
    except AsmkError as error:
        return Failed(_one_line(error).removeprefix(f"{shown(path)}: "))
    except Exception as error:  # an image must not stop the run, whatever a decoder or detector makes of it
        return unforeseen(error)


def unforeseen(error: Exception) -> Failed:
    """A failure of which nobody knows more than the error says."""
    said = f"{type(error).__name__}: {_one_line(error)[:200]}"
    return Failed(f"the extractor failed on it ({said}); leave the image out")


def file_stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in ns of a file; OSError when it is not there."""
    status = os.stat(path)
    return status.st_size, max(0, status.st_mtime_ns)


def file_fingerprint(path: Path) -> int:
    """The fingerprint of the content of a file; OSError when it cannot be read."""
    with open(path, "rb") as file:
        return fingerprint_bytes(*iter(lambda: file.read(1 << 20), b""))


def read_source(path: Path) -> Source:
    """The file as it is recorded beside its features; StorageError when it cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # the extractor says what it is; a pipe could block for ever
            return Source(0, 0, 0)
        return Source(*file_stamp(path), file_fingerprint(path))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no file can have such a name
        return Source(0, 0, 0)
    except OSError as error:
        raise StorageError(f"{shown(path)}: cannot be read: {error.strerror or error}; check its permissions") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
