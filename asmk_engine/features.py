"""Feature sets: the raw local features of many images, as a folder of HDF5 part files.

A part holds whole images and is closed after 64 MiB or a minute, so a killed run loses at most the part in hand.
When a name occurs in several parts the last one counts: that is how changed images are replaced.

    part-000000.h5   attributes: kind, format, recipe, images_root
        names [I] text, offsets [I+1] int64, descriptors [T, D] float16 or float32, keypoints [T, 3] float32,
        strengths [T] float32, image_sizes [I, 2] int32, sources [I, 3] uint64 (bytes, mtime in ns, fingerprint),
        failed_names [F] text, failed_reasons [F] text, removed_names [R] text
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from asmk_engine.errors import DamagedError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.recipes import Recipe
from asmk_engine.store import Folder, WriterLock, storage_errors

KIND = "asmk-engine features"
FORMAT = 1
_PART = re.compile(r"part-(\d{6,})\.h5")
_TEXT = h5py.string_dtype("utf-8")


@dataclass(frozen=True)
class Features:
    """The local features of one image.

    descriptors  [n, D] float16 or float32, raw, as the extractor made them
    keypoints    [n, 3] float32: x, y and scale in pixels of the upright original; the centre of the first pixel is 0, 0
    strengths    [n] float32, strongest first
    image_size   (width, height) of the upright original in pixels
    """

    descriptors: np.ndarray
    keypoints: np.ndarray
    strengths: np.ndarray
    image_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.descriptors)

    def strongest(self, count: int) -> Features:
        """The first `count` features."""
        return replace(
            self,
            descriptors=self.descriptors[:count],
            keypoints=self.keypoints[:count],
            strengths=self.strengths[:count],
        )


@dataclass(frozen=True)
class Source:
    """The file an image was read from: size in bytes, modification time in ns, 64-bit fingerprint of the content."""

    size: int
    mtime: int
    fingerprint: int


def fingerprint_bytes(*chunks: bytes | memoryview) -> int:
    """A 64-bit BLAKE2b fingerprint of some bytes."""
    digest = hashlib.blake2b(digest_size=8)
    for chunk in chunks:
        digest.update(chunk)
    return int.from_bytes(digest.digest(), "little")


def check_name(name: str) -> str:
    """The image name itself, or InputError when it cannot be stored: empty, with a NUL, or not valid Unicode."""
    if not name or "\0" in name:
        raise InputError(f"image name {name!r}: a name must not be empty or hold a NUL character; rename the file")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"image name {name!r} is not valid Unicode; rename the file") from None
    return name


def check_features(name: str, features: Features, dim: int | None) -> None:
    """Raise InputError or MismatchError unless the arrays agree with each other, are finite and have `dim` columns."""
    descriptors, count = features.descriptors, len(features.descriptors)
    if descriptors.ndim != 2 or descriptors.dtype not in (np.float16, np.float32):
        found = f"{descriptors.dtype} {descriptors.shape}"
        raise InputError(f"{name}: descriptors are {found}; expected [n, D] float16 or float32")
    if features.keypoints.shape != (count, 3) or features.strengths.shape != (count,):
        raise InputError(
            f"{name}: {count} descriptors, but keypoints {features.keypoints.shape} and strengths "
            f"{features.strengths.shape}; expected ({count}, 3) and ({count},)"
        )
    if dim is not None and descriptors.shape[1] != dim:
        raise MismatchError(f"{name}: descriptors have {descriptors.shape[1]} dimensions, the feature set {dim}")
    if not (np.isfinite(descriptors).all() and np.isfinite(features.keypoints).all()):
        raise InputError(f"{name}: a descriptor or keypoint is NaN or infinite; every value must be finite")
    if not np.isfinite(features.strengths).all():
        raise InputError(f"{name}: a strength is NaN or infinite; every value must be finite")


@dataclass(frozen=True)
class _Place:
    part: int
    row: int


@dataclass(frozen=True)
class _Part:
    path: Path
    names: list[str]
    offsets: np.ndarray
    image_sizes: np.ndarray
    sources: np.ndarray
    failures: dict[str, str]
    removed: list[str]
    recipe: Recipe
    images_root: str
    dim: int
    dtype: np.dtype


class FeatureSet:
    """The features of many images, read from a folder of part files."""

    def __init__(self, path: Path, parts: list[_Part]) -> None:
        self.path = path
        self._parts = parts
        self._places: dict[str, _Place] = {}
        self.failures: dict[str, str] = {}
        for number, part in enumerate(parts):
            self._take(number, part)

    def _take(self, number: int, part: _Part) -> None:
        for name in part.removed:
            self._places.pop(name, None)
            self.failures.pop(name, None)
        for row, name in enumerate(part.names):
            self._places[name] = _Place(number, row)
            self.failures.pop(name, None)
        for name, reason in part.failures.items():
            self._places.pop(name, None)
            self.failures[name] = reason

    @classmethod
    def open(cls, path: Path | str) -> FeatureSet:
        """Open the set in the folder `path`; NotFoundError, FormatError or DamagedError name what is wrong with it."""
        path = Path(path)
        if not path.exists():
            raise NotFoundError(f"{path}: no such feature set; make one with `asmk-engine extract IMAGES -o {path}`")
        parts = [_read_part(path / name) for name in part_names(path)]
        if not parts:
            raise FormatError(f"{path}: not a feature set: it holds no part-000000.h5; expected a folder from extract")
        for part in parts:
            _check_agreement(parts[0], part)
        return cls(path, parts)

    @property
    def recipe(self) -> Recipe:
        """What made the descriptors."""
        return self._parts[0].recipe

    @property
    def images_root(self) -> str:
        """The folder the names are relative to, as it was given; empty when the features came from elsewhere."""
        return self._parts[-1].images_root

    @property
    def dim(self) -> int:
        """Dimensions of a descriptor."""
        return self._parts[0].dim

    @property
    def names(self) -> list[str]:
        """Names of the images, in byte order."""
        return sorted(self._places, key=str.encode)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    @property
    def descriptor_count(self) -> int:
        """Descriptors in the whole set."""
        return sum(self.count(name) for name in self._places)

    @property
    def bytes(self) -> int:
        """Bytes of the part files."""
        return sum(part.path.stat().st_size for part in self._parts)

    def count(self, name: str) -> int:
        """Features of one image."""
        place = self._place(name)
        offsets = self._parts[place.part].offsets
        return int(offsets[place.row + 1] - offsets[place.row])

    def source(self, name: str) -> Source:
        """The file the image was read from."""
        place = self._place(name)
        return Source(*(int(value) for value in self._parts[place.part].sources[place.row]))

    def read(self, name: str) -> Features:
        """The features of one image; NotFoundError for an unknown name."""
        place = self._place(name)
        part = self._parts[place.part]
        with _opened(part.path) as file:
            return _features(part, place.row, file["descriptors"], file["keypoints"], file["strengths"], 0)

    def images(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, Features]]:
        """Names and features, part by part in the order of extraction; only those in `names` when it is given."""
        wanted = None if names is None else set(names)
        for number, part in enumerate(self._parts):
            rows = [
                (name, row)
                for row, name in enumerate(part.names)
                if self._places.get(name) == _Place(number, row) and (wanted is None or name in wanted)
            ]
            if rows:
                yield from _images_of_part(part, rows)

    def _place(self, name: str) -> _Place:
        try:
            return self._places[name]
        except KeyError:
            reason = self.failures.get(name)
            why = f" (it was skipped: {reason})" if reason else ""
            raise NotFoundError(f"{self.path}: no image named {name!r}{why}") from None


def _images_of_part(part: _Part, rows: list[tuple[str, int]]) -> Iterator[tuple[str, Features]]:
    with _opened(part.path) as file:
        first, last = int(part.offsets[rows[0][1]]), int(part.offsets[rows[-1][1] + 1])
        arrays = [file[key][first:last] for key in ("descriptors", "keypoints", "strengths")]
    for name, row in rows:
        yield name, _features(part, row, *arrays, first)


def _features(part: _Part, row: int, descriptors: Any, keypoints: Any, strengths: Any, first: int) -> Features:
    begin, end = int(part.offsets[row]) - first, int(part.offsets[row + 1]) - first
    width, height = (int(side) for side in part.image_sizes[row])
    found = Features(descriptors[begin:end], keypoints[begin:end], strengths[begin:end], (width, height))
    check_features(f"{part.path}: {part.names[row]}", found, part.dim)
    return found


def part_names(path: Path) -> list[str]:
    """Names of the part files in a folder, oldest first."""
    found = [name for name in Folder(path).names() if _PART.fullmatch(name)]
    return sorted(found, key=lambda name: int(name[5:-3]))


def _check_agreement(first: _Part, part: _Part) -> None:
    if part.recipe != first.recipe or part.dim != first.dim:
        raise MismatchError(
            f"{part.path}: made by [{part.recipe}], {part.dim}-D, but {first.path.name} by [{first.recipe}], "
            f"{first.dim}-D; keep features of one recipe in one folder"
        )


class _opened:
    """A part file opened for reading; whatever HDF5 says of a broken one becomes a DamagedError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> h5py.File:
        if not self._path.exists():
            raise NotFoundError(f"{self._path}: no such file; run extract again")
        try:
            self._file = h5py.File(self._path, "r")
        except OSError as error:
            raise _damaged(self._path, error) from None
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if isinstance(error, OSError | KeyError | ValueError | TypeError | RuntimeError | AttributeError):
            raise _damaged(self._path, error) from None


def _damaged(path: Path, error: BaseException) -> DamagedError:
    return DamagedError(
        f"{path}: not a whole feature part ({' '.join(str(error).split())[:120]}); "
        "remove this file and run extract again: only its images are extracted anew"
    )


def _read_part(path: Path) -> _Part:
    with _opened(path) as file:
        if file.attrs.get("kind") != KIND:
            raise FormatError(f"{path}: not a part of a feature set; to import features of hloc use `asmk-engine import`")
        if int(file.attrs["format"]) != FORMAT:
            raise FormatError(f"{path}: feature format {file.attrs['format']}, this version reads {FORMAT}")
        part = _Part(
            path=path,
            names=_texts(file["names"]),
            offsets=file["offsets"][:],
            image_sizes=file["image_sizes"][:],
            sources=file["sources"][:],
            failures=dict(zip(_texts(file["failed_names"]), _texts(file["failed_reasons"]), strict=True)),
            removed=_texts(file["removed_names"]),
            recipe=Recipe.from_json(str(file.attrs["recipe"]), path),
            images_root=str(file.attrs["images_root"]),
            dim=int(file["descriptors"].shape[1]),
            dtype=file["descriptors"].dtype,
        )
        _check_part(part, file)
        return part


def _check_part(part: _Part, file: h5py.File) -> None:
    images, total = len(part.names), len(file["descriptors"])
    offsets = part.offsets
    whole = (
        offsets.shape == (images + 1,)
        and offsets[0] == 0
        and offsets[-1] == total
        and bool((np.diff(offsets) >= 0).all())
        and part.image_sizes.shape == (images, 2)
        and part.sources.shape == (images, 3)
        and file["keypoints"].shape == (total, 3)
        and file["strengths"].shape == (total,)
        and part.dtype in (np.float16, np.float32)
    )
    if not whole:
        raise ValueError("its arrays contradict each other")


def _texts(dataset: h5py.Dataset) -> list[str]:
    return list(dataset.asstr()[:])


class FeatureWriter:
    """Appends images to a feature set, part by part; use it as a context manager.

    path         the folder; made when missing. A set of another recipe or dimension is refused with MismatchError.
    images_root  the folder the names are relative to
    part_bytes, part_seconds   a part is closed when it is this large or this old
    """

    def __init__(
        self,
        path: Path | str,
        recipe: Recipe,
        dim: int,
        *,
        images_root: str = "",
        part_bytes: int = 64 << 20,
        part_seconds: float = 60.0,
    ) -> None:
        self.path = Path(path)
        self.recipe, self.dim, self.images_root = recipe, dim, images_root
        self._part_bytes, self._part_seconds = part_bytes, part_seconds
        self._folder = Folder(self.path)
        self._clear()

    def __enter__(self) -> FeatureWriter:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: a file is in the way; the features need a folder of their own")
        self._folder.make()
        self._lock = WriterLock(self.path).__enter__()
        try:
            self._folder.remove_temporary()
            self._next = self._check_existing()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None or not isinstance(error, Exception) or self._names or self._failures:
                self.flush()
        finally:
            self._lock.__exit__(None, None, None)

    def _check_existing(self) -> int:
        names = part_names(self.path)
        if not names:
            return 0
        last = _read_part(self.path / names[-1])
        if last.recipe != self.recipe or last.dim != self.dim:
            raise MismatchError(
                f"{self.path}: holds features of [{last.recipe}], {last.dim}-D, not of [{self.recipe}], {self.dim}-D; "
                "use the same options, or another folder"
            )
        return int(names[-1][5:-3]) + 1

    def add(self, name: str, features: Features, source: Source | None = None) -> None:
        """Append one image; one of the same name in an earlier part is replaced. InputError or MismatchError."""
        check_features(check_name(name), features, self.dim)
        if name in self._names:
            raise InputError(f"{self.path}: image {name!r} was added twice in one run; names must be unique")
        self._names[name] = features
        self._sources.append(source or Source(0, 0, _fingerprint_features(features)))
        self._bytes += features.descriptors.nbytes + features.keypoints.nbytes + features.strengths.nbytes
        self._flush_if_due()

    def fail(self, name: str, reason: str) -> None:
        """Note that an image could not be read, and why."""
        self._failures[check_name(name)] = reason
        self._flush_if_due()

    def remove(self, name: str) -> None:
        """Forget an image of an earlier part."""
        self._removed.append(name)

    def _flush_if_due(self) -> None:
        if self._bytes >= self._part_bytes or time.monotonic() - self._begun > self._part_seconds:
            self.flush()

    def flush(self) -> None:
        """Close the part in hand; after this its images are durable. An empty set still gets its first part."""
        if not (self._names or self._failures or self._removed) and self._next > 0:
            return
        name = f"part-{self._next:06d}.h5"
        with storage_errors(self.path / name, "write the part"):
            self._write(self._folder.temporary(name))
        self._folder.publish(name)
        self._folder.sync()
        self._next += 1
        self._clear()

    def _clear(self) -> None:
        self._names: dict[str, Features] = {}
        self._sources: list[Source] = []
        self._failures: dict[str, str] = {}
        self._removed: list[str] = []
        self._bytes, self._begun = 0, time.monotonic()

    def _write(self, path: Path) -> None:
        images = list(self._names.values())
        dtype = images[0].descriptors.dtype if images else np.dtype(np.float16)
        counts = [len(image) for image in images]
        with h5py.File(path, "w", libver="latest") as file:
            file.attrs["kind"], file.attrs["format"] = KIND, FORMAT
            file.attrs["recipe"], file.attrs["images_root"] = self.recipe.to_json(), self.images_root
            file["offsets"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            file["descriptors"] = _joined([i.descriptors.astype(dtype) for i in images], (0, self.dim), dtype)
            file["keypoints"] = _joined([i.keypoints for i in images], (0, 3), np.float32)
            file["strengths"] = _joined([i.strengths for i in images], (0,), np.float32)
            file["image_sizes"] = np.array([i.image_size for i in images], np.int32).reshape(-1, 2)
            sources = [(s.size, s.mtime, s.fingerprint) for s in self._sources]
            file["sources"] = np.array(sources, np.uint64).reshape(-1, 3)
            for key, texts in self._texts().items():
                file.create_dataset(key, data=np.array(texts, object), dtype=_TEXT, shape=(len(texts),))

    def _texts(self) -> dict[str, list[str]]:
        return {
            "names": list(self._names),
            "failed_names": list(self._failures),
            "failed_reasons": list(self._failures.values()),
            "removed_names": self._removed,
        }


def _joined(arrays: list[np.ndarray], empty: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.concatenate(arrays).astype(dtype, copy=False) if arrays else np.zeros(empty, dtype)


def _fingerprint_features(features: Features) -> int:
    arrays = (features.descriptors, features.keypoints, features.strengths)
    return fingerprint_bytes(*(np.ascontiguousarray(array).tobytes() for array in arrays))
