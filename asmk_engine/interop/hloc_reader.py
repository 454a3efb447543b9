"""Reader of hloc's HDF5 files: find the images, check their declared shapes and types, then read their arrays.

The file is untrusted. Nothing outside it is read, no array is read before its size is checked, and HDF5's errors on
damaged files become errors that name the file and the image.
"""

from __future__ import annotations

import contextlib
import errno
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from asmk_engine.errors import DamagedError, FormatError, InputError, MismatchError, NotFoundError, StorageError
from asmk_engine.escape import list_first
from asmk_engine.features import Features, check_features, check_name
from asmk_engine.features.parts import KIND
from asmk_engine.storage.hdf5 import open_hdf5

DATASETS = ("keypoints", "descriptors", "scores", "scales", "oris", "image_size")
LARGEST_DATASET = 1 << 30
"""Maximum size of an array of one image in bytes, because a small malicious file can declare any size."""
LONGEST_NAME = 4096


@dataclass(frozen=True)
class ImageOutline:
    """An image by the shapes of its arrays: name, number of features, dimensions (None without features) and type."""

    name: str
    count: int
    dim: int | None
    dtype: np.dtype


@contextlib.contextmanager
def open_hloc(path: Path) -> Iterator[h5py.File]:
    """Open an hloc file for reading; raises NotFoundError, FormatError, DamagedError or StorageError if it fails."""
    with _readable(path):
        if not path.exists():
            raise NotFoundError(f"{path}: no such file; expected an HDF5 file of local features written by hloc")
        if not path.is_file() or not _has_signature(path):
            raise FormatError(f"{path}: not an HDF5 file; expected a file of local features written by hloc")
        file = open_hdf5(path)
    with file:
        with _readable(path):
            kind = str(file.attrs.get("kind"))
        if kind == KIND:
            raise FormatError(f"{path}: already part of a feature set; use its folder without importing it")
        yield file


def _has_signature(path: Path) -> bool:
    """Return whether a file has the HDF5 signature; h5py.is_hdf5 also denies intact files locked by another process."""
    with path.open("rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


@contextlib.contextmanager
def _readable(where: object) -> Iterator[None]:
    """Convert HDF5's exceptions to errors that begin with `where`: the path, or the path and the image."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: the name {error.object!r} is not valid Unicode; write it again with hloc, under other names"
        ) from None
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        said = " ".join(str(error).split())[:160]
        if isinstance(error, OSError) and error.errno == errno.EAGAIN:
            raise StorageError(f"{where}: another program is writing this file; wait until it has finished") from None
        if isinstance(error, PermissionError):
            raise StorageError(f"{where}: permission denied; change the permissions of the file") from None
        raise DamagedError(f"{where}: damaged ({said}); copy the file again, or write it again with hloc") from None


def outline_images(file: h5py.File, path: Path) -> list[ImageOutline]:
    """List the images of the file from the shapes of their arrays, in byte order of the names."""
    with _readable(path):
        return [_outline(group, name, path) for name, group in _image_groups(file, path)]


def image_names(file: h5py.File, path: Path) -> list[str]:
    """The names of the images in the file, whatever it holds of them, in byte order."""
    with _readable(path):
        return [name for name, _ in _image_groups(file, path)]


def _image_groups(file: h5py.File, path: Path) -> list[tuple[str, h5py.Group]]:
    """Return names and groups of the images in byte order: every group that directly contains a dataset."""
    found: list[tuple[str, h5py.Group]] = []
    waiting: list[tuple[str, h5py.Group]] = [("", file)]
    seen: set[int] = set()
    while waiting:
        name, group = waiting.pop()
        address = int(h5py.h5o.get_info(group.id).addr)
        if address in seen:
            raise InputError(f"{path}: group {name!r} is linked more than once; expected one group per image")
        seen.add(address)
        below = _groups_below(name, group, path)
        if len(below) < len(group):
            found.append((_image_name(name, group, path), group))
        elif not below and name:
            raise InputError(f"{path}: the group of image {name!r} is empty; extract this image again with hloc")
        waiting.extend(below)
    if not found:
        raise FormatError(f"{path}: contains no image; expected one group per image with keypoints and descriptors")
    return sorted(found, key=lambda item: item[0].encode())


def _groups_below(name: str, group: h5py.Group, path: Path) -> list[tuple[str, h5py.Group]]:
    below = []
    for key in group:
        place = f"{name}/{key}" if name else str(key)
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise InputError(
                f"{path}: {place!r} is a soft or external link, which is not followed for safety; "
                "copy its data into the file"
            )
        if group.get(key, getclass=True) is h5py.Group:
            below.append((_checked_place(place, path), group[key]))
    return below


def _checked_place(place: str, path: Path) -> str:
    try:
        check_name(place)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if len(place.encode()) > LONGEST_NAME:
        raise InputError(f"{path}: the name {place[:40]!r}… is longer than {LONGEST_NAME} bytes; shorten it")
    if ".." in place.split("/"):
        raise InputError(f"{path}: image {place!r} has .. in its name; expected a path below the image folder")
    return place


def _image_name(name: str, group: h5py.Group, path: Path) -> str:
    if not name:
        stray = next(key for key in group if group.get(key, getclass=True) is not h5py.Group)
        raise FormatError(
            f"{path}: {stray!r} is not inside an image group; expected one group per image with keypoints and "
            "descriptors"
        )
    return name


def _outline(group: h5py.Group, name: str, path: Path) -> ImageOutline:
    where = f"{path}: image {name!r}"
    _check_present(group, where)
    for key in DATASETS:
        if key in group:
            _check_dataset(group[key], f"{where}: {key}")
    keypoints, descriptors = group["keypoints"], group["descriptors"]
    if keypoints.ndim != 2 or keypoints.shape[1] != 2:
        raise FormatError(f"{where}: keypoints are {keypoints.shape}; expected [N, 2]")
    count = len(keypoints)
    if count == 0 and descriptors.size == 0:
        return ImageOutline(name, 0, None, descriptors.dtype)
    if descriptors.ndim != 2 or descriptors.shape[1] != count or not descriptors.shape[0]:
        turned = descriptors.ndim == 2 and descriptors.shape[0] == count
        raise FormatError(
            f"{where}: descriptors are {descriptors.shape}, keypoints {keypoints.shape}; expected [D, {count}]"
            + (", one column per keypoint: transpose them" if turned else "")
        )
    return ImageOutline(name, count, int(descriptors.shape[0]), descriptors.dtype)


def _check_present(group: h5py.Group, where: str) -> None:
    missing = [key for key in ("keypoints", "descriptors", "image_size") if key not in group]
    if not missing:
        return
    if "global_descriptor" in group and "descriptors" in missing:
        raise FormatError(f"{where}: contains a global descriptor; expected local features: keypoints and descriptors")
    found = list_first(sorted(map(str, group))[:5], len(group))
    raise FormatError(f"{where}: contains {found}, but no {' and no '.join(missing)}; expected local features of hloc")


def _check_dataset(dataset: object, where: str) -> None:
    if not isinstance(dataset, h5py.Dataset):
        raise FormatError(f"{where} is a group; expected a dataset of numbers")
    if dataset.shape is None or dataset.dtype.kind not in "fiu":
        raise FormatError(f"{where}: {dataset.dtype} {dataset.shape}; expected float16 or float32")
    if dataset.is_virtual or dataset.external:
        raise InputError(f"{where}: its values are in other files, which are not read; copy them into this one")
    size = math.prod(dataset.shape) * max(dataset.dtype.itemsize, 4)
    if size > LARGEST_DATASET:
        raise InputError(f"{where}: {dataset.shape} takes {size} bytes; expected at most {LARGEST_DATASET}")


def common_dim(outlines: Sequence[ImageOutline], path: Path) -> int:
    """Return the dimensions of all descriptors; raises MismatchError if they differ, InputError without features."""
    known = [(outline.name, outline.dim) for outline in outlines if outline.dim is not None]
    if not known:
        raise InputError(f"{path}: none of its {len(outlines)} images has features; there is nothing to import")
    first, dim = known[0]
    for name, other in known:
        if other != dim:
            raise MismatchError(
                f"{path}: image {name!r} has descriptors of {other} dimensions, {first!r} of {dim}; "
                "expected the features of one extractor in one file"
            )
    return dim


def common_dtype(outlines: Sequence[ImageOutline]) -> np.dtype:
    """Return float16 if all descriptors have it, else float32."""
    half = all(outline.dtype == np.float16 for outline in outlines if outline.count)
    return np.dtype(np.float16 if half else np.float32)


def read_image(file: h5py.File, outline: ImageOutline, dim: int, dtype: np.dtype, path: Path) -> Features:
    """Read the features of one image, sorted by decreasing score.

    Raises InputError for a value that is not finite and FormatError for wrong shapes.
    """
    where = f"{path}: image {outline.name!r}"
    with _readable(where):
        found = _read(file[outline.name], outline.count, dim, dtype, where)
    check_features(where, found, dim)
    return found


def _read(group: h5py.Group, count: int, dim: int, dtype: np.dtype, where: str) -> Features:
    scores, scales = (_column(group, key, count, where) for key in ("scores", "scales"))
    order = np.argsort(-scores, kind="stable")
    with np.errstate(over="ignore"):  # values that overflow become infinite and are refused by check_features
        angles = [np.radians(_column(group, "oris", count, where))] if "oris" in group else []
        columns = [scales[:, None], *(column[:, None] for column in angles)]
        keypoints = np.concatenate([group["keypoints"][:].astype(np.float32), *columns], axis=1)
        descriptors = group["descriptors"][:].reshape(dim, count).T.astype(dtype)
    return Features(descriptors[order], keypoints[order], scores[order], _image_size(group, where))


def _column(group: h5py.Group, key: str, count: int, where: str) -> np.ndarray:
    if key not in group:
        return np.ones(count, np.float32)
    if group[key].shape != (count,):
        raise FormatError(f"{where}: {key} are {group[key].shape}; expected ({count},), one per keypoint")
    with np.errstate(over="ignore"):
        return np.asarray(group[key][:].astype(np.float32))


def _image_size(group: h5py.Group, where: str) -> tuple[int, int]:
    size = group["image_size"]
    sides = [float(side) for side in size[:]] if size.shape == (2,) else []
    if not sides or not all(1 <= side < 1 << 31 for side in sides):
        raise FormatError(f"{where}: image_size is {sides or size.shape}; expected width and height in pixels")
    return int(sides[0]), int(sides[1])
