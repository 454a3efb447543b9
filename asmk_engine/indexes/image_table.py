"""The images of a segment of any kind: their names, fingerprints and roots, and which of them were deleted.

fingerprints [I] uint64      fingerprint of what each image was made from
name_bytes, name_offsets [I+1] int64, name_order [I] uint32   names in UTF-8, and their numbers in byte order
root_numbers [I] uint8, uint16 or uint32   in the table of roots of the manifest, 1 for the first and 0 for none;
                                           missing where no root is known
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
# Of so few images, or one of so many, names are read one by one: else nearly all of the table of names would be read
# and compared with its checksums anyway.
FEW_NAMES, FEW_NAMES_BITS = 16, 14
_NUMBERS = (np.uint8, np.uint16, np.uint32)


def table_of(name: str) -> functools.cached_property[np.ndarray]:
    """An array of the file, compared with its checksums when it is first asked for."""
    return functools.cached_property(lambda table: table.file.verified(name))


class ImageTable:
    """The images of a mapped segment.

    images   how many there are, numbered from 0
    deleted  [images] bool, or None when none was
    moved    [images] uint32: the numbers of the roots where images were found later, or None when none was
    prefix   what the names begin with beside what stands in the file; see `with_prefix`
    """

    prefix = b""
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
        """The same images, their maps and what was verified of them included, with a prefix before each name."""
        table = copy.copy(self)
        table.prefix = prefix
        return table

    def is_outlined(self) -> bool:
        """Whether the ends of the tables fit each other; this costs nothing at open."""
        whole = all(table is None or len(table) == self.images for table in (self.deleted, self.moved))
        return bool(self._name_offsets[-1] == len(self._name_bytes)) and whole

    @property
    def root_numbers(self) -> np.ndarray:
        """The root of each image, [images], as its number in the table of the manifest; 0 where none is known."""
        if self.moved is not None:
            return self.moved
        return self.file.verified(ROOTS) if ROOTS in self.file.arrays else np.zeros(self.images, np.uint8)

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    @property
    def live(self) -> int:
        """Images that are not deleted."""
        return self.images - (0 if self.deleted is None else int(np.count_nonzero(self.deleted)))

    def live_numbers(self) -> np.ndarray:
        """Numbers of the images that are not deleted, increasing, [live] int64."""
        return np.arange(self.images) if self.deleted is None else np.flatnonzero(~self.deleted)

    def name_as_bytes(self, number: int) -> bytes:
        """The UTF-8 bytes of the name of an image, prefix included."""
        self.file.verify_rows("name_offsets", number, number + 2)
        begin, end = int(self._name_offsets[number]), int(self._name_offsets[number + 1])
        if not 0 <= begin <= end <= len(self._name_bytes):
            raise DamagedError(f"{self.path}: the name of image {number} lies outside the file; it was altered")
        self.file.verify_rows("name_bytes", begin, end)
        return self.prefix + self._name_bytes[begin:end].tobytes()

    def names_as_bytes(self, numbers: np.ndarray) -> list[bytes]:
        """The names of images as UTF-8 bytes, [n] numbers; where there are many, many times as fast as one by one."""
        if len(numbers) <= max(FEW_NAMES, self.images >> FEW_NAMES_BITS):
            return [self.name_as_bytes(number) for number in numbers.tolist()]
        self.file.verified("name_offsets"), self.file.verified("name_bytes")
        begins, ends = self._name_offsets[numbers], self._name_offsets[numbers + 1]
        if (begins < 0).any() or (ends < begins).any() or (ends > len(self._name_bytes)).any():
            raise DamagedError(f"{self.path}: a name lies outside the file; it was altered")
        data = self._name_bytes.data
        names = [bytes(data[begin:end]) for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
        return [self.prefix + name for name in names] if self.prefix else names

    def name(self, number: int) -> str:
        """The name of an image; DamagedError when its bytes are no UTF-8."""
        try:
            return self.name_as_bytes(number).decode()
        except UnicodeDecodeError:
            raise DamagedError(f"{self.path}: the name of image {number} is not UTF-8; the file was altered") from None

    def find(self, wanted: Sequence[str]) -> np.ndarray:
        """The numbers of the images of these names, deleted or not, [n] int64; -1 for a name that is not there."""
        encoded = [name.encode("utf-8", "surrogatepass") for name in wanted]
        if not self.prefix:
            return self._find(encoded)
        places = [place for place, name in enumerate(encoded) if name.startswith(self.prefix)]
        numbers = np.full(len(encoded), -1, np.int64)
        numbers[places] = self._find([encoded[place].removeprefix(self.prefix) for place in places])
        return numbers

    def _find(self, encoded: Sequence[bytes]) -> np.ndarray:
        """As `find`, for names as they stand in the file."""
        offsets = np.concatenate([[0], np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))])
        joined = np.frombuffer(b"".join(encoded), np.uint8)
        numbers = np.empty(len(encoded), np.int64)
        tables = [self.file.verified(name) for name in ("name_bytes", "name_offsets", "name_order")]
        damaged = find_names(*tables, joined, offsets.astype(np.int64), numbers)
        if damaged >= 0:
            raise DamagedError(f"{self.path}: place {damaged} of its table of names contradicts it; it was altered")
        return numbers

    def names(self) -> Iterator[str]:
        """Names of the images that are not deleted, by number."""
        self.file.verified("name_offsets"), self.file.verified("name_bytes")
        return (self.name(int(number)) for number in self.live_numbers())


def name_arrays(names: Sequence[bytes], roots: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The arrays of the names and roots of a segment, as its file calls them; InputError for a name given twice.

    roots  [I], the number of the root of each image; left out where none is known
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
