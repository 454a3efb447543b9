"""Array files: named arrays in one file of the safetensors layout, mapped read-only.

The layout is 8 bytes of header length, a JSON header, and the arrays back to back without holes. Wider items come
first and the header is padded, so that every array is aligned. The last array, `checksums`, holds the crc32 of each
MiB of everything before it. Any safetensors reader can open the files; nothing in them can execute.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asmk_engine.errors import DamagedError
from asmk_engine.store import Folder

BLOCK = 1 << 20
ALIGNMENT = 64
MAX_HEADER = 1 << 20
CHECKSUMS = "checksums"
_DTYPES = {"U8": "u1", "U16": "<u2", "U32": "<u4", "I32": "<i4", "I64": "<i8", "U64": "<u8", "F16": "<f2",
           "F32": "<f4", "F64": "<f8"}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}


@dataclass(frozen=True)
class ArrayFile:
    """The arrays of a mapped file.

    arrays     name → read-only array over the mapped bytes
    metadata   name → text, as it was written
    size       bytes of the file
    """

    path: Path
    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]
    size: int
    data: memoryview

    def take(self, name: str, dtype: str, *shape: int | None) -> np.ndarray:
        """The array `name`, or DamagedError unless it has this dtype and shape (None: any length)."""
        array = self.arrays.get(name)
        if array is None:
            raise DamagedError(f"{self.path}: holds no array {name!r}; the file is of another kind or was altered")
        fits = len(array.shape) == len(shape) and all(w in (None, h) for w, h in zip(shape, array.shape, strict=True))
        if array.dtype != np.dtype(dtype) or not fits:
            wanted = ", ".join("any" if side is None else str(side) for side in shape)
            raise DamagedError(f"{self.path}: {name} is {array.dtype} {array.shape}, expected {dtype} ({wanted})")
        return array

    def verify(self) -> None:
        """Compare the checksum of every block; DamagedError names the first block that was altered."""
        end = self.size - self.arrays[CHECKSUMS].nbytes
        wanted = self.arrays[CHECKSUMS].tobytes()
        for number, (begin, block) in enumerate(_blocks(self.data, end)):
            if zlib.crc32(block) != int.from_bytes(wanted[4 * number : 4 * number + 4], "little"):
                raise DamagedError(f"{self.path}: bytes {begin} to {begin + len(block)} were altered; restore a copy")


def _blocks(data: memoryview, end: int) -> Iterator[tuple[int, memoryview]]:
    for begin in range(0, end, BLOCK):
        yield begin, data[begin : min(begin + BLOCK, end)]


def write_arrays(folder: Folder, name: str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> int:
    """Write arrays and their checksums as the new file `name` of the folder; returns the crc32 of the checksums."""
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))
    total = sum(array.nbytes for _, array in ordered)
    header = _header(ordered, total, metadata)
    chunks = [memoryview(header)] + [_as_bytes(array) for _, array in ordered]
    checksums = _checksums(chunks)
    folder.write(name, [*chunks, checksums])
    return zlib.crc32(checksums)


def _as_bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _header(ordered: list[tuple[str, np.ndarray]], total: int, metadata: Mapping[str, str]) -> bytes:
    """The header's bytes; the number of checksums depends on its own length, so that is settled by repetition."""
    length = 0
    while True:
        blocks = math.ceil((length + total) / BLOCK)
        text = json.dumps(_entries(ordered, 4 * blocks, metadata), separators=(",", ":")).encode()
        padded = -(-(8 + len(text)) // ALIGNMENT) * ALIGNMENT
        if padded == length:
            return (padded - 8).to_bytes(8, "little") + text.ljust(padded - 8)
        length = padded


def _entries(
    ordered: list[tuple[str, np.ndarray]], checksum_bytes: int, metadata: Mapping[str, str]
) -> dict[str, object]:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    begin = 0
    for name, array in ordered:
        entries[name] = _entry(_NAMES[array.dtype], array.shape, begin, array.nbytes)
        begin += array.nbytes
    entries[CHECKSUMS] = _entry("U8", (checksum_bytes,), begin, checksum_bytes)
    return entries


def _entry(dtype: str, shape: tuple[int, ...], begin: int, size: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, begin + size]}


def _checksums(chunks: list[memoryview]) -> bytes:
    sums, running, filled = [], 0, 0
    for chunk in chunks:
        while len(chunk):
            piece = chunk[: BLOCK - filled]
            running, filled = zlib.crc32(piece, running), filled + len(piece)
            chunk = chunk[len(piece) :]
            if filled == BLOCK:
                sums.append(running)
                running, filled = 0, 0
    if filled:
        sums.append(running)
    return b"".join(value.to_bytes(4, "little") for value in sums)


def map_arrays(folder: Folder, name: str, checksum: int | None = None) -> ArrayFile:
    """Map a file of arrays; nothing is read but the header and the checksums.

    checksum  the crc32 of the checksums that the manifest knows, when there is one
    Raises NotFoundError, StorageError, or DamagedError when header, sizes and file contradict each other.
    """
    data = folder.map(name)
    path = folder.path / name
    begin, entries = _parse_header(data, path)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise DamagedError(f"{path}: the header is not understood; the file was altered")
    arrays = _views(data[begin:], entries, path)
    blocks = math.ceil((len(data) - arrays[CHECKSUMS].nbytes) / BLOCK) if CHECKSUMS in arrays else -1
    if blocks < 0 or arrays[CHECKSUMS].shape != (4 * blocks,) or arrays[CHECKSUMS].dtype != np.uint8:
        raise DamagedError(f"{path}: {blocks} blocks, but not as many checksums; the file was altered")
    if checksum is not None and zlib.crc32(arrays[CHECKSUMS].tobytes()) != checksum:
        raise DamagedError(f"{path}: not the file the manifest speaks of: its checksums differ; restore a copy")
    return ArrayFile(path, arrays, {str(k): str(v) for k, v in metadata.items()}, len(data), data)


def _parse_header(data: memoryview, path: Path) -> tuple[int, dict[str, object]]:
    length = int.from_bytes(data[:8], "little") if len(data) >= 8 else MAX_HEADER
    if length >= min(MAX_HEADER, len(data) - 7):
        raise DamagedError(f"{path}: {len(data)} bytes do not hold its header; the file was cut or is of another kind")
    try:
        entries = json.loads(bytes(data[8 : 8 + length]))
    except (ValueError, RecursionError):
        raise DamagedError(f"{path}: the header is not JSON; the file was altered or is of another kind") from None
    if not isinstance(entries, dict):
        raise DamagedError(f"{path}: the header is not understood; the file was altered")
    return 8 + length, entries


def _views(data: memoryview, entries: dict[str, object], path: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: _begin(item[1])):
        try:
            dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])  # type: ignore[index]
            begin, end = entry["data_offsets"]  # type: ignore[index]
        except (KeyError, TypeError, ValueError):
            raise DamagedError(f"{path}: the header's entry {name!r} is not understood; it was altered") from None
        plain = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
        if not plain or begin != position or end > len(data) or math.prod(shape) * dtype.itemsize != end - begin:
            raise DamagedError(f"{path}: the header's entry {name!r} contradicts the file; one of them was altered")
        arrays[name] = _view(data[begin:end], dtype, shape)
        position = end
    if position != len(data):
        raise DamagedError(f"{path}: {len(data) - position} bytes belong to no array; the file was altered")
    return arrays


def _begin(entry: object) -> int:
    try:
        begin, end = entry["data_offsets"]  # type: ignore[index]
        return 2 * int(begin) + (int(end) > int(begin))  # an empty array stands before the one that begins there
    except (KeyError, TypeError, ValueError):
        return -1


def _view(data: memoryview, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    array = np.frombuffer(data, dtype).reshape(shape) if len(data) else np.empty(shape, dtype)
    if not array.flags.aligned:
        array = array.copy()
    array.flags.writeable = False
    return array
