"""The image table of a segment of any kind: names, fingerprints, roots and deletions.

fingerprints [I] uint64      fingerprint of the content of each image
name_bytes [B] uint8, name_offsets [I+1] int64   names in UTF-8
name_order [I] uint32        image numbers in byte order of the names
root_numbers [I] uint8, uint16 or uint32   numbers in the root table of the manifest, from 1, 0 for none;
                                           missing if no root is known
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from asmk_engine.errors import DamagedError, InputError
from asmk_engine.kernels.names import find_names
from asmk_engine.storage.arrays import ArrayFile

ROOTS = "root_numbers"
MAX_IMAGES = 1 << 31
"""A segment holds fewer images than this."""
# Up to this number of names, or this fraction of the images (2 ** -bits), are read one by one: for more, nearly the
# whole name table would be read and compared with its checksums anyway.
FEW_NAMES, FEW_NAMES_BITS = 16, 14
_NUMBERS = (np.uint8, np.uint16, np.uint32)


def table_of(name: str) -> functools.cached_property[np.ndarray]:
    """Return a property for an array of the file, which is compared with its checksums on first access."""
    return functools.cached_property(lambda table: table.file.verified(name))


class ImageTable:
    """The images of a mapped segment.

    images   number of images, numbered from 0
    deleted  [images] bool, or None if no image was deleted
    moved    [images] uint32, root numbers that replace those in the file, or None if no image was found elsewhere
    prefix   prepended to the names in the file, see `with_prefix`
    geometry_file  the geometry of the features, if the segment has it
    """

    prefix = b""
    geometry_file: ArrayFile | None = None
    fingerprints = table_of("fingerprints")
    name_order = table_of("name_order")

    def __init__(
        self, file: ArrayFile, images: int, deleted: np.ndarray | None, moved: np.ndarray | None = None
    ) -> None:
        self.file = file
        self.images = images
        self.deleted = deleted
        self.moved = moved
        file.take("fingerprints", "u8", images)
        self._name_bytes = file.take("name_bytes", "u1", None)
        self._name_offsets = file.take("name_offsets", "i8", images + 1)
        file.take("name_order", "u4", images)
        if ROOTS in file.arrays:
            kind = file.arrays[ROOTS].dtype
            file.take(ROOTS, kind.str if kind in _NUMBERS else "u4", images)

    def with_prefix(self, prefix: bytes) -> Self:
        """Return a table of the same images, sharing maps and verified checksums, with a prefix before each name."""
        table = copy.copy(self)
        table.prefix = prefix
        return table

    def is_outlined(self) -> bool:
        """Return whether the lengths of the tables match; costs nothing when the index is opened."""
        whole = all(table is None or len(table) == self.images for table in (self.deleted, self.moved))
        return bool(self._name_offsets[-1] == len(self._name_bytes)) and whole

    @property
    def root_numbers(self) -> np.ndarray:
        """The root number of each image in the table of the manifest, [images]; 0 for none."""
        if self.moved is not None:
            return self.moved
        return self.file.verified(ROOTS) if ROOTS in self.file.arrays else np.zeros(self.images, np.uint8)

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.file.path

    @property
    def live(self) -> int:
        """Number of images that are not deleted."""
        return self.images - (0 if self.deleted is None else int(np.count_nonzero(self.deleted)))

    def live_numbers(self) -> np.ndarray:
        """Return the numbers of the images that are not deleted, increasing, [live] int64."""
        return np.arange(self.images) if self.deleted is None else np.flatnonzero(~self.deleted)

    def name_as_bytes(self, number: int) -> bytes:
        """Return the name of an image in UTF-8, with the prefix."""
        self.file.verify_rows("name_offsets", number, number + 2)
        begin, end = int(self._name_offsets[number]), int(self._name_offsets[number + 1])
        if not 0 <= begin <= end <= len(self._name_bytes):
            raise DamagedError(f"{self.path}: the name of image {number} is outside the file, which was altered")
        self.file.verify_rows("name_bytes", begin, end)
        return self.prefix + self._name_bytes[begin:end].tobytes()

    def names_as_bytes(self, numbers: np.ndarray) -> list[bytes]:
        """Return the names of the images `numbers` [n] in UTF-8; for many, much faster than `name_as_bytes`."""
        if len(numbers) <= max(FEW_NAMES, self.images >> FEW_NAMES_BITS):
            return [self.name_as_bytes(number) for number in numbers.tolist()]
        self.file.verified("name_offsets"), self.file.verified("name_bytes")
        begins, ends = self._name_offsets[numbers], self._name_offsets[numbers + 1]
        if (begins < 0).any() or (ends < begins).any() or (ends > len(self._name_bytes)).any():
            raise DamagedError(f"{self.path}: the name of an image is outside the file, which was altered")
        data = self._name_bytes.data
        names = [bytes(data[begin:end]) for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
        return [self.prefix + name for name in names] if self.prefix else names

    def name(self, number: int) -> str:
        """Return the name of an image; raises DamagedError if it is not UTF-8."""
        try:
            return self.name_as_bytes(number).decode()
        except UnicodeDecodeError:
            raise DamagedError(f"{self.path}: the name of image {number} is not UTF-8; the file was altered") from None

    def find(self, wanted: Sequence[str]) -> np.ndarray:
        """Return the numbers of the images with these names, deleted or not, [n] int64; -1 for an unknown name."""
        encoded = [name.encode("utf-8", "surrogatepass") for name in wanted]
        if not self.prefix:
            return self._find(encoded)
        places = [place for place, name in enumerate(encoded) if name.startswith(self.prefix)]
        numbers = np.full(len(encoded), -1, np.int64)
        numbers[places] = self._find([encoded[place].removeprefix(self.prefix) for place in places])
        return numbers

    def _find(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Do `find` for names as stored in the file."""
        offsets = np.concatenate([[0], np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))])
        joined = np.frombuffer(b"".join(encoded), np.uint8)
        numbers = np.empty(len(encoded), np.int64)
        tables = [self.file.verified(name) for name in ("name_bytes", "name_offsets", "name_order")]
        damaged = find_names(*tables, joined, offsets.astype(np.int64), numbers)
        if damaged >= 0:
            raise DamagedError(f"{self.path}: entry {damaged} of name_order is inconsistent; the file was altered")
        return numbers

    def names(self) -> Iterator[str]:
        """Iterate over the names of the images that are not deleted, by number."""
        self.file.verified("name_offsets"), self.file.verified("name_bytes")
        return (self.name(int(number)) for number in self.live_numbers())


def name_arrays(names: Sequence[bytes], roots: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of names and roots as stored in a segment; raises InputError for a duplicate name.

    roots  [I], root number of each image, or None; the array is left out if no root is known
    """
    order = sorted(range(len(names)), key=names.__getitem__)
    if any(names[one] == names[other] for one, other in itertools.pairwise(order)):
        raise InputError("two images of one segment have the same name; names must be unique")
    lengths = np.fromiter(map(len, names), np.int64, len(names))
    known = {} if roots is None or not roots.any() else {ROOTS: roots.astype(np.min_scalar_type(roots.max()))}
    return {
        **known,
        "name_bytes": np.frombuffer(b"".join(names), np.uint8),
        "name_offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "name_order": np.array(order, np.uint32),
    }


def joined_names(tables: Sequence[ImageTable]) -> list[bytes]:
    """Return the names of the live images of all tables, in order."""
    return [name for table in tables for name in table.names_as_bytes(table.live_numbers())]


def joined_facts(tables: Sequence[ImageTable]) -> tuple[np.ndarray, np.ndarray]:
    """Return the fingerprints and the root numbers of the live images of all tables, in order."""
    live = [table.live_numbers() for table in tables]
    prints = [table.fingerprints[numbers] for table, numbers in zip(tables, live, strict=True)]
    roots = [table.root_numbers[numbers] for table, numbers in zip(tables, live, strict=True)]
    return np.concatenate(prints), np.concatenate(roots)
