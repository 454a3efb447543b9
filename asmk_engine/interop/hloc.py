"""Local features in the HDF5 layout of hloc (github.com/cvg/Hierarchical-Localization, extract_features.py).

A file has one group per image, named by the image's POSIX path below the image folder, so that slashes create nested
groups:

    keypoints [N, 2]      x, y in pixels of the original; the centre of the first pixel is 0, 0
    descriptors [D, N]    one column per keypoint
    scores [N]            optional here
    scales [N]            in pixels of the original; optional
    oris [N]              angles in degrees, from the x axis towards the y axis; of features that have them
    image_size [2]        width, height of the original
    keypoints.attrs["uncertainty"]    standard deviation of a keypoint in pixels of the original; optional

hloc computes a keypoint as (keypoint + 0.5) * scale - 0.5, and adds COLMAP's half pixel only when it writes a COLMAP
database: its convention is that of `Features.keypoints`, and values are copied unchanged in both directions. hloc's
original is the stored image, without its EXIF orientation. The meaning of `scales` depends on the detector: RootSIFT of
this package writes SIFT's diameter.
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
from asmk_engine.interop.hloc_pairs import pairs_from_retrieval as pairs_from_retrieval
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
    """Import the local features of an hloc file into the feature set `output`, new or existing, and open it.

    name      name of the features in their recipe, `imported dim=… features=…`; by default the stem of the file. Only
              features of the same name and dimension can share a codebook.
    on_check  called with (done, total) images; every image is checked before the first is written
    on_image  called with (done, total) images as they are written

    Features are sorted by decreasing score, ties in the order of the file. Missing scores and scales become 1.
    Descriptors stay float16 if all of the file are, and become float32 otherwise. Images that `output` already has with
    the same content are skipped. Nothing outside the file is read: soft and external links, virtual datasets, external
    storage and names with `..` are refused; HDF5 itself drops a leading slash and `.`.

    Raises NotFoundError, FormatError for another kind of file, DamagedError, InputError for values or names that cannot
    be used, MismatchError for descriptors of several dimensions, or an `output` of another recipe.
    """
    path = Path(h5_path)
    label = path.stem if name is None else name
    if not label.strip():
        raise InputError(f"{path}: imported features need a name; give that of their extractor, such as superpoint")
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
    """Export a feature set as one hloc file, atomically, replacing an existing one; return the number of images.

    half      whether to write descriptors as float16; otherwise they keep their stored type. Keypoints stay float32,
              because the spacing of float16 is one pixel from 1024 and two pixels from 2048 on.
    on_image  called with (done, total) images

    `uncertainty` is one pixel of the image as seen by the extractor; it is left out if the recipe has no `max_side`.

    Raises InputError if a name cannot be the path of a group, because of an empty, `.` or `..` component or a conflict
    with another image's arrays (`a.jpg/keypoints` and `a.jpg`); StorageError if the file cannot be written.
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
    """A file for HDF5 to write to, which stores disk errors until `check` is called instead of raising them.

    HDF5 crashes the process if it closes a file whose last tables cannot be written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all data until the first disk error; return the size of the data in any case."""
        left = memoryview(data).cast("B")
        size = left.nbytes
        try:
            while left.nbytes and self._error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self._error = error
        return size

    def flush(self) -> None:
        """Do nothing: the file is unbuffered."""

    @property
    def is_refused(self) -> bool:
        """Whether there was a disk error."""
        return self._error is not None

    def check(self) -> None:
        """Raise the first disk error, if there was one."""
        if self._error is not None:
            raise self._error


def _check_names(features: FeatureSet, path: Path) -> None:
    for name in features.names:
        parts = name.split("/")
        if not {"", ".", ".."}.isdisjoint(parts):
            raise InputError(f"{path}: image name {name!r} cannot be the path of an HDF5 group; rename the image")
        above = PurePosixPath()
        for part, following in itertools.pairwise(parts):
            above /= part
            if following in hloc_reader.DATASETS and str(above) in features:
                raise InputError(f"{path}: image {name!r} conflicts with the arrays of {str(above)!r}; rename one")


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Convert HDF5's multi-line errors on a full disk, OSError on writing and RuntimeError on closing."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        said = os.strerror(number) if number else " ".join(str(error).split())[:160]
        raise StorageError(
            f"{path}: cannot write the file: {said}; free some space or choose another folder, an existing file is kept"
        ) from error


def _write_image(file: h5py.File, name: str, image: Features, half: bool, features: FeatureSet) -> None:
    group = file.create_group(name)
    group["keypoints"] = image.keypoints[:, :2]
    group["scales"], group["scores"] = image.keypoints[:, 2], image.scores
    if image.keypoints.shape[1] == 4:
        group["oris"] = np.rad2deg(image.keypoints[:, 3])
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
        raise InputError(
            f"{path}: image {name!r} has descriptor values beyond 65504, the limit of float16; export it without half"
        )
    return halved
