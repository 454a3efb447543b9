"""Local features in the HDF5 layout of hloc (github.com/cvg/Hierarchical-Localization, extract_features.py).

One file holds one group per image, named by its POSIX path below the folder of photographs, so that slashes make
nested groups:

    keypoints [N, 2]      x, y in pixels of the original; the centre of the first pixel is 0, 0
    descriptors [D, N]    one column for each keypoint
    scores [N]            strengths; optional here
    scales [N]            in pixels of the original; optional
    image_size [2]        width, height of the original
    keypoints.attrs["uncertainty"]    standard deviation of a keypoint in pixels of the original; optional

hloc computes a keypoint as (keypoint + 0.5) * scale - 0.5 and adds the half pixel of COLMAP only when it writes a COLMAP
database, so its convention is that of `Features.keypoints` and the values pass unchanged in both directions. What hloc
calls the original is the image as it is stored, without its EXIF orientation. `scales` are whatever the detector
calls scale: this package's RootSIFT writes SIFT's diameter.
"""

from __future__ import annotations

import contextlib
import errno
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from asmk_engine.errors import (
    AsmkError,
    DamagedError,
    FormatError,
    InputError,
    MismatchError,
    NotFoundError,
    StorageError,
)
from asmk_engine.features import KIND, Features, FeatureSet, FeatureWriter, check_features, check_name, part_names
from asmk_engine.recipes import Recipe
from asmk_engine.store import Folder, storage_errors

Progress = Callable[[int, int], None]

DATASETS = ("keypoints", "descriptors", "scores", "scales", "image_size")
LARGEST_DATASET = 1 << 30
"""Bytes of one array of one image: a few bytes of a hostile file can claim any size."""
LONGEST_NAME = 4096
_H5_ERRORS = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError)


def import_hloc(
    h5_path: Path | str,
    output: Path | str,
    *,
    name: str | None = None,
    on_check: Progress | None = None,
    on_image: Progress | None = None,
) -> FeatureSet:
    """Write the local features of an hloc file into the feature set `output`, made or added to, and open it.

    name      what the features are called in their recipe, `hloc name=… dim=…`; by default the stem of the file. Only
              features of the same name and dimension fit one codebook.
    on_check, on_image   called with (done, total) images: every image is checked before the first is written

    Features are sorted by score, highest first, equal scores in the order of the file. Missing scores become 1, missing
    scales 1. Descriptors stay float16 where all of the file are, and are float32 otherwise. Images that `output` holds
    with the same content are left alone. Nothing outside the file is ever read: soft and external links, virtual
    datasets and external storage are refused, and so are names with `..`.
    Raises NotFoundError, FormatError for another kind of file, DamagedError, InputError for values or names that cannot
    be used, MismatchError for descriptors of several dimensions, or an `output` of another recipe.
    """
    path = Path(h5_path)
    label = path.stem if name is None else name
    if not label.strip():
        raise InputError(f"{path}: the name of imported features must not be empty; give what made them, such as superpoint")
    with _opened(path) as file:
        outlines = [_outline(group, image, path) for image, group in _image_groups(file, path)]
        dim, dtype = _common_dim(outlines, path), _common_dtype(outlines)
        for _ in _counted(_read_all(file, outlines, dim, dtype, path), len(outlines), on_check):
            continue
        known = FeatureSet.open(output) if part_names(Path(output)) else None
        with FeatureWriter(output, Recipe("hloc", {"name": label, "dim": dim}), dim) as writer:
            for image, found in _counted(_read_all(file, outlines, dim, dtype, path), len(outlines), on_image):
                if known is None or image not in known or not _equal(known.read(image), found):
                    writer.add(image, found)
    return FeatureSet.open(output)


def _counted(
    images: Iterable[tuple[str, Features]], total: int, progress: Progress | None
) -> Iterator[tuple[str, Features]]:
    for done, image in enumerate(images, start=1):
        yield image
        if progress:
            progress(done, total)


def _equal(a: Features, b: Features) -> bool:
    pairs = ((a.descriptors, b.descriptors), (a.keypoints, b.keypoints), (a.strengths, b.strengths))
    same = all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs)
    return same and a.image_size == b.image_size


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """An hloc file opened for reading; whatever HDF5 says of a broken one becomes an error of ours."""
    if not path.exists():
        raise NotFoundError(f"{path}: no such file; expected the HDF5 file of local features that hloc wrote")
    try:
        if not path.is_file() or not h5py.is_hdf5(path):
            raise FormatError(f"{path}: not an HDF5 file; expected the file of local features that hloc wrote")
        with h5py.File(path, "r") as file:
            if file.attrs.get("kind") == KIND:
                raise FormatError(f"{path}: already a part of a feature set; use the folder it lies in as it is")
            yield file
    except AsmkError:
        raise
    except _H5_ERRORS as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: BaseException) -> AsmkError:
    said = " ".join(str(error).split())[:160]
    if isinstance(error, OSError) and error.errno == errno.EAGAIN:
        return StorageError(f"{path}: another program is writing this file; wait until it has finished")
    if isinstance(error, PermissionError):
        return StorageError(f"{path}: cannot read the file: permission denied; change its permissions")
    return DamagedError(f"{path}: not a whole HDF5 file ({said}); copy it again, or let hloc write it again")


def _image_groups(file: h5py.File, path: Path) -> list[tuple[str, h5py.Group]]:
    """Names and groups of the images in byte order: every group that directly holds a dataset."""
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
            raise InputError(f"{path}: the group of image {name!r} is empty; let hloc extract this image again")
        waiting.extend(below)
    if not found:
        raise FormatError(f"{path}: holds no image; expected one group per image with keypoints and descriptors")
    return sorted(found, key=lambda item: item[0].encode())


def _groups_below(name: str, group: h5py.Group, path: Path) -> list[tuple[str, h5py.Group]]:
    below = []
    for key in group:
        place = f"{name}/{key}" if name else str(key)
        _check_link(group, key, place, path)
        if group.get(key, getclass=True) is h5py.Group:
            below.append((_checked_place(place, path), group[key]))
    return below


def _check_link(group: h5py.Group, key: str, place: str, path: Path) -> None:
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise InputError(
            f"{path}: {place!r} is a soft or external link, which could lead anywhere and is not followed; "
            "expected the data itself (h5repack or a copy with h5py resolves links)"
        )


def _checked_place(place: str, path: Path) -> str:
    try:
        check_name(place)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if len(place.encode()) > LONGEST_NAME:
        raise InputError(f"{path}: group {place[:40]!r}… has a name of more than {LONGEST_NAME} bytes; no image is called so")
    if ".." in place.split("/"):
        raise InputError(f"{path}: image {place!r} has .. in its name; names must be paths below the folder of photographs")
    return place


def _image_name(name: str, group: h5py.Group, path: Path) -> str:
    if not name:
        stray = next(key for key in group if group.get(key, getclass=True) is not h5py.Group)
        raise FormatError(
            f"{path}: {stray!r} stands outside any image; expected one group per image with keypoints and descriptors"
        )
    return name


@dataclass(frozen=True)
class _Outline:
    """What the shapes of an image say: its name, features, and dimensions (None where there are no features)."""

    name: str
    count: int
    dim: int | None
    dtype: np.dtype


def _outline(group: h5py.Group, name: str, path: Path) -> _Outline:
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
        return _Outline(name, 0, None, descriptors.dtype)
    if descriptors.ndim != 2 or descriptors.shape[1] != count or not descriptors.shape[0]:
        turned = descriptors.ndim == 2 and descriptors.shape[0] == count
        raise FormatError(
            f"{where}: descriptors are {descriptors.shape}, keypoints {keypoints.shape}; expected [D, {count}]"
            + (", one column for each keypoint: transpose them" if turned else "")
        )
    return _Outline(name, count, int(descriptors.shape[0]), descriptors.dtype)


def _check_present(group: h5py.Group, where: str) -> None:
    missing = [key for key in ("keypoints", "descriptors", "image_size") if key not in group]
    if not missing:
        return
    if "global_descriptor" in group and "descriptors" in missing:
        raise FormatError(f"{where}: holds a global descriptor of the whole image; expected local features: keypoints and descriptors")
    found = ", ".join(sorted(map(str, group))[:5])
    raise FormatError(f"{where}: holds {found}, but no {' and no '.join(missing)}; expected local features of hloc")


def _check_dataset(dataset: object, where: str) -> None:
    if not isinstance(dataset, h5py.Dataset):
        raise FormatError(f"{where} is a group; expected a dataset of numbers")
    if dataset.shape is None or dataset.dtype.kind not in "fiu":
        raise FormatError(f"{where}: {dataset.dtype} {dataset.shape}; expected float16 or float32")
    if dataset.is_virtual or dataset.external:
        raise InputError(f"{where}: its values lie in other files, which are not read; copy them into this one")
    size = math.prod(dataset.shape) * max(dataset.dtype.itemsize, 4)
    if size > LARGEST_DATASET:
        raise InputError(f"{where}: {dataset.shape} takes {size} bytes; at most {LARGEST_DATASET} are read for one image")


def _common_dim(outlines: Sequence[_Outline], path: Path) -> int:
    known = [(outline.name, outline.dim) for outline in outlines if outline.dim is not None]
    if not known:
        raise InputError(f"{path}: none of its {len(outlines)} images has a feature; there is nothing to import")
    first, dim = known[0]
    for name, other in known:
        if other != dim:
            raise MismatchError(
                f"{path}: image {name!r} has descriptors of {other} dimensions, {first!r} of {dim}; "
                "expected the features of one extractor in one file"
            )
    return dim


def _common_dtype(outlines: Sequence[_Outline]) -> np.dtype:
    half = all(outline.dtype == np.float16 for outline in outlines if outline.count)
    return np.dtype(np.float16 if half else np.float32)


def _read_all(
    file: h5py.File, outlines: Sequence[_Outline], dim: int, dtype: np.dtype, path: Path
) -> Iterator[tuple[str, Features]]:
    for outline in outlines:
        where = f"{path}: image {outline.name!r}"
        try:
            found = _read(file[outline.name], outline.count, dim, dtype, where)
        except _H5_ERRORS as error:
            raise _unreadable(path, error) from None
        check_features(where, found, dim)
        yield outline.name, found


def _read(group: h5py.Group, count: int, dim: int, dtype: np.dtype, where: str) -> Features:
    scores, scales = (_column(group, key, count, where) for key in ("scores", "scales"))
    order = np.argsort(-scores, kind="stable")
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused for that
        keypoints = np.concatenate([group["keypoints"][:].astype(np.float32), scales[:, None]], axis=1)
        descriptors = group["descriptors"][:].reshape(dim, count).T.astype(dtype)
    return Features(descriptors[order], keypoints[order], scores[order], _image_size(group, where))


def _column(group: h5py.Group, key: str, count: int, where: str) -> np.ndarray:
    if key not in group:
        return np.ones(count, np.float32)
    if group[key].shape != (count,):
        raise FormatError(f"{where}: {key} are {group[key].shape}; expected ({count},), one for each keypoint")
    with np.errstate(over="ignore"):
        return np.asarray(group[key][:].astype(np.float32))


def _image_size(group: h5py.Group, where: str) -> tuple[int, int]:
    size = group["image_size"]
    sides = [float(side) for side in size[:]] if size.shape == (2,) else []
    if not sides or not all(1 <= side < 1 << 31 for side in sides):
        raise FormatError(f"{where}: image_size is {sides or size.shape}; expected width and height in pixels")
    return int(sides[0]), int(sides[1])


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
    try:
        with _write_errors(path), h5py.File(folder.temporary(path.name), "w", libver=("v110", "v110")) as file:
            images = _counted(features.images(), len(features), on_image)
            written = sum(_write_image(file, name, image, half, features) for name, image in images)
        folder.publish(path.name)
    except BaseException:
        folder.remove(folder.temporary(path.name).name)
        raise
    folder.sync()
    return written


def _check_names(features: FeatureSet, path: Path) -> None:
    for name in features.names:
        parts = name.split("/")
        if not {"", ".", ".."}.isdisjoint(parts):
            raise InputError(f"{path}: image {name!r} cannot be the path of a group in HDF5; rename it and extract it again")
        above = PurePosixPath()
        for part, following in zip(parts, parts[1:], strict=False):
            above /= part
            if following in DATASETS and str(above) in features:
                raise InputError(f"{path}: image {name!r} is in the way of an array of image {str(above)!r}; rename one of them")


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """HDF5 tells of a full disk by OSError while it writes and by RuntimeError when it closes."""
    try:
        with storage_errors(path, "write the file"):
            yield
    except RuntimeError as error:
        raise StorageError(f"{path}: cannot write the file: {' '.join(str(error).split())[:160]}") from error


def _write_image(file: h5py.File, name: str, image: Features, half: bool, features: FeatureSet) -> int:
    group = file.create_group(name)
    group["keypoints"] = image.keypoints[:, :2]
    group["scales"], group["scores"] = image.keypoints[:, 2], image.strengths
    group["image_size"] = np.array(image.image_size, np.int64)
    group["descriptors"] = np.ascontiguousarray((_halved(image, name, features.path) if half else image.descriptors).T)
    max_side = features.recipe.options.get("max_side")
    if isinstance(max_side, int) and max_side > 0:
        group["keypoints"].attrs["uncertainty"] = max(1.0, max(image.image_size) / max_side)
    return 1


def _halved(image: Features, name: str, path: Path) -> np.ndarray:
    with np.errstate(over="ignore"):
        halved = image.descriptors.astype(np.float16)
    if not np.isfinite(halved).all():
        raise InputError(f"{path}: image {name!r} has descriptors beyond 65504, the end of float16; export without half")
    return halved
