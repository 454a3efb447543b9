"""Approximate assignment for k-means: the nearest among the words linked to the descriptor's word of the last round.

From the second round on, most descriptors keep their word and the others move to a word nearby. The descriptors of one
word share their candidates, so these are collected once and compared with many descriptors in the L1 cache, several at
a time. Descriptors are independent of each other: the result depends neither on threads nor on the order.
"""

import numpy as np
from numba import njit

from asmk_engine.kernels import kernel

TILE = 4  # descriptors and candidates compared at a time: sixteen sums, which fit in vector registers
BLOCK = 64  # descriptors kept in the L1 cache: 32 KiB at 128 dimensions
_F4 = "Array(float32, 2, 'C', readonly=True)"
_I4 = "Array(int32, 2, 'C', readonly=True)"
_E4 = "Array(int32, 1, 'C', readonly=True)"
_I8 = "Array(int64, 1, 'C', readonly=True)"


@njit(nogil=True)
def _collect(neighbours, word, second, met, found):
    """Write a word, its neighbours and the first `second` neighbours of each to `found`; returns their number."""
    found[0] = word
    met[word] = 1
    size = 1
    for hop in range(2):
        links = neighbours.shape[1] if hop == 0 else min(second, neighbours.shape[1])
        for i in range(1 if hop == 0 else size):
            for j in range(links):
                near = np.int64(neighbours[found[i], j])
                if near < 0:
                    break
                found[size] = near
                size += met[near] == 0
                met[near] = 1
    for i in range(size):
        met[found[i]] = 0
    return size


@njit(nogil=True, fastmath={"reassoc", "contract"})
def _add(total, difference):
    return total + difference * difference


@njit(nogil=True, fastmath={"reassoc", "contract"})
def _compare(rows, q, centroids, a, b, c, d, out):
    """Write the squared distances of rows q to q + TILE from the centroids a, b, c and d to out [TILE, TILE]."""
    qa = qb = qc = qd = np.float32(0.0)
    pa = pb = pc = pd = np.float32(0.0)
    ra = rb = rc = rd = np.float32(0.0)
    sa = sb = sc = sd = np.float32(0.0)
    for i in range(rows.shape[1]):
        u, v, w, x = centroids[a, i], centroids[b, i], centroids[c, i], centroids[d, i]
        y = rows[q, i]
        qa, qb, qc, qd = _add(qa, y - u), _add(qb, y - v), _add(qc, y - w), _add(qd, y - x)
        y = rows[q + 1, i]
        pa, pb, pc, pd = _add(pa, y - u), _add(pb, y - v), _add(pc, y - w), _add(pd, y - x)
        y = rows[q + 2, i]
        ra, rb, rc, rd = _add(ra, y - u), _add(rb, y - v), _add(rc, y - w), _add(rd, y - x)
        y = rows[q + 3, i]
        sa, sb, sc, sd = _add(sa, y - u), _add(sb, y - v), _add(sc, y - w), _add(sd, y - x)
    out[0, 0], out[0, 1], out[0, 2], out[0, 3] = qa, qb, qc, qd
    out[1, 0], out[1, 1], out[1, 2], out[1, 3] = pa, pb, pc, pd
    out[2, 0], out[2, 1], out[2, 2], out[2, 3] = ra, rb, rc, rd
    out[3, 0], out[3, 1], out[3, 2], out[3, 3] = sa, sb, sc, sd


@kernel(f"void({_F4}, {_I8}, {_I8}, int64, int64, {_F4}, {_I4}, int64, int32[::1], float32[::1])")
def refine(descriptors, order, starts, first, last, centroids, neighbours, second, words, distances):
    """Assign every descriptor of the words `first` to `last` (exclusive) to the nearest of a few hundred words.

    Candidates are the current word of the descriptor, its neighbours, and the first `second` neighbours of each of
    these. Ties go to the lower word.

    descriptors    [n, D] float32
    order, starts  [n] and [K + 1] int64, descriptors sorted by word, from `order_by_word`
    centroids      [K, D] float32
    neighbours     [K, R] int32, words linked to each word, all below K; -1 ends a row
    words          [n] int32, out
    distances      [n] float32, out: the squared distance to that word
    """
    dim = descriptors.shape[1]
    links = neighbours.shape[1]
    found = np.empty((links + 1) * (min(second, links) + 1) + links + TILE, np.int64)
    met = np.zeros(centroids.shape[0], np.uint8)
    rows = np.empty((BLOCK + TILE, dim), np.float32)
    nearest = np.empty(BLOCK + TILE, np.int64)
    least = np.empty(BLOCK + TILE, np.float32)
    out = np.empty((TILE, TILE), np.float32)
    for word in range(first, last):
        if starts[word] == starts[word + 1]:
            continue
        size = _collect(neighbours, word, second, met, found)
        found[size : size + TILE] = word  # pad to whole tiles: the sums must not depend on the remainder
        for begin in range(starts[word], starts[word + 1], BLOCK):
            count = min(BLOCK, starts[word + 1] - begin)
            for i in range(count + TILE):
                row = order[begin + min(i, count - 1)]
                for d in range(dim):
                    rows[i, d] = descriptors[row, d]
            nearest[:] = word
            least[:] = np.inf
            for j in range(0, size, TILE):
                for i in range(0, count, TILE):
                    _compare(rows, i, centroids, found[j], found[j + 1], found[j + 2], found[j + 3], out)
                    for k in range(TILE):
                        for m in range(TILE):
                            far = out[k, m]
                            if far < least[i + k] or (far == least[i + k] and found[j + m] < nearest[i + k]):
                                least[i + k] = far
                                nearest[i + k] = found[j + m]
            for i in range(count):
                words[order[begin + i]] = nearest[i]
                distances[order[begin + i]] = least[i]
