"""Part files of a feature set: layout and reading.

part-000000.h5   attributes: kind, format, recipe, images_root
    names [I] text, offsets [I+1] int64, descriptors [T, D] float16 or float32, keypoints [T, 3] float32,
    strengths [T] float32 (the scores), image_sizes [I, 2] int32, sources [I, 3] uint64 (bytes, mtime in ns,
    fingerprint), failed_names [F] text, failed_reasons [F] text, removed_names [R] text,
    roots text (JSON: a list of folder and prefix), root_numbers [I] uint32 (1 for the first root, 0 for none),
    moved_names [M] text, moved_numbers [M] uint32 (images of earlier parts that were found below another root),
    failed_numbers [F] uint32 (the roots of the failed images)

Parts of early versions have no roots: there `images_root` is that of all images, or empty if unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from asmk_engine.errors import DamagedError, FormatError, NotFoundError
from asmk_engine.features.model import Features, check_features
from asmk_engine.images.roots import UNKNOWN, Root
from asmk_engine.recipes import Recipe
from asmk_engine.storage.folder import Folder
from asmk_engine.storage.hdf5 import open_hdf5

KIND = "asmk-engine features"
FORMAT = 1
PART_NAME = re.compile(r"part-(\d{6,})\.h5")


@dataclass(frozen=True)
class Part:
    """The contents of a part file except the features."""

    path: Path
    names: list[str]
    offsets: np.ndarray
    image_sizes: np.ndarray
    sources: np.ndarray
    failures: dict[str, str]
    removed: list[str]
    recipe: Recipe
    roots: tuple[Root, ...]
    root_numbers: np.ndarray
    moved: dict[str, Root]
    failed_below: dict[str, Root]
    dim: int
    dtype: np.dtype


def part_names(path: Path) -> list[str]:
    """Return the names of the part files in a folder, oldest first."""
    found = [name for name in Folder(path).names() if PART_NAME.fullmatch(name)]
    return sorted(found, key=lambda name: int(name[5:-3]))


def images_of_part(part: Part, rows: list[tuple[str, int]]) -> Iterator[tuple[str, Features]]:
    """Yield names and features of some rows of a part, which are read in one go."""
    with OpenedPart(part.path) as file:
        first, last = int(part.offsets[rows[0][1]]), int(part.offsets[rows[-1][1] + 1])
        descriptors, keypoints, scores = (file[key][first:last] for key in ("descriptors", "keypoints", "strengths"))
    for name, row in rows:
        yield name, read_features(part, row, descriptors, keypoints, scores, first)


def read_features(part: Part, row: int, descriptors: Any, keypoints: Any, scores: Any, first: int) -> Features:
    """Return the features of one row; the arrays start at feature number `first` of the part."""
    begin, end = int(part.offsets[row]) - first, int(part.offsets[row + 1]) - first
    width, height = (int(side) for side in part.image_sizes[row])
    found = Features(descriptors[begin:end], keypoints[begin:end], scores[begin:end], (width, height))
    check_features(f"{part.path}: {part.names[row]}", found, part.dim)
    return found


class OpenedPart:
    """A part file opened for reading; errors of HDF5 become DamagedError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> h5py.File:
        if not self._path.exists():
            raise NotFoundError(f"{self._path}: no such file; run extract again")
        try:
            self._file = open_hdf5(self._path)
        except OSError as error:
            raise _damaged(self._path, error) from None
        return self._file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if isinstance(error, OSError | KeyError | ValueError | TypeError | RuntimeError | AttributeError):
            raise _damaged(self._path, error) from None


def _damaged(path: Path, error: BaseException) -> DamagedError:
    return DamagedError(
        f"{path}: not a complete feature part ({' '.join(str(error).split())[:120]}); "
        "remove this file and run extract again: only its images are extracted again"
    )


def read_part(path: Path) -> Part:
    """Read a part file except its features.

    Raises DamagedError if it is inconsistent, FormatError if it is something else.
    """
    with OpenedPart(path) as file:
        if file.attrs.get("kind") != KIND:
            raise FormatError(
                f"{path}: not a part of a feature set; to import features of hloc use `asmk-engine import`"
            )
        if int(file.attrs["format"]) != FORMAT:
            raise FormatError(f"{path}: feature format {file.attrs['format']}, this version reads format {FORMAT}")
        _check_plausible(file, path)
        part = Part(
            path=path,
            names=_texts(file["names"]),
            offsets=file["offsets"][:],
            image_sizes=file["image_sizes"][:],
            sources=file["sources"][:],
            failures=dict(zip(_texts(file["failed_names"]), _texts(file["failed_reasons"]), strict=True)),
            removed=_texts(file["removed_names"]),
            recipe=Recipe.from_json(str(file.attrs["recipe"]), path),
            **_read_roots(file),
            dim=int(file["descriptors"].shape[1]),
            dtype=file["descriptors"].dtype,
        )
        _check_part(part, file)
        return part


def write_roots(
    file: h5py.File, images: Sequence[Root], moved: Mapping[str, Root], failed: Sequence[Root], text: Any
) -> None:
    """Write the roots of the images, of moved images of earlier parts, and of failed images.

    images, failed  in the order of `names` and `failed_names`
    text            the HDF5 type of names
    Folders with names that are not UTF-8 are kept too: JSON escapes them.
    """
    table = [root for root in dict.fromkeys((*images, *moved.values(), *failed)) if root.is_known]
    numbers = {root: number for number, root in enumerate(table, start=1)}
    file["roots"] = json.dumps([[root.folder, root.prefix] for root in table])
    for key, roots in (("root_numbers", images), ("moved_numbers", moved.values()), ("failed_numbers", failed)):
        file[key] = np.array([numbers.get(root, 0) for root in roots], np.uint32)
    file.create_dataset("moved_names", data=np.array(list(moved), object), dtype=text, shape=(len(moved),))


def _read_roots(file: h5py.File) -> dict[str, Any]:
    if "roots" not in file:
        folder = str(file.attrs["images_root"])
        numbers = np.full(len(file["names"]), 1 if folder else 0, np.uint32)
        return {"roots": (Root(folder),) if folder else (), "root_numbers": numbers, "moved": {}, "failed_below": {}}
    roots = tuple(Root(str(folder), str(prefix)) for folder, prefix in json.loads(file["roots"].asstr()[()]))
    return {
        "roots": roots,
        "root_numbers": _numbers(file, "root_numbers", "names", roots),
        "moved": _named_roots(file, "moved_numbers", "moved_names", roots),
        "failed_below": _named_roots(file, "failed_numbers", "failed_names", roots),
    }


def _numbers(file: h5py.File, key: str, names: str, roots: Sequence[Root]) -> np.ndarray:
    """Return the root numbers of some names. Raises ValueError if they are invalid."""
    numbers: np.ndarray = file[key][:]
    if numbers.dtype.kind != "u" or numbers.shape != file[names].shape or numbers.max(initial=0) > len(roots):
        raise ValueError(f"{key} refers to missing roots")
    return numbers


def _named_roots(file: h5py.File, key: str, names: str, roots: Sequence[Root]) -> dict[str, Root]:
    found = (root_of(roots, number) for number in _numbers(file, key, names, roots).tolist())
    return dict(zip(_texts(file[names]), found, strict=True))


def root_of(roots: Sequence[Root], number: int) -> Root:
    """Return the root with this number in a table; 0 is the unknown root."""
    return roots[number - 1] if number else UNKNOWN


def _check_plausible(file: h5py.File, path: Path) -> None:
    """Check before reading that no dataset claims more bytes than the file has."""
    size = path.stat().st_size
    for name, dataset in file.items():
        if not isinstance(dataset, h5py.Dataset) or dataset.nbytes > size:
            raise ValueError(f"{name} claims more bytes than the file has")


def _check_part(part: Part, file: h5py.File) -> None:
    images, total = len(part.names), len(file["descriptors"])
    offsets = part.offsets
    whole = (
        offsets.shape == (images + 1,)
        and offsets[0] == 0
        and offsets[-1] == total
        and bool((np.diff(offsets) >= 0).all())
        and part.image_sizes.shape == (images, 2)
        and part.sources.shape == (images, 3)
        and file["keypoints"].shape in ((total, 3), (total, 4))
        and file["strengths"].shape == (total,)
        and part.dtype in (np.float16, np.float32)
    )
    if not whole:
        raise ValueError("its arrays contradict each other")


def _texts(dataset: h5py.Dataset) -> list[str]:
    return list(dataset.asstr()[:])
