"""Validation of arguments: descriptors, words and image ids; the arrays of the caller are never changed."""

from __future__ import annotations

import numpy as np

from asmk_engine.errors import InputError, MismatchError


def check_descriptors(descriptors: object, dim: int | None = None) -> np.ndarray:
    """Return descriptors as contiguous [n, D] float32; raises InputError or MismatchError for other values."""
    array = np.asarray(descriptors)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"descriptors are {array.dtype} {array.shape}; expected floating point of shape [n, D]")
    if dim is not None and array.shape[1] != dim:
        raise MismatchError(f"descriptors have {array.shape[1]} dimensions, the codebook {dim}; use matching ones")
    if not np.isfinite(array).all():
        raise InputError("a descriptor is NaN or infinite; every value must be finite")
    return np.ascontiguousarray(array, np.float32)


def check_words(words: object, rows: int, vocabulary: int) -> np.ndarray:
    """Return words of descriptors as [n, k] int32, each below `vocabulary`; raises InputError for other values."""
    array = np.asarray(words)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or len(array) != rows or array.dtype.kind not in "iu":
        raise InputError(f"words are {array.dtype} {array.shape}; expected whole numbers of shape [{rows}, k]")
    check_range(array, vocabulary, "a word", f"the codebook has {vocabulary}")
    return np.ascontiguousarray(array, np.int32)


def check_image_ids(ids: object, rows: int) -> np.ndarray:
    """Return image ids as [n] int64, at least 0, one per descriptor; raises InputError for other values."""
    array = np.asarray(ids)
    if array.shape != (rows,) or (array.dtype.kind not in "iu" and array.size):
        raise InputError(f"image ids are {array.dtype} {array.shape}; expected {rows} whole numbers, one per row")
    check_range(array, 1 << 31, "an image id", "ids are below 2147483648")
    return array.astype(np.int64)


def check_range(numbers: np.ndarray, end: int, what: str, reason: str) -> None:
    """Raise InputError unless all numbers are from 0 to `end` - 1."""
    if numbers.size and (numbers.min() < 0 or numbers.max() >= end):
        worst = numbers.min() if numbers.min() < 0 else numbers.max()
        raise InputError(f"{what} is {worst}; it must be at least 0, and {reason}")
