"""Aggregate the residuals of an image per visual word and keep their signs.

One row per distinct word: the sum of (descriptor - centroid) over the descriptors assigned to that word
(Tolias et al., ECCV 2020, section 3: B(X_c) = sign of the sum of r(x) over X_c).
"""

import numpy as np
from numba import njit

_DESCRIPTORS = "Array(float32, 2, 'C', readonly=True)"
_WORDS = "Array(int32, 2, 'C', readonly=True)"


@njit(f"int64({_DESCRIPTORS}, {_WORDS}, {_DESCRIPTORS}, int32[::1], float32[:, ::1])", nogil=True, cache=True)
def aggregate(descriptors, words, centroids, out_words, out_sums):
    """Sum the residuals of one image per word; returns the number of distinct words, m.

    descriptors  [n, D] float32, projected
    words        [n, k] int32, each in [0, K): the words of every descriptor
    centroids    [K, D] float32
    out_words    [>= n * k] int32, receives the m distinct words, increasing
    out_sums     [>= n * k, D] float32, receives their residual sums, added in the order of the descriptors
    """
    n, k = words.shape
    dim = descriptors.shape[1]
    flat = words.copy().reshape(n * k)
    order = np.argsort(flat, kind="mergesort")
    count = -1
    previous = -1
    for position in order:
        word = flat[position]
        if word != previous:
            count += 1
            previous = word
            out_words[count] = word
            for d in range(dim):
                out_sums[count, d] = np.float32(0.0)
        row = position // k
        for d in range(dim):
            out_sums[count, d] += descriptors[row, d] - centroids[word, d]
    return count + 1


@njit("void(Array(float32, 2, 'C', readonly=True), uint64[:, ::1])", nogil=True, cache=True)
def binarise(sums, out_codes):
    """One bit per component, set where it is greater than 0; bit d stands in word d // 64 at place d % 64.

    sums       [m, D] float32
    out_codes  [m, ceil(D / 64)] uint64; the bits beyond D are 0
    """
    m, dim = sums.shape
    for row in range(m):
        for column in range(out_codes.shape[1]):
            bits = np.uint64(0)
            for d in range(64 * column, min(64 * column + 64, dim)):
                if sums[row, d] > np.float32(0.0):
                    bits |= np.uint64(1) << np.uint64(d - 64 * column)
            out_codes[row, column] = bits
