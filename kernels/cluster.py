"""The arithmetic of k-means and of nearest words."""

import numpy as np
from numba import njit

_F4 = "Array(float32, 2, 'C', readonly=True)"


@njit(f"void({_F4}, Array(int32, 1, 'C', readonly=True), float64[:, ::1], int64[::1])", nogil=True, cache=True)
def add_by_word(descriptors, words, sums, counts):
    """Add every descriptor to the sum of its word.

    descriptors [n, D] float32, words [n] int32 in [0, K), sums [K, D] float64 and counts [K] int64 are added to
    """
    n, dim = descriptors.shape
    for row in range(n):
        word = words[row]
        counts[word] += 1
        for d in range(dim):
            sums[word, d] += descriptors[row, d]


@njit(f"void({_F4}, int64, int32[:, ::1], float32[:, ::1])", nogil=True, cache=True)
def smallest(distances, k, out_columns, out_distances):
    """The k smallest values of every row and their columns, smallest first, the lower column first among equals.

    distances [n, K] float32, 1 <= k <= K; out_columns [n, k] int32, out_distances [n, k] float32
    """
    n, columns = distances.shape
    for row in range(n):
        kept = 0
        worst = np.float32(np.inf)
        for column in range(columns):
            value = distances[row, column]
            if kept == k and not value < worst:
                continue
            place = kept if kept < k else k - 1
            while place > 0 and out_distances[row, place - 1] > value:
                out_distances[row, place] = out_distances[row, place - 1]
                out_columns[row, place] = out_columns[row, place - 1]
                place -= 1
            out_distances[row, place] = value
            out_columns[row, place] = column
            if kept < k:
                kept += 1
            if kept == k:
                worst = out_distances[row, k - 1]
