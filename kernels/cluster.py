"""Kernels of k-means and of exact nearest words."""

import numpy as np

from asmk_engine.kernels import kernel

_F4 = "Array(float32, 2, 'C', readonly=True)"
_I8 = "Array(int64, 1, 'C', readonly=True)"


@kernel("int64[::1](Array(int32, 1, 'C', readonly=True), int64[::1])")
def order_by_word(words, starts):
    """Sort descriptors by their word, stably; returns [n] int64 row numbers.

    words   [n] int32 in [0, K)
    starts  [K + 1] int64, out: the rows of word w are order[starts[w]:starts[w + 1]]
    """
    starts[:] = 0
    for row in range(words.shape[0]):
        starts[words[row] + 1] += 1
    for word in range(starts.shape[0] - 1):
        starts[word + 1] += starts[word]
    free = starts.copy()
    order = np.empty(words.shape[0], np.int64)
    for row in range(words.shape[0]):
        order[free[words[row]]] = row
        free[words[row]] += 1
    return order


@kernel(f"void({_F4}, {_I8}, {_I8}, int64, int64, float64[:, ::1])")
def add_by_word(descriptors, order, starts, first, last, sums):
    """Add every descriptor of the words `first` to `last` (exclusive) to the sum of its word.

    descriptors    [n, D] float32
    order, starts  [n] and [K + 1] int64, from `order_by_word`
    sums           [K, D] float64, added to
    """
    for word in range(first, last):
        for place in range(starts[word], starts[word + 1]):
            row = order[place]
            for d in range(descriptors.shape[1]):
                sums[word, d] += descriptors[row, d]


@kernel(f"void({_F4}, int64, int32[:, ::1], float32[:, ::1])")
def smallest(distances, k, out_columns, out_distances):
    """Find the k smallest values of every row and their columns, smallest first; ties go to the lower column.

    distances      [n, K] float32, 1 <= k <= K
    out_columns    [n, k] int32, out
    out_distances  [n, k] float32, out
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
