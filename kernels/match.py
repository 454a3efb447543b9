"""Score the images of one range against a query: the inner loop of the selective match kernel.

For every query word and every posting of that word, with h the Hamming distance of the two codes, the image's score
grows by weight * table[h]; table[h] holds sigma(1 - 2 h / D) (Tolias et al., ECCV 2020, section 3). The image numbers
are read from their Elias-Fano lists (see elias_fano.py for the layout) without being stored.
"""

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

PADDING = 8
_I8 = "Array(int64, 1, 'C', readonly=True)"
_F8 = "Array(float64, 1, 'C', readonly=True)"
_U4 = "Array(uint32, 1, 'C', readonly=True)"
_U1 = "Array(uint8, 1, 'C', readonly=True)"
_U8 = "Array(uint64, 2, 'C', readonly=True)"


@intrinsic
def _load(typing_context, array, position):
    """The 64-bit word that begins at byte `position`, aligned or not."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.gep(data, [arguments[1]])
        word = context.get_value_type(types.uint64)
        return builder.load(builder.bitcast(pointer, word.as_pointer()), align=1)

    return types.uint64(array, types.int64), generate


@intrinsic
def _ones(typing_context, word):
    """How many bits of a 64-bit word are set."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def _trailing_zeros(typing_context, word):
    """The place of the lowest set bit of a 64-bit word that is not 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], cgutils.true_bit)

    return types.uint64(types.uint64), generate


@njit(f"void({_U4}, {_U4}, int64[::1])", nogil=True, cache=True)
def find_lists(list_words, words, out):
    """Where each of the increasing `words` stands among the increasing `list_words`, -1 where it does not.

    list_words [L] uint32, words [q] uint32, out [q] int64
    """
    low = 0
    for i in range(words.shape[0]):
        high = list_words.shape[0]
        while low < high:
            middle = (low + high) >> 1
            if list_words[middle] < words[i]:
                low = middle + 1
            else:
                high = middle
        found = low < list_words.shape[0] and list_words[low] == words[i]
        out[i] = low if found else -1


@njit(
    f"int64({_I8}, {_U8}, {_F8}, {_I8}, {_I8}, {_U1}, {_U8}, {_F8}, float64[::1])",
    nogil=True,
    cache=True,
)
def match(lists, query_codes, weights, posting_starts, id_starts, ids, codes, table, scores):
    """Add to the score of every image of a range what its postings of the query's words are worth.

    lists           [q] int64, the list of each query word, -1 for none
    query_codes     [q, W] uint64, weights [q] float64
    posting_starts  [L + 1] int64, id_starts [L + 1] int64, ids uint8 with PADDING, codes [P, W] uint64: the segment
    table           [64 W + 1] float64, the worth of each Hamming distance
    scores          [images of the range] float64, added to in the order of the query words
    returns -1, or the number of the first list that is damaged; nothing outside the arrays is read or written
    """
    universe = scores.shape[0]
    width = codes.shape[1]
    for q in range(lists.shape[0]):
        j = lists[q]
        if j < 0:
            continue
        first = posting_starts[j]
        count = posting_starts[j + 1] - first
        begin = id_starts[j]
        if count <= 0 or count > universe or first < 0 or first > codes.shape[0] - count:
            return j
        low = np.int64(0)
        while (count << (low + 1)) <= universe:
            low += 1
        low_bytes = (count * low + 7) >> 3
        size = low_bytes + ((count + ((universe - 1) >> low) + 8) >> 3)
        if begin < 0 or begin > ids.shape[0] - size - PADDING or id_starts[j + 1] - begin != size:
            return j
        mask = (np.uint64(1) << np.uint64(low)) - np.uint64(1)
        high_begin = begin + low_bytes
        high_bytes = size - low_bytes
        place = 0
        word = _load(ids, high_begin)
        for i in range(count):
            while word == np.uint64(0):
                place += 8
                if place >= high_bytes:
                    return j
                word = _load(ids, high_begin + place)
            high = 8 * place + np.int64(_trailing_zeros(word)) - i
            word &= word - np.uint64(1)
            bit = i * low
            lows = (_load(ids, begin + (bit >> 3)) >> np.uint64(bit & 7)) & mask
            image = (high << low) | np.int64(lows)
            if image < 0 or image >= universe:
                return j
            distance = np.uint64(0)
            for column in range(width):
                distance += _ones(codes[first + i, column] ^ query_codes[q, column])
            scores[image] += weights[q] * table[distance]
    return -1
