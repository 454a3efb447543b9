"""Increasing image numbers in nearly as few bits as their entropy (Elias 1974, Fano 1971).

In a list of n numbers below U, each number is split into l low bits, packed side by side, and a high part. The classic
choice is l = floor(log2(U / n)); here l is at least 8, so that the low parts of all but sparse lists are whole bytes
that vector instructions can read: 0.05 bytes more per number at the density of a million images, decoded in a fraction
of the time. The high parts are written in unary: the i-th number sets bit (high + i). A list starts on a byte boundary:
ceil(n l / 8) bytes of low bits, then ceil((n + ((U - 1) >> l) + 1) / 8) bytes of high bits. Its size depends only on n
and U. The array ends with 64 bytes of padding, so that a reader may load whole vectors.
"""

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from asmk_engine.kernels import kernel

PADDING = 64
_I8 = "Array(int64, 1, 'C', readonly=True)"
_U4 = "Array(uint32, 1, 'C', readonly=True)"
_U1 = "Array(uint8, 1, 'C', readonly=True)"
_CODES = "Array(uint64, 2, 'C', readonly=True)"


@intrinsic
def _load(typing_context, array, position):
    """Load the 64-bit word at byte `position`, aligned or not."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.gep(data, [arguments[1]])
        word = context.get_value_type(types.uint64)
        return builder.load(builder.bitcast(pointer, word.as_pointer()), align=1)

    return types.uint64(array, types.int64), generate


@intrinsic
def _trailing_zeros(typing_context, word):
    """Return the position of the lowest set bit of a non-zero 64-bit word."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], cgutils.true_bit)

    return types.uint64(types.uint64), generate


@njit(nogil=True)
def low_bits(count, universe):
    """Return the low bits per number in a list of `count` >= 1 numbers below `universe` >= count."""
    bits = 8
    while (count << (bits + 1)) <= universe:
        bits += 1
    return bits


@njit(nogil=True)
def encoded_bytes(count, universe):
    """Return the size in bytes of a list of `count` numbers below `universe`; 0 for an empty list."""
    if count == 0:
        return 0
    low = low_bits(count, universe)
    return ((count * low + 7) >> 3) + ((count + ((universe - 1) >> low) + 8) >> 3)


@kernel(f"int64[::1]({_I8}, int64)")
def list_starts(counts, universe):
    """Return the byte offsets of lists of these lengths encoded side by side; [L + 1] int64, with the end of the last.

    counts  [L] int64
    """
    starts = np.zeros(counts.shape[0] + 1, np.int64)
    for j in range(counts.shape[0]):
        starts[j + 1] = starts[j] + encoded_bytes(counts[j], universe)
    return starts


@kernel(f"void({_U4}, {_I8}, {_I8}, int64, uint8[::1])")
def encode(numbers, posting_starts, id_starts, universe, out):
    """Encode lists of increasing numbers.

    numbers         [P] uint32, each below `universe`, strictly increasing within a list
    posting_starts  [L + 1] int64, list j is numbers[posting_starts[j]:posting_starts[j + 1]]
    id_starts       [L + 1] int64, byte offset of list j in `out`, from `list_starts`
    out             uint8, out; zeros on entry
    """
    for j in range(posting_starts.shape[0] - 1):
        first = posting_starts[j]
        count = posting_starts[j + 1] - first
        if count == 0:
            continue
        low = low_bits(count, universe)
        high_begin = id_starts[j] + ((count * low + 7) >> 3)
        mask = (np.uint64(1) << np.uint64(low)) - np.uint64(1)
        place = id_starts[j]
        pending, filled = np.uint64(0), 0
        for i in range(count):
            number = np.uint64(numbers[first + i])
            pending |= (number & mask) << np.uint64(filled)
            filled += low
            while filled >= 8:
                out[place] = np.uint8(pending & np.uint64(255))
                pending >>= np.uint64(8)
                filled -= 8
                place += 1
            high = np.int64(number >> np.uint64(low)) + i
            out[high_begin + (high >> 3)] |= np.uint8(1 << (high & 7))
        if filled:
            out[place] = np.uint8(pending & np.uint64(255))


@njit(nogil=True)
def decode_list(ids, begin, end, count, universe, out, first):
    """Decode the list ids[begin:end] into out[first:first + count]; returns whether it is valid output of `encode`.

    Never reads or writes outside the arrays, whatever they hold.
    """
    if count < 0 or count > universe or first < 0 or first > out.shape[0] - count:
        return False
    size = encoded_bytes(count, universe)
    if begin < 0 or begin > ids.shape[0] - size - PADDING or end - begin != size:
        return False
    if count == 0:
        return True
    low = low_bits(count, universe)
    mask = (np.uint64(1) << np.uint64(low)) - np.uint64(1)
    high_begin = begin + ((count * low + 7) >> 3)
    high_bytes = begin + size - high_begin
    place = 0
    previous = np.int64(-1)
    word = _load(ids, high_begin)
    for i in range(count):
        while word == np.uint64(0):
            place += 8
            if place >= high_bytes:
                return False
            word = _load(ids, high_begin + place)
        bit = 8 * place + np.int64(_trailing_zeros(word))
        word &= word - np.uint64(1)
        lows = (_load(ids, begin + ((i * low) >> 3)) >> np.uint64((i * low) & 7)) & mask
        number = ((bit - i) << low) | np.int64(lows)
        if bit >= 8 * high_bytes or number <= previous or number >= universe:
            return False
        out[first + i] = number
        previous = number
    return True


@kernel(f"int64({_U1}, {_I8}, {_I8}, int64, uint32[::1])")
def decode(ids, posting_starts, id_starts, universe, out):
    """Decode all lists; returns -1, or the number of the first list that is not valid output of `encode`.

    ids                        uint8 with PADDING
    posting_starts, id_starts  [L + 1] int64, as for `encode`
    out                        [P] uint32, out: the numbers
    """
    for j in range(posting_starts.shape[0] - 1):
        first = posting_starts[j]
        count = posting_starts[j + 1] - first
        if not decode_list(ids, id_starts[j], id_starts[j + 1], count, universe, out, first):
            return j
    return -1


@kernel(f"int64({_U1}, {_U4}, {_I8}, {_I8}, int64, {_I8}, int64, int64[::1])")
def count_moved(ids, list_words, posting_starts, id_starts, vocabulary, moved, range_bits, counts):
    """Count the postings of some lists of one range by their new range and word.

    moved    [U] int64, the new number of each image of the range, -1 for a removed image
    counts   [new ranges * vocabulary] int64, added to
    returns  -1, or the number of the first damaged list
    """
    universe = moved.shape[0]
    numbers = np.empty(universe, np.uint32)
    for j in range(list_words.shape[0]):
        count = posting_starts[j + 1] - posting_starts[j]
        whole = decode_list(ids, id_starts[j], id_starts[j + 1], count, universe, numbers, 0)
        if not whole or list_words[j] >= vocabulary or (j > 0 and list_words[j] <= list_words[j - 1]):
            return j
        for i in range(count):
            new = moved[numbers[i]]
            if new >= 0:
                counts[(new >> range_bits) * vocabulary + list_words[j]] += 1
    return -1


@kernel(f"int64({_U1}, {_U4}, {_I8}, {_I8}, {_CODES}, int64, {_I8}, int64[::1], uint32[::1], uint64[:, ::1])")
def gather_moved(ids, list_words, posting_starts, id_starts, codes, first_word, moved, places, out_numbers, out_codes):
    """Copy the postings of some lists of one range to their new positions.

    moved        [U] int64, the new number of each image within the new range, -1 for an image outside it
    places       [words of the chunk] int64, position of the next posting of word `first_word + w`; advanced
    out_numbers  [n] uint32, out: image numbers
    out_codes    [n, W] uint64, out: codes
    returns      -1, or the number of the first list that is damaged or changed since `count_moved`
    """
    universe = moved.shape[0]
    numbers = np.empty(universe, np.uint32)
    for j in range(list_words.shape[0]):
        first = posting_starts[j]
        count = posting_starts[j + 1] - first
        slot = np.int64(list_words[j]) - first_word
        if slot < 0 or slot >= places.shape[0] or first < 0 or first > codes.shape[0] - count:
            return j
        if not decode_list(ids, id_starts[j], id_starts[j + 1], count, universe, numbers, 0):
            return j
        for i in range(count):
            new = moved[numbers[i]]
            if new >= 0:
                place = places[slot]
                if place >= out_numbers.shape[0]:
                    return j
                out_numbers[place] = new
                for column in range(codes.shape[1]):
                    out_codes[place, column] = codes[first + i, column]
                places[slot] = place + 1
    return -1
