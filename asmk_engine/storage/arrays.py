"""Array files: named arrays in one file of the safetensors layout, mapped read-only.

The layout is 8 bytes of header length, a JSON header, and the arrays, contiguous. Wider items come first and the header
is padded, so that every array is aligned. The last array, `checksums`, holds the crc32 of each MiB of everything before
it; a MiB is verified when anything in it is first accessed. Any safetensors reader can open the files; nothing in them
can execute.
"""

from __future__ import annotations

import contextlib
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

from asmk_engine import threads
from asmk_engine.errors import DamagedError, InputError
from asmk_engine.storage import system
from asmk_engine.storage.folder import TEMPORARY, Folder, storage_errors

BLOCK = 1 << 20
TASK = 16 * BLOCK  # bytes that a thread checks at a time
ALIGNMENT = 64
MAX_HEADER = 1 << 20
CHECKSUMS = "checksums"
_DTYPES = {"U8": "u1", "U16": "<u2", "U32": "<u4", "I32": "<i4", "I64": "<i8", "U64": "<u8", "F16": "<f2",
           "F32": "<f4", "F64": "<f8"}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}


class Blocks:
    """The blocks of a mapped file, each verified against its checksum on first access.

    data  the bytes with checksums
    sums  one crc32, little-endian uint32, for each MiB of `data`
    """

    def __init__(self, path: Path, data: memoryview, sums: bytes) -> None:
        self._path, self._data, self._sums = path, data, sums
        self._compared = bytearray(len(sums) // 4)
        self._left = len(self._compared)
        self._count()

    def _count(self) -> None:
        """Count the unverified blocks before each block; the last count is that of all blocks."""
        self._before = np.concatenate([[0], np.cumsum(np.frombuffer(self._compared, np.uint8) == 0)])
        self._left = int(self._before[-1])

    @property
    def whole(self) -> bool:
        """Whether every block was verified."""
        return not self._left

    def check(self, begin: int, end: int) -> None:
        """Verify the not yet verified blocks of bytes `begin` to `end`. Raises DamagedError for an altered one."""
        if self._left and begin < end:
            first, last = max(begin, 0) // BLOCK, min(-(-end // BLOCK), len(self._compared))
            if 0 in self._compared[first:last]:
                self._compare(number for number in range(first, last) if not self._compared[number])

    def check_many(self, begins: np.ndarray, ends: np.ndarray) -> None:
        """Apply `check` to many spans of bytes at once, [n] int64 each."""
        if not self._left:
            return
        first, last = begins // BLOCK, -(-ends // BLOCK)
        due = (self._before.take(last, mode="clip") > self._before.take(first, mode="clip")) & (begins < ends)
        if due.any():
            wanted = np.zeros(len(self._compared) + 1, np.int64)
            np.add.at(wanted, np.clip(first[due], 0, len(wanted) - 1), 1)
            np.add.at(wanted, np.clip(last[due], 0, len(wanted) - 1), -1)
            touched = np.flatnonzero(np.cumsum(wanted)[:-1])
            self._compare(number for number in touched.tolist() if not self._compared[number])

    def check_all(self) -> None:
        """Verify every block, even if verified before."""
        altered = np.flatnonzero(_checksums(self._data, len(self._data)) != np.frombuffer(self._sums, "<u4"))
        if len(altered):
            raise self._altered(int(altered[0]))
        self._compared = bytearray([1]) * len(self._compared)
        self._count()

    def preload(self) -> None:
        """Read the whole file into memory, see `system.preload`."""
        system.preload(self._data)

    def _compare(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            block = self._data[number * BLOCK : (number + 1) * BLOCK]
            if zlib.crc32(block) != int.from_bytes(self._sums[4 * number : 4 * number + 4], "little"):
                raise self._altered(number)
            self._compared[number] = 1
        self._count()

    def _altered(self, number: int) -> DamagedError:
        begin, end = number * BLOCK, min((number + 1) * BLOCK, len(self._data))
        return DamagedError(f"{self._path}: bytes {begin} to {end} were altered; restore a copy")


@dataclass(frozen=True)
class ArrayFile:
    """The arrays of a mapped file.

    arrays    name → read-only array over the mapped bytes
    metadata  name → text
    size      bytes of the file
    begins    name → offset of the array in the file, in bytes
    blocks    verifies checksums; None for a file without them
    """

    path: Path
    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]
    size: int
    begins: dict[str, int] = field(default_factory=dict)
    blocks: Blocks | None = None

    def take(self, name: str, dtype: str, *shape: int | None) -> np.ndarray:
        """Return the array `name`. Raises DamagedError unless it has this dtype and shape (None: any length).

        Its content is not verified: see `verified` and `verify_rows`.
        """
        array = self.arrays.get(name)
        if array is None:
            raise DamagedError(f"{self.path}: holds no array {name!r}; the file is of another kind or was altered")
        fits = len(array.shape) == len(shape) and all(w in (None, h) for w, h in zip(shape, array.shape, strict=True))
        if array.dtype != np.dtype(dtype) or not fits:
            wanted = ", ".join("any" if side is None else str(side) for side in shape)
            raise DamagedError(f"{self.path}: {name} is {array.dtype} {array.shape}, expected {dtype} ({wanted})")
        return array

    def verified(self, name: str) -> np.ndarray:
        """Return the array `name` after verifying its checksums. Raises DamagedError if it was altered."""
        array = self.arrays[name]
        if self.blocks is not None:
            self.blocks.check(self.begins[name], self.begins[name] + array.nbytes)
        return array

    def verify_rows(self, name: str, begin: int, end: int) -> None:
        """Verify rows `begin` to `end` (exclusive) of an array. Raises DamagedError if any was altered."""
        if self.blocks is not None:
            first, size = self.begins[name], self._row_bytes(name)
            self.blocks.check(first + begin * size, first + end * size)

    def verify_spans(self, name: str, begins: np.ndarray, ends: np.ndarray) -> None:
        """Apply `verify_rows` to many spans of rows at once, [n] int64 each; cheap for rows verified before."""
        if self.blocks is not None:
            first, size = self.begins[name], self._row_bytes(name)
            self.blocks.check_many(first + begins * size, first + ends * size)

    def verify(self) -> None:
        """Verify every block, even if verified before. Raises DamagedError that names the first altered one."""
        if self.blocks is not None:
            self.blocks.check_all()

    def preload(self) -> None:
        """Read the whole file into memory, if the system supports it."""
        if self.blocks is not None:
            self.blocks.preload()

    def _row_bytes(self, name: str) -> int:
        array = self.arrays[name]
        return array.itemsize * math.prod(array.shape[1:])


@dataclass(frozen=True)
class SharedArrays(ArrayFile):
    """The arrays of a mapped file together with those of another, which several files share.

    `verify` and `preload` apply to the file itself.

    shared  the other file; its arrays win over equal names
    """

    shared: ArrayFile | None = None

    @classmethod
    def of(cls, file: ArrayFile, shared: ArrayFile) -> SharedArrays:
        """Join a file with another one."""
        arrays = {**file.arrays, **shared.arrays}
        return cls(file.path, arrays, file.metadata, file.size, file.begins, file.blocks, shared)

    def verified(self, name: str) -> np.ndarray:
        """See `ArrayFile.verified`."""
        holder = self._holder(name)
        return super().verified(name) if holder is None else holder.verified(name)

    def verify_rows(self, name: str, begin: int, end: int) -> None:
        """See `ArrayFile.verify_rows`."""
        holder = self._holder(name)
        super().verify_rows(name, begin, end) if holder is None else holder.verify_rows(name, begin, end)

    def verify_spans(self, name: str, begins: np.ndarray, ends: np.ndarray) -> None:
        """See `ArrayFile.verify_spans`."""
        holder = self._holder(name)
        super().verify_spans(name, begins, ends) if holder is None else holder.verify_spans(name, begins, ends)

    def _holder(self, name: str) -> ArrayFile | None:
        """Return the other file if the array is one of it, else None."""
        return self.shared if self.shared is not None and name in self.shared.arrays else None


def _checksums(data: memoryview, end: int) -> np.ndarray:
    """Return the crc32 of each MiB of the first `end` bytes, [blocks] little-endian uint32, computed by all threads."""

    def checked(begin: int) -> list[int]:
        places = range(begin, min(begin + TASK, end), BLOCK)
        return [zlib.crc32(data[place : min(place + BLOCK, end)]) for place in places]

    found = threads.run(checked, range(0, end, TASK), threads.available_threads())
    return np.array([checksum for some in found for checksum in some], "<u4")


def write_arrays(folder: Folder, name: str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> int:
    """Write arrays and their checksums as the new file `name` of the folder; return the crc32 of the checksums."""
    shapes = {key: (array.dtype, array.shape) for key, array in arrays.items()}
    with ArrayWriter(folder, name, shapes, metadata) as writer:
        for key, array in arrays.items():
            writer.write(key, 0, array)
        return writer.finish()


class ArrayWriter:
    """Writes a file of arrays whose shapes are known in advance, piece by piece and in any order.

    Use it as a context manager; the final name appears only at `finish`.
    """

    def __init__(
        self,
        folder: Folder,
        name: str,
        shapes: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
        metadata: Mapping[str, str],
    ) -> None:
        ordered = sorted(shapes.items(), key=lambda item: (-item[1][0].itemsize, item[0]))
        self._shapes = dict(shapes)
        self._folder, self._name = folder, name
        self._header, self._checksums = _header(ordered, metadata)
        if len(self._header) > MAX_HEADER:
            raise InputError(
                f"{folder.path / name}: its header takes {len(self._header)} bytes, the limit is {MAX_HEADER}; "
                "shorten the training notes of the codebook or the options of its recipe"
            )
        self._begins: dict[str, int] = {}
        self._end = len(self._header)
        for key, (dtype, shape) in ordered:
            self._begins[key] = self._end
            self._end += math.prod(shape) * dtype.itemsize

    def __enter__(self) -> ArrayWriter:
        self._file = self._folder.create(self._name)
        try:
            self._put(0, self._header)
            with storage_errors(self._folder.path / self._name, "write the file"):
                system.resize(self._file, self._end + self._checksums)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # an error in closing follows a more specific one in writing
            system.close(self._file)
        self._folder.remove_unfinished(self._name)

    def write(self, key: str, row: int, rows: np.ndarray) -> None:
        """Write some rows of the array `key`, starting at row number `row`."""
        dtype, shape = self._shapes[key]
        size = dtype.itemsize * math.prod(shape[1:])
        self._put(self._begins[key] + row * size, np.ascontiguousarray(rows, dtype).reshape(-1).view(np.uint8).data)

    def finish(self) -> int:
        """Add the checksums, sync, and give the file its name; return the crc32 of the checksums."""
        sums = self._block_sums()
        self._put(self._end, sums)
        with storage_errors(self._folder.path / self._name, "write the file"):
            system.close(self._file)
        self._folder.publish(self._name)
        return zlib.crc32(sums)

    def _put(self, place: int, data: bytes | memoryview) -> None:
        with storage_errors(self._folder.path / self._name, "write the file"):
            system.write(self._file, place, data)

    def _block_sums(self) -> bytes:
        with self._folder.map(f"{self._name}{TEMPORARY}") as data:
            return _checksums(data, self._end).tobytes()


Shapes = list[tuple[str, tuple[np.dtype, tuple[int, ...]]]]


def _header(ordered: Shapes, metadata: Mapping[str, str]) -> tuple[bytes, int]:
    """Return the header and the size of the checksums; each depends on the other, so iterate until both are stable."""
    total = sum(math.prod(shape) * dtype.itemsize for _, (dtype, shape) in ordered)
    length = 0
    while True:
        checksums = 4 * math.ceil((length + total) / BLOCK)
        text = json.dumps(_entries(ordered, checksums, metadata), separators=(",", ":")).encode()
        padded = -(-(8 + len(text)) // ALIGNMENT) * ALIGNMENT
        if padded == length:
            return (padded - 8).to_bytes(8, "little") + text.ljust(padded - 8), checksums
        length = padded


def _entries(ordered: Shapes, checksum_bytes: int, metadata: Mapping[str, str]) -> dict[str, object]:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    begin = 0
    for name, (dtype, shape) in ordered:
        size = math.prod(shape) * dtype.itemsize
        entries[name] = _entry(_NAMES[dtype], shape, begin, size)
        begin += size
    entries[CHECKSUMS] = _entry("U8", (checksum_bytes,), begin, checksum_bytes)
    return entries


def _entry(dtype: str, shape: tuple[int, ...], begin: int, size: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, begin + size]}


def map_arrays(folder: Folder, name: str, checksum: int | None = None, *, plain: bool = False) -> ArrayFile:
    """Map a file of arrays; only the checksums and the blocks of the header are read.

    checksum  the crc32 of the checksums from the manifest, if there is one
    plain     accept a safetensors file of another program too, which has no checksums
    Raises NotFoundError or StorageError, and DamagedError if header, sizes and file contradict each other.
    """
    data = folder.map(name)
    path = folder.path / name
    begin, entries = _parse_header(data, path)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise DamagedError(f"{path}: the header is not understood; the file was altered")
    arrays, places = _views(data[begin:], entries, path)
    text = {str(key): str(value) for key, value in metadata.items()}
    begins = {name: begin + place for name, place in places.items()}
    if plain and CHECKSUMS not in arrays:
        return ArrayFile(path, arrays, text, len(data), begins)
    blocks = math.ceil((len(data) - arrays[CHECKSUMS].nbytes) / BLOCK) if CHECKSUMS in arrays else -1
    if blocks < 0 or arrays[CHECKSUMS].shape != (4 * blocks,) or arrays[CHECKSUMS].dtype != np.uint8:
        raise DamagedError(f"{path}: {blocks} blocks, but not as many checksums; the file was altered")
    sums = arrays[CHECKSUMS].tobytes()
    if checksum is not None and zlib.crc32(sums) != checksum:
        raise DamagedError(f"{path}: not the file that the manifest names: its checksums differ; restore a copy")
    checks = Blocks(path, data[: len(data) - len(sums)], sums)
    checks.check(0, begin)
    return ArrayFile(path, arrays, text, len(data), begins, checks)


def _parse_header(data: memoryview, path: Path) -> tuple[int, dict[str, object]]:
    length = int.from_bytes(data[:8], "little") if len(data) >= 8 else MAX_HEADER
    if length >= min(MAX_HEADER, len(data) - 7):
        raise DamagedError(f"{path}: {len(data)} bytes do not hold its header; the file was cut or is another kind")
    try:
        entries = json.loads(bytes(data[8 : 8 + length]))
    except (ValueError, RecursionError):
        raise DamagedError(f"{path}: the header is not JSON; the file was altered or is of another kind") from None
    if not isinstance(entries, dict):
        raise DamagedError(f"{path}: the header is not understood; the file was altered")
    return 8 + length, entries


def _views(data: memoryview, entries: dict[str, object], path: Path) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Return the arrays and the offset of each."""
    arrays: dict[str, np.ndarray] = {}
    places: dict[str, int] = {}
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: _begin(item[1])):
        try:
            dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])  # type: ignore[index]
            begin, end = entry["data_offsets"]  # type: ignore[index]
        except (KeyError, TypeError, ValueError):
            raise DamagedError(f"{path}: the header's entry {name!r} is not understood; it was altered") from None
        plain = len(shape) <= 4 and all(type(n) is int and 0 <= n < 1 << 48 for n in (*shape, begin, end))
        if not plain or begin != position or end > len(data) or math.prod(shape) * dtype.itemsize != end - begin:
            raise DamagedError(f"{path}: the header's entry {name!r} contradicts the file; one of them was altered")
        arrays[name], places[name] = _view(data[begin:end], dtype, shape), begin
        position = end
    if position != len(data):
        raise DamagedError(f"{path}: {len(data) - position} bytes belong to no array; the file was altered")
    return arrays, places


def _begin(entry: object) -> int:
    try:
        begin, end = entry["data_offsets"]  # type: ignore[index]
        return 2 * int(begin) + (int(end) > int(begin))  # an empty array sorts before the one at the same offset
    except (KeyError, TypeError, ValueError, OverflowError):
        return -1


def _view(data: memoryview, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    array = np.frombuffer(data, dtype).reshape(shape) if len(data) else np.empty(shape, dtype)
    if not array.flags.aligned:
        array = array.copy()
    array.flags.writeable = False
    return array
