"""Local features in the HDF5 layout of hloc (github.com/cvg/Hierarchical-Localization, extract_features.py).

One file holds one group per image, named by its POSIX path below the folder of photographs, so that slashes make
nested groups:

    keypoints [N, 2]      x, y in pixels of the original; the centre of the first pixel is 0, 0
    descriptors [D, N]    one column for each keypoint
    scores [N]            scores; optional here
    scales [N]            in pixels of the original; optional
    image_size [2]        width, height of the original
    keypoints.attrs["uncertainty"]    standard deviation of a keypoint in pixels of the original; optional

hloc computes a keypoint as (keypoint + 0.5) * scale - 0.5, and adds the half pixel of COLMAP only where it writes a
COLMAP database: its convention is that of `Features.keypoints`, and values pass unchanged in both directions. What hloc
calls the original is the image as it is stored, without its EXIF orientation. `scales` are whatever the detector calls
scale: this package's RootSIFT writes SIFT's diameter.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from asmk_engine.errors import InputError, StorageError
from asmk_engine.features import Features, FeatureSet, FeatureWriter, part_names
from asmk_engine.interop import hloc_reader
from asmk_engine.iteration import Progress, counted
from asmk_engine.recipes import IMPORTED, Recipe
from asmk_engine.storage.folder import Folder


def import_hloc(
    h5_path: Path | str,
    output: Path | str,
    *,
    name: str | None = None,
    on_check: Progress | None = None,
    on_image: Progress | None = None,
) -> FeatureSet:
    """Write the local features of an hloc file into the feature set `output`, made or added to, and open it.

    name      what the features are called in their recipe, `hloc dim=… features=…`; by default the stem of the file.
              Only features of the same name and dimension fit one codebook.
    on_check, on_image   called with (done, total) images: every image is checked before the first is written

    Features are sorted by score, highest first, equal scores in the order of the file. Missing scores become 1, missing
    scales 1. Descriptors stay float16 where all of the file are, and are float32 otherwise. Images that `output` holds
    with the same content are left alone. Nothing outside the file is ever read: soft and external links, virtual
    datasets and external storage are refused, and so are names with `..`; HDF5 itself drops a leading slash and `.`.
    Raises NotFoundError, FormatError for another kind of file, DamagedError, InputError for values or names that cannot
    be used, MismatchError for descriptors of several dimensions, or an `output` of another recipe.
    """
    path = Path(h5_path)
    label = path.stem if name is None else name
    if not label.strip():
        raise InputError(f"{path}: imported features need a name; give what made them, such as superpoint")
    with hloc_reader.open_hloc(path) as file:
        outlines = hloc_reader.outline_images(file, path)
        dim, dtype = hloc_reader.common_dim(outlines, path), hloc_reader.common_dtype(outlines)

        def images() -> Iterator[tuple[str, Features]]:
            return ((o.name, hloc_reader.read_image(file, o, dim, dtype, path)) for o in outlines)

        for _ in counted(images(), len(outlines), on_check):
            continue
        known = FeatureSet.open(output) if part_names(Path(output)) else None
        with FeatureWriter(output, Recipe(IMPORTED, {"features": label, "dim": dim}), dim) as writer:
            for image, found in counted(images(), len(outlines), on_image):
                if known is None or image not in known or not _equal(known.read(image), found):
                    writer.add(image, found)
    return FeatureSet.open(output)


def _equal(a: Features, b: Features) -> bool:
    pairs = ((a.descriptors, b.descriptors), (a.keypoints, b.keypoints), (a.scores, b.scores))
    same = all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs)
    return same and a.image_size == b.image_size


def export_hloc(
    features: FeatureSet, h5_path: Path | str, *, half: bool = False, on_image: Progress | None = None
) -> int:
    """Write a feature set as one hloc file, atomically, replacing an older one; returns how many images it holds.

    half      descriptors as float16; otherwise they keep the type they are stored in. Keypoints stay float32, because
              float16 counts in whole pixels from 1024 and in pairs of pixels from 2048 on.
    on_image  called with (done, total)

    `uncertainty` is one pixel of the image as the extractor saw it, and is left out when the recipe has no `max_side`.
    InputError when a name cannot be the path of a group: with an empty, `.` or `..` component, or in the way of another
    image's arrays (`a.jpg/keypoints` beside `a.jpg`); StorageError when the file cannot be written.
    """
    path = Path(h5_path)
    _check_names(features, path)
    if path.is_dir() or path.parent.resolve() == features.path.resolve():
        raise InputError(f"{path}: a folder, or a file inside the feature set; give the name of a new file outside it")
    folder = Folder(path.parent)
    folder.make()
    temporary = folder.temporary(path.name)
    try:
        with _write_errors(path), _Destination(temporary) as destination:
            with h5py.File(destination, "w", libver=("v110", "v110")) as file:
                for name, image in counted(features.images(), len(features), on_image):
                    _write_image(file, name, image, half, features)
                    if destination.is_refused:
                        break
            destination.check()
        folder.publish(path.name)
    except BaseException:
        folder.remove(temporary.name)
        raise
    folder.sync()
    return len(features)


class _Destination(io.FileIO):
    """A file that HDF5 writes into, which takes an error of the disk for nothing and tells of it when it is asked.

    HDF5 crashes the process when it closes a file whose last tables the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of the data, as long as the disk takes any."""
        left = memoryview(data).cast("B")
        size = left.nbytes
        try:
            while left.nbytes and self._error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self._error = error
        return size

    def flush(self) -> None:
        """Nothing waits: the file has no buffer."""

    @property
    def is_refused(self) -> bool:
        """Whether the disk gave an error."""
        return self._error is not None

    def check(self) -> None:
        """Raise the first error that the disk gave."""
        if self._error is not None:
            raise self._error


def _check_names(features: FeatureSet, path: Path) -> None:
    for name in features.names:
        parts = name.split("/")
        if not {"", ".", ".."}.isdisjoint(parts):
            raise InputError(f"{path}: image {name!r} cannot be the path of a group in HDF5; rename the image")
        above = PurePosixPath()
        for part, following in itertools.pairwise(parts):
            above /= part
            if following in hloc_reader.DATASETS and str(above) in features:
                raise InputError(f"{path}: image {name!r} is in the way of the arrays of {str(above)!r}; rename one")


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """HDF5 tells of a full disk on several lines, by OSError while it writes and by RuntimeError when it closes."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        said = os.strerror(number) if number else " ".join(str(error).split())[:160]
        raise StorageError(
            f"{path}: cannot write the file: {said}; free some space or choose another folder, an older file is kept"
        ) from error


def _write_image(file: h5py.File, name: str, image: Features, half: bool, features: FeatureSet) -> None:
    group = file.create_group(name)
    group["keypoints"] = image.keypoints[:, :2]
    group["scales"], group["scores"] = image.keypoints[:, 2], image.scores
    group["image_size"] = np.array(image.image_size, np.int64)
    descriptors = _halved(image, name, features.path) if half else image.descriptors
    group["descriptors"] = np.ascontiguousarray(descriptors.T)
    max_side = features.recipe.options.get("max_side")
    if isinstance(max_side, int) and max_side > 0:
        group["keypoints"].attrs["uncertainty"] = max(1.0, max(image.image_size) / max_side)


def _halved(image: Features, name: str, path: Path) -> np.ndarray:
    with np.errstate(over="ignore"):
        halved = image.descriptors.astype(np.float16)
    if not np.isfinite(halved).all():
        raise InputError(f"{path}: image {name!r} has descriptors beyond 65504, the end of float16; export it in full")
    return halved
