"""One attempt at one image: its features and source file, or the reason why it failed."""

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
    """How another process creates an equal extractor: `module:function` and its keyword arguments, JSON values only."""

    function: str
    options: dict[str, Any]

    def make(self) -> Extractor | Viewer:
        """Create a new extractor or viewer."""
        module, name = self.function.split(":")
        extractor: Extractor | Viewer = getattr(import_module(module), name)(**self.options)
        return extractor


class Extractor(Protocol):
    """Extracts local features from an image."""

    @property
    def recipe(self) -> Recipe:
        """Name, options and weights: everything that affects the result of `extract`."""
        ...

    @property
    def dim(self) -> int:
        """The dimension of a descriptor."""
        ...

    @property
    def origin(self) -> Origin:
        """How a worker process creates an equal extractor."""
        ...

    def extract(self, image: PathLike | np.ndarray, box: Box | None = None) -> Features:
        """Extract features from an image file or from [H, W, 3] uint8 RGB pixels, strongest first.

        box  x1, y1, x2, y2 in pixels of the upright original: only this region is used
        Keypoints are in pixels of the whole upright original. Raises InputError if the image or the box cannot be used.
        """
        ...


@dataclass(frozen=True)
class Extracted:
    """The features of an image, its source file, and a note about it: one line, or empty."""

    features: Features
    source: Source
    note: str = ""


@dataclass(frozen=True)
class Failed:
    """The reason why an image has no features."""

    reason: str


@dataclass(frozen=True)
class Viewed:
    """The view of an image for an extractor, its source file, and a note about it: one line, or empty."""

    view: View
    source: Source
    note: str = ""


Outcome = Extracted | Viewed | Failed


@dataclass(frozen=True)
class Viewer:
    """The first of two steps of extraction with a network, which needs no network: decode, orient and shrink.

    max_side, lanczos  as for `decoding.view_image`
    """

    max_side: int
    lanczos: bool = True

    @property
    def origin(self) -> Origin:
        """How a worker process creates an equal viewer."""
        return Origin("asmk_engine.extraction.attempts:Viewer", {"max_side": self.max_side, "lanczos": self.lanczos})

    def view(self, image: PathLike | np.ndarray, box: Box | None = None) -> View:
        """Return the view of an image at the size that the network uses; raises as `decoding.view_image`."""
        return view_image(image, self.max_side, box, lanczos=self.lanczos)


@runtime_checkable
class TwoStepExtractor(Extractor, Protocol):
    """An extractor that can describe a batch of images decoded by worker processes, which is faster on a GPU."""

    @property
    def viewer(self) -> Viewer:
        """The first step."""
        ...

    @property
    def batch_size(self) -> int:
        """The number of views to gather before those of one size are described; 1 if workers describe images too."""
        ...

    def describe(self, views: Sequence[View]) -> list[Features]:
        """Return the features of each view, in order."""
        ...


def attempt(maker: Extractor | Viewer, path: Path) -> Outcome:
    """Extract or view an image file; any error becomes a reason of one line."""
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
    except Exception as error:  # no exception of a decoder or detector may stop the run
        return unforeseen(error)


def unforeseen(error: Exception) -> Failed:
    """Return the failure for an unexpected exception."""
    said = f"{type(error).__name__}: {_one_line(error)[:200]}"
    return Failed(f"the extractor failed on it ({said}); leave the image out")


def file_stamp(path: Path) -> tuple[int, int]:
    """Return the size in bytes and the modification time in ns of a file. Raises OSError if it does not exist."""
    status = os.stat(path)
    return status.st_size, max(0, status.st_mtime_ns)


def file_fingerprint(path: Path) -> int:
    """Return the fingerprint of the content of a file. Raises OSError if it cannot be read."""
    with open(path, "rb") as file:
        return fingerprint_bytes(*iter(lambda: file.read(1 << 20), b""))


def read_source(path: Path) -> Source:
    """Return the record of a file that is stored with its features. Raises StorageError if it cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # the extractor reports it; a pipe could block forever
            return Source(0, 0, 0)
        return Source(*file_stamp(path), file_fingerprint(path))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no file can have such a name
        return Source(0, 0, 0)
    except OSError as error:
        raise StorageError(f"{shown(path)}: cannot be read: {error.strerror or error}; check its permissions") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
