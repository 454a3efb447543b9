"""Pairs of the features of two images, one to one: equal words, and the most similar codes first."""

import numpy as np
from numba import njit

from asmk_engine.kernels import kernel

_U4 = "Array(uint32, 1, 'C', readonly=True)"
_I4 = "Array(int32, 1, 'C', readonly=True)"
_CODES = "Array(uint64, 2, 'C', readonly=True)"


@njit(nogil=True)
def _ones(word):
    """Count the bits that are set."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(nogil=True)
def _run(words, first):
    """Return the end of the run of equal words that begins at `first`."""
    last = first + 1
    while last < len(words) and words[last] == words[first]:
        last += 1
    return last


@njit(nogil=True)
def _candidates(words, other_words):
    """Count the pairs of rows with equal words of two increasing lists."""
    i = j = count = 0
    while i < len(words) and j < len(other_words):
        if words[i] < other_words[j]:
            i += 1
        elif words[i] > other_words[j]:
            j += 1
        else:
            i_end, j_end = _run(words, i), _run(other_words, j)
            count += (i_end - i) * (j_end - j)
            i, j = i_end, j_end
    return count


@njit(nogil=True)
def _near(words, codes, other_words, other_codes, farthest, rows, other_rows, distances):
    """Collect the pairs of rows with equal words and a distance of at most `farthest`; returns their number."""
    i = j = count = 0
    while i < len(words) and j < len(other_words):
        if words[i] < other_words[j]:
            i += 1
        elif words[i] > other_words[j]:
            j += 1
        else:
            i_end, j_end = _run(words, i), _run(other_words, j)
            for one in range(i, i_end):
                for other in range(j, j_end):
                    distance = 0
                    for column in range(codes.shape[1]):
                        distance += _ones(codes[one, column] ^ other_codes[other, column])
                    if distance <= farthest:
                        rows[count], other_rows[count], distances[count] = one, other, distance
                        count += 1
            i, j = i_end, j_end
    return count


@kernel(f"int64({_U4}, {_CODES}, {_I4}, {_U4}, {_CODES}, {_I4}, int64, int32[::1], int32[::1], int32[::1])")
def pair(words, codes, features, other_words, other_codes, other_features, farthest, ones, others, distances):
    """Pair the features of two images one to one, nearest codes first; returns the number of pairs.

    words, codes, features  [n] uint32, increasing; [n, W] uint64; [n] int32, the number of the feature of each row: one
                            with several words has several rows
    other_words, ...        [m], likewise
    farthest                largest distance of two codes
    ones, others            [>= least number of features] int32, out: numbers of the features of each pair
    distances               likewise, out: increasing. Equal distances are in the order of the rows
    """
    room = _candidates(words, other_words)
    rows, other_rows, found = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.int32)
    count = _near(words, codes, other_words, other_codes, farthest, rows, other_rows, found)
    ends = np.zeros(farthest + 2, np.int64)
    for i in range(count):
        ends[found[i] + 1] += 1
    for distance in range(farthest + 1):
        ends[distance + 1] += ends[distance]
    order = np.empty(count, np.int64)
    for i in range(count):
        order[ends[found[i]]] = i
        ends[found[i]] += 1
    used, other_used = _flags(features), _flags(other_features)
    pairs = 0
    for i in order:
        one, other = features[rows[i]], other_features[other_rows[i]]
        if not used[one] and not other_used[other]:
            used[one] = other_used[other] = True
            ones[pairs], others[pairs], distances[pairs] = one, other, found[i]
            pairs += 1
    return pairs


@njit(nogil=True)
def _flags(features):
    """Return a flag for each number of a feature, all false."""
    most = -1
    for feature in features:
        most = max(most, feature)
    return np.zeros(most + 1, np.bool_)
