"""Replacements for the numpy names in a pickle of arrays: they build arrays from checked copies of bytes.

numpy's own reconstruction trusts the shapes, types and flags in the pickle. These replacements accept only plain types
of a fixed size and check every shape against the actual number of bytes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from asmk_engine.errors import DamagedError, FormatError

READABLE = "only plain values and numpy arrays of numbers or text can be read: save it as those"

_PLAIN_TYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[SU][1-9][0-9]{0,8}")
_MOST_DIMENSIONS = 32
_LAST_CHARACTER = 0x10FFFF


class NdarrayName:
    """The name `numpy.ndarray`, which a pickle passes to the array functions but never calls."""


@dataclass
class PlainDtype:
    """A numeric or text dtype under construction: its type code, and its byte order once that was read."""

    code: str
    order: str = "="

    def build(self, state: Any) -> None:
        """Set the byte order from numpy's state tuple; fields, subarrays and metadata are refused."""
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise DamagedError("the state of a dtype is not what numpy writes")
        if any(part is not None for part in state[2:5]) or len(state) > 8:
            raise FormatError(f"holds an array of a structured dtype; {READABLE}")
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        """Return the numpy dtype."""
        return np.dtype(self.order + self.code)


@dataclass
class PendingArray:
    """An array whose shape, type and bytes follow later in the pickle."""

    memo_key: int | None = None


def announce_array(subtype: Any, shape: Any, code: Any) -> PendingArray:
    """Replace numpy's `_reconstruct`: return an empty array, filled by the state that follows."""
    if not isinstance(subtype, NdarrayName):
        raise DamagedError("an array has a type other than numpy.ndarray")
    return PendingArray()


def fill_array(state: Any) -> np.ndarray:
    """Replace `ndarray.__setstate__`: version, shape, dtype, whether column-major, bytes."""
    if not isinstance(state, tuple) or len(state) != 5:
        raise DamagedError("the state of an array is not the five values that numpy writes")
    _, shape, dtype, column_major, data = state
    return _array(data, dtype, shape, "F" if column_major else "C")


def array_from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    """Replace numpy's `_frombuffer`, used by protocol 5; order K comes with the axes of a transposition."""
    if order not in ("C", "F", "K"):
        raise DamagedError("an array has an order that is not C, F or K")
    array = _array(data, dtype, shape, "F" if order == "F" else "C")
    if order != "K" or axes is None:
        return array
    if not _whole_numbers(axes) or sorted(axes) != list(range(array.ndim)):
        raise DamagedError("the axes of a transposed array are not a permutation")
    return array.transpose(axes)


def scalar(dtype: Any, data: Any) -> Any:
    """Replace numpy's `scalar`: one number or text."""
    return _array(data, dtype, (1,), "C")[0]


def make_dtype(code: Any, align: Any = False, copy: Any = True) -> PlainDtype:
    """Replace `numpy.dtype`: plain numbers, bytes and text; arrays of Python objects are refused."""
    if not isinstance(code, str) or not _PLAIN_TYPE.fullmatch(code):
        found = repr(code[:40]) if isinstance(code, str) else "that is not a name"
        raise FormatError(f"holds an array of dtype {found}; {READABLE}")
    return PlainDtype(code)


def encode_text(text: Any, encoding: Any = None) -> bytes:
    """Replace `_codecs.encode`, with which protocols 0 to 2 write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise FormatError(f"encodes text in another way than pickles write bytes; {READABLE}")
    return text.encode("latin1")


def empty_bytes() -> bytes:
    """Replace the call `bytes()`, with which protocols 0 to 2 write empty bytes."""
    return b""


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    kind, content = _kind(dtype), _content(data)
    if not _whole_numbers(shape) or len(shape) > _MOST_DIMENSIONS or any(extent < 0 for extent in shape):
        raise DamagedError("an array has an invalid shape")
    if math.prod(shape) * kind.itemsize != len(content):
        raise DamagedError(f"the shape of an array of dtype {kind} does not fit its {len(content)} bytes")
    flat = np.frombuffer(content, dtype=kind) if content else np.zeros(0, dtype=kind)
    return _validated(flat).reshape(shape, order=order)


def _whole_numbers(value: Any) -> bool:
    return type(value) is tuple and all(type(number) is int for number in value)


def _kind(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, PlainDtype):
        raise DamagedError("an array has no dtype")
    return dtype.numpy()


def _content(data: Any) -> bytes | bytearray:
    if isinstance(data, list):
        raise FormatError(f"holds an array of Python objects; {READABLE}")
    if isinstance(data, str):  # bytes of Python 2
        return data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise DamagedError("an array has no bytes")
    return data


def _validated(flat: np.ndarray) -> np.ndarray:
    """Return a copy in native byte order in which every bit pattern is a valid value."""
    if flat.dtype.kind == "b":
        return flat.view(np.uint8) != 0
    if flat.dtype.kind == "U" and (flat.view(flat.dtype.byteorder + "u4") > _LAST_CHARACTER).any():
        raise DamagedError("an array of text has bytes that are not characters")
    return flat.astype(flat.dtype.newbyteorder("="))
