"""Messages between a process and its children: one JSON object and plain arrays, so that nothing read is executed."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

_LENGTH = struct.Struct("<Q")
_MOST_BYTES = 1 << 31


def send(stream: BinaryIO, content: dict[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
    """Write one message: the length of the JSON, the JSON, the bytes of the arrays."""
    described = [[array.dtype.str, list(array.shape)] for array in arrays]
    text = json.dumps({**content, "arrays": described}).encode()
    for data in (_LENGTH.pack(len(text)), text, *(array.tobytes() for array in arrays)):
        stream.write(data)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Read one message. Raises EOFError if the other side is gone, ValueError if the message is invalid."""
    (length,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    content = json.loads(_read(stream, length))
    arrays = []
    for dtype, shape in content.pop("arrays"):
        kind = np.dtype(dtype)
        data = _read(stream, kind.itemsize * int(np.prod(shape, dtype=np.int64)))
        arrays.append(np.frombuffer(data, kind).reshape(shape))
    return content, arrays


def _read(stream: BinaryIO, count: int) -> bytes:
    if not 0 <= count <= _MOST_BYTES:
        raise ValueError(f"a message of {count} bytes")
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data
