"""Signs packed into 32-bit words and Hamming distances between them, under the names of the original's compiled module.

A component is a bit, the first one the most significant of the first word; the last word is filled up with zeros. Any
number of components is taken, and nothing has to be compiled beforehand. Unlike the original, arrays of any layout and
of every floating-point type are taken.
"""

from __future__ import annotations

import math

import numpy as np

from asmk_engine import threads
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.kernels.hamming import hamming_table

_BITS = 32  # of a word
_TASK = 1 << 20  # 32-bit words that one task compares, about a millisecond


def binarize_and_pack(arr: np.ndarray, threshold: float = 0) -> np.ndarray:
    """One bit for each component greater than the threshold.

    Parameters
    ----------
    arr : numpy.ndarray, shape [D], floating point
        A component that is NaN gives 0.
    threshold : number, default 0

    Returns
    -------
    numpy.ndarray, shape [ceil(D / 32)], uint32

    Raises
    ------
    InputError
        For an array of another shape or type.

    Examples
    --------
    >>> binarize_and_pack(np.array([0.5, -0.5, 0.0, 0.1], np.float32))
    array([2415919104], dtype=uint32)
    """
    return pack_bits(_above(arr, threshold, 1)[None])[0]


def binarize_and_pack_2D(arr: np.ndarray, threshold: float = 0) -> np.ndarray:
    """The same for every row of an array.

    Parameters
    ----------
    arr : numpy.ndarray, shape [n, D], floating point
    threshold : number, default 0

    Returns
    -------
    numpy.ndarray, shape [n, ceil(D / 32)], uint32

    Raises
    ------
    InputError
        For an array of another shape or type.
    """
    return pack_bits(_above(arr, threshold, 2))


def hamming_dist_packed(n1: np.ndarray, n2: np.ndarray, normalization: float = 0) -> float:
    """The number of bits in which two packed codes differ, divided by `normalization`.

    Parameters
    ----------
    n1, n2 : numpy.ndarray, shape [W], uint32
    normalization : number, default 0
        Give the number of components; 0 divides by 32 W, so that the bits that fill up the last word count as equal.

    Returns
    -------
    float
        Of single precision; NaN for codes without any word.

    Raises
    ------
    InputError
        For arrays of another shape or type, or a normalisation that is no number.
    MismatchError
        For codes of different lengths.

    Examples
    --------
    >>> hamming_dist_packed(np.array([3], np.uint32), np.array([1], np.uint32), 2)
    0.5
    """
    return float(hamming_cdist_packed(_codes(n1, 1)[None], _codes(n2, 1)[None], normalization)[0, 0])


def hamming_cdist_packed(arr1: np.ndarray, arr2: np.ndarray, normalization: float = 0) -> np.ndarray:
    """The same for every code of one array and every code of another.

    Parameters
    ----------
    arr1 : numpy.ndarray, shape [n, W], uint32
    arr2 : numpy.ndarray, shape [m, W], uint32
    normalization : number, default 0
        As for `hamming_dist_packed`.

    Returns
    -------
    numpy.ndarray, shape [n, m], float32

    Raises
    ------
    InputError, MismatchError
        As `hamming_dist_packed`.
    """
    codes, others = _codes(arr1, 2), _codes(arr2, 2)
    width = codes.shape[1]
    if others.shape[1] != width:
        raise MismatchError(f"codes of {width} and of {others.shape[1]} words cannot be compared; pack both alike")
    table = np.empty((len(codes), len(others)), np.float32)
    bits = np.float32(_number(normalization, "normalization") or _BITS * width)
    if not bits:
        table[:] = np.nan
        return table
    rows = max(1, _TASK // max(1, len(others) * width))

    def fill(begin: int) -> None:
        part = slice(begin, begin + rows)
        hamming_table(codes[part], others, bits, table[part])

    threads.run(fill, range(0, len(codes), rows), threads.available_threads())
    return table


def pack_bits(bits: np.ndarray) -> np.ndarray:
    """Bits [n, D] as 32-bit words [n, ceil(D / 32)] uint32, the first bit the most significant one."""
    packed = np.packbits(bits, axis=1)
    padded = np.zeros((len(bits), 4 * packed_width(bits.shape[1])), np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(">u4").astype(np.uint32)


def packed_width(dim: int) -> int:
    """32-bit words of a packed code."""
    return -(-dim // _BITS)


def _above(array: object, threshold: float, axes: int) -> np.ndarray:
    values = np.asarray(array)
    if values.ndim != axes or values.dtype.kind != "f":
        shape = "[D]" if axes == 1 else "[n, D]"
        raise InputError(f"the array is {values.dtype} {values.shape}; expected floating point of shape {shape}")
    # The original compares single precision with single precision.
    return np.asarray(values > values.dtype.type(_number(threshold, "threshold")))


def _codes(array: object, axes: int) -> np.ndarray:
    codes = np.asarray(array)
    if codes.ndim != axes or codes.dtype != np.uint32:
        shape = "[W]" if axes == 1 else "[n, W]"
        raise InputError(f"codes are {codes.dtype} {codes.shape}; expected uint32 of shape {shape}, as packed here")
    return np.ascontiguousarray(codes, np.uint32)


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
        raise InputError(f"{name} is {value!r}; give a finite number")
    return float(value)
