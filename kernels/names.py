"""Binary search in a table of names sorted in byte order."""

import numpy as np
from numba import njit

from asmk_engine.kernels import kernel

_U1 = "Array(uint8, 1, 'C', readonly=True)"
_U4 = "Array(uint32, 1, 'C', readonly=True)"
_I8 = "Array(int64, 1, 'C', readonly=True)"


@njit(nogil=True)
def _compare(one, first, end, other, other_first, other_end):
    """Compare two byte strings; returns < 0, 0 or > 0 as one[first:end] is <, == or > other[other_first:other_end]."""
    for i in range(min(end - first, other_end - other_first)):
        difference = np.int64(one[first + i]) - np.int64(other[other_first + i])
        if difference != 0:
            return difference
    return (end - first) - (other_end - other_first)


@kernel(f"int64({_U1}, {_I8}, {_U4}, {_U1}, {_I8}, int64[::1])")
def find_names(name_bytes, name_offsets, name_order, wanted_bytes, wanted_offsets, out):
    """Find every wanted name by binary search; returns -1, or the first row of `name_order` that is inconsistent.

    name_bytes      [B] uint8, name i is name_bytes[name_offsets[i]:name_offsets[i + 1]]
    name_offsets    [I + 1] int64
    name_order      [I] uint32, the names in byte order
    wanted_bytes    uint8, laid out like `name_bytes`; must be valid
    wanted_offsets  [n + 1] int64, likewise
    out             [n] int64, out: the number of each wanted name, -1 if it is not in the table
    Never reads outside the arrays, whatever the first three hold.
    """
    images = name_order.shape[0]
    for i in range(wanted_offsets.shape[0] - 1):
        low, high = 0, images
        out[i] = -1
        while low < high:
            middle = (low + high) >> 1
            number = np.int64(name_order[middle])
            if number >= images:
                return middle
            first, end = name_offsets[number], name_offsets[number + 1]
            if first < 0 or end < first or end > name_bytes.shape[0]:
                return middle
            order = _compare(name_bytes, first, end, wanted_bytes, wanted_offsets[i], wanted_offsets[i + 1])
            if order == 0:
                out[i] = number
                break
            if order < 0:
                low = middle + 1
            else:
                high = middle
    return -1
