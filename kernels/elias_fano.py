"""Increasing image numbers in nearly as few bits as their entropy (Elias 1974, Fano 1971).

A list of n numbers below U splits each number into l low bits, l = floor(log2(U / n)), packed side by side, and a
high part. The high parts are written in unary: the i-th number sets bit (high + i). A list starts on a byte:
first ceil(n l / 8) bytes of low bits, then ceil((n + ((U - 1) >> l) + 1) / 8) bytes of high bits. Its size depends on
n and U alone. The array ends with 8 bytes of padding, so that a reader may load whole 64-bit words.
"""

import numpy as np
from numba import njit

PADDING = 8
_I8 = "Array(int64, 1, 'C', readonly=True)"
_U4 = "Array(uint32, 1, 'C', readonly=True)"
_U1 = "Array(uint8, 1, 'C', readonly=True)"


@njit("int64(int64, int64)", nogil=True, cache=True)
def low_bits(count, universe):
    """Low bits per number in a list of `count` >= 1 numbers below `universe` >= count."""
    bits = 0
    while (count << (bits + 1)) <= universe:
        bits += 1
    return bits


@njit("int64(int64, int64)", nogil=True, cache=True)
def encoded_bytes(count, universe):
    """Bytes of a list of `count` numbers below `universe`; 0 for an empty list."""
    if count == 0:
        return 0
    low = low_bits(count, universe)
    return ((count * low + 7) >> 3) + ((count + ((universe - 1) >> low) + 8) >> 3)


@njit(f"int64[::1]({_I8}, int64)", nogil=True, cache=True)
def list_starts(counts, universe):
    """Where lists of these lengths begin when encoded side by side; [L + 1] int64, the end of the last included."""
    starts = np.zeros(counts.shape[0] + 1, np.int64)
    for j in range(counts.shape[0]):
        starts[j + 1] = starts[j] + encoded_bytes(counts[j], universe)
    return starts


@njit(f"void({_U4}, {_I8}, {_I8}, int64, uint8[::1])", nogil=True, cache=True)
def encode(numbers, posting_starts, id_starts, universe, out):
    """Encode lists of increasing numbers.

    numbers         [P] uint32, each below `universe`, strictly increasing inside a list
    posting_starts  [L + 1] int64, list j is numbers[posting_starts[j]:posting_starts[j + 1]]
    id_starts       [L + 1] int64, where the bytes of list j begin in `out` (see `list_starts`)
    out             uint8, zeros
    """
    for j in range(posting_starts.shape[0] - 1):
        first = posting_starts[j]
        count = posting_starts[j + 1] - first
        if count == 0:
            continue
        low = low_bits(count, universe)
        begin = id_starts[j]
        high_begin = begin + ((count * low + 7) >> 3)
        for i in range(count):
            number = np.int64(numbers[first + i])
            for b in range(low):
                if (number >> b) & 1:
                    place = i * low + b
                    out[begin + (place >> 3)] |= np.uint8(1 << (place & 7))
            place = (number >> low) + i
            out[high_begin + (place >> 3)] |= np.uint8(1 << (place & 7))


@njit(f"int64({_U1}, {_I8}, {_I8}, int64, uint32[::1])", nogil=True, cache=True)
def decode(ids, posting_starts, id_starts, universe, out):
    """Decode all lists; returns -1, or the number of the first list that is not as `encode` writes them.

    ids  uint8 with PADDING; posting_starts, id_starts [L + 1] int64; out [P] uint32 receives the numbers
    Nothing outside the arrays is read or written, whatever they hold.
    """
    for j in range(posting_starts.shape[0] - 1):
        first = posting_starts[j]
        count = posting_starts[j + 1] - first
        begin = id_starts[j]
        if count < 0 or count > universe or first < 0 or first + count > out.shape[0]:
            return j
        size = encoded_bytes(count, universe)
        if begin < 0 or begin > ids.shape[0] - size - PADDING or id_starts[j + 1] - begin != size:
            return j
        if count == 0:
            continue
        low = low_bits(count, universe)
        high_begin = begin + ((count * low + 7) >> 3)
        high_end = 8 * (begin + size - high_begin)
        place = 0
        previous = -1
        for i in range(count):
            while place < high_end and not (ids[high_begin + (place >> 3)] >> (place & 7)) & 1:
                place += 1
            if place == high_end:
                return j
            number = np.int64(place - i) << low
            for b in range(low):
                bit = i * low + b
                number |= np.int64((ids[begin + (bit >> 3)] >> (bit & 7)) & 1) << b
            if number <= previous or number >= universe:
                return j
            out[first + i] = number
            previous = number
            place += 1
    return -1
