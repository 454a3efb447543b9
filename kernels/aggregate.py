"""Aggregate the residuals of an image per visual word and binarise them.

There is one row per distinct word: the sum of (descriptor - centroid) over the descriptors assigned to that word
(Tolias et al., ECCV 2020, section 3: B(X_c) = sign of the sum of r(x) over X_c).
"""

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.core.cgutils import ir  # type: ignore[attr-defined]
from numba.extending import intrinsic

from asmk_engine.kernels import kernel

_DESCRIPTORS = "Array(float32, 2, 'C', readonly=True)"
_WORDS = "Array(int32, 2, 'C', readonly=True)"
_DIGIT = 8  # bits per pass of the radix sort: its counts stay in the L1 cache
_AHEAD = 8  # descriptors ahead to prefetch; words are far apart in memory in a large codebook
_PLACE = 0xFFFFFFFF  # mask of the position in a key
_LINE = 16  # float32 values in a cache line


@intrinsic
def _prefetch(typing_context, array, place):
    """Prefetch the cache line of element `place` of a flat array; any address is allowed."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        flags = [ir.Constant(ir.IntType(32), value) for value in (0, 3, 1)]  # read, keep close, data
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, *(flag.type for flag in flags)])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0"), [pointer, *flags])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@njit(nogil=True)
def _sort_by_word(words):
    """Sort the words [n, k] of an image, stably; returns [n * k] int64 keys: word << 32 | flat position."""
    n, k = words.shape
    keys, sorted_keys = np.empty(n * k, np.int64), np.empty(n * k, np.int64)
    largest = np.int64(0)
    for row in range(n):
        for column in range(k):
            word = np.int64(words[row, column])
            largest = max(largest, word)
            keys[row * k + column] = (word << 32) | (row * k + column)
    shift = 32
    while largest > 0:
        ends = np.zeros((1 << _DIGIT) + 1, np.int64)
        for i in range(n * k):
            ends[((keys[i] >> shift) & ((1 << _DIGIT) - 1)) + 1] += 1
        for digit in range(1 << _DIGIT):
            ends[digit + 1] += ends[digit]
        for i in range(n * k):
            digit = (keys[i] >> shift) & ((1 << _DIGIT) - 1)
            sorted_keys[ends[digit]] = keys[i]
            ends[digit] += 1
        keys, sorted_keys = sorted_keys, keys
        shift += _DIGIT
        largest >>= _DIGIT
    return keys


@njit(nogil=True)
def _binarise_row(sums, out_code):
    dim = sums.shape[0]
    for column in range(out_code.shape[0]):
        bits = np.uint64(0)
        for place in range(min(64, dim - 64 * column)):
            bits |= np.uint64(sums[64 * column + place] > np.float32(0.0)) << np.uint64(place)
        out_code[column] = bits


@kernel(f"int64({_DESCRIPTORS}, {_WORDS}, {_DESCRIPTORS}, int32[::1], float32[:, ::1])")
def aggregate(descriptors, words, centroids, out_words, out_sums):
    """Sum the residuals of one image per word; returns the number of distinct words, m.

    descriptors  [n, D] float32, projected
    words        [n, k] int32 in [0, K), the words of every descriptor
    centroids    [K, D] float32
    out_words    [>= n * k] int32, out: the m distinct words, increasing
    out_sums     [>= n * k, D] float32, out: their residual sums, added in the order of the descriptors
    """
    k = words.shape[1]
    dim = descriptors.shape[1]
    count = -1
    previous = -1
    for key in _sort_by_word(words):
        word = key >> 32
        if word != previous:
            count += 1
            previous = word
            out_words[count] = word
            out_sums[count] = np.float32(0.0)
        row = (key & _PLACE) // k
        for d in range(dim):
            out_sums[count, d] += descriptors[row, d] - centroids[word, d]
    return count + 1


@kernel(f"void({_DESCRIPTORS}, {_DESCRIPTORS}, Array(int32, 1, 'C', readonly=True), int32[::1], uint64[:, ::1])")
def residual_codes(descriptors, centroids, rows, words, out_codes):
    """Binarise the residuals of descriptors one by one: bit d is set where a descriptor exceeds its word.

    descriptors  [n, D] float32, projected
    centroids    [K, D] float32
    rows, words  [m] int32, the descriptor and the word of each residual
    out_codes    [m, ceil(D / 64)] uint64, out; the bits beyond D are 0
    """
    dim = descriptors.shape[1]
    for i in range(rows.shape[0]):
        row, word = rows[i], words[i]
        for column in range(out_codes.shape[1]):
            bits = np.uint64(0)
            for place in range(min(64, dim - 64 * column)):
                component = 64 * column + place
                bits |= np.uint64(descriptors[row, component] > centroids[word, component]) << np.uint64(place)
            out_codes[i, column] = bits


@kernel(f"int64({_DESCRIPTORS}, {_WORDS}, {_DESCRIPTORS}, uint32[::1], uint64[:, ::1])")
def aggregate_codes(descriptors, words, centroids, out_words, out_codes):
    """Do `aggregate` and binarise the sums, of which only one is kept; returns the number of distinct words, m.

    descriptors, words, centroids  as for `aggregate`
    out_words                      [>= n * k] uint32, out: the m distinct words, increasing
    out_codes                      [>= n * k, ceil(D / 64)] uint64, out: their codes
    """
    k = words.shape[1]
    dim = descriptors.shape[1]
    keys = _sort_by_word(words)
    total = np.empty(dim, np.float32)
    count = 0
    place = 0
    while place < keys.shape[0]:
        word = keys[place] >> 32
        total[:] = np.float32(0.0)
        while place < keys.shape[0] and keys[place] >> 32 == word:
            following = keys[min(place + _AHEAD, keys.shape[0] - 1)]
            for d in range(0, dim, _LINE):
                _prefetch(descriptors, (following & _PLACE) // k * dim + d)
                _prefetch(centroids, (following >> 32) * dim + d)
            row = (keys[place] & _PLACE) // k
            for d in range(dim):
                total[d] += descriptors[row, d] - centroids[word, d]
            place += 1
        out_words[count] = word
        _binarise_row(total, out_codes[count])
        count += 1
    return count
