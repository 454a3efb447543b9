"""Kernels of global descriptors: dot products that are bitwise reproducible, and product quantisation.

A dot product adds the same products in the same order, in eight partial sums, independent of the position of the row
and of the other rows; a matrix product does not guarantee that. Sums are kept in double precision, in which the product
of two single-precision numbers is exact.
"""

import numpy as np

from asmk_engine.kernels import kernel

_F4 = "Array(float32, 1, 'C', readonly=True)"
_F42 = "Array(float32, 2, 'C', readonly=True)"
_F43 = "Array(float32, 3, 'C', readonly=True)"
_U12 = "Array(uint8, 2, 'C', readonly=True)"
_U2 = "Array(uint16, 1, 'C', readonly=True)"


@kernel(f"void({_F42}, {_F4}, float64[::1])")
def dots(rows, query, out):
    """Compute out[i] = rows[i] . query; rows [n, D] float32, query [D] float32, out [n] float64."""
    dim = query.shape[0]
    sums = np.zeros(8)
    for i in range(rows.shape[0]):
        row = rows[i]
        sums[:] = 0.0
        for j in range(dim // 8):
            for lane in range(8):
                sums[lane] += np.float64(row[8 * j + lane]) * np.float64(query[8 * j + lane])
        rest = 0.0
        for j in range(dim - dim % 8, dim):
            rest += np.float64(row[j]) * np.float64(query[j])
        out[i] = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7])) + rest


@kernel(f"void({_U2}, uint32[::1], float32[::1])")
def widen(halves, bits, values):
    """Convert finite half-precision numbers to single precision, exactly.

    halves  [n] uint16, the bits of float16
    bits    [n] uint32, out
    values  [n] float32, out: a view of the same memory as `bits`
    """
    for i in range(halves.shape[0]):
        half = np.uint32(halves[i])
        magnitude = ((half & np.uint32(0x7FFF)) << np.uint32(13)) + np.uint32(112 << 23)
        bits[i] = magnitude | ((half & np.uint32(0x8000)) << np.uint32(16))
    for i in range(halves.shape[0]):
        half = np.uint32(halves[i])
        if half & np.uint32(0x7C00) == 0:  # subnormal: a multiple of 2 ** -24
            small = np.float32(np.uint32(half & np.uint32(0x3FF))) * np.float32(2.0**-24)
            values[i] = -small if half & np.uint32(0x8000) else small


@kernel(f"void({_F42}, {_F43}, uint8[:, ::1])")
def encode_products(vectors, centroids, codes):
    """Find the nearest centroid in each subspace; ties go to the first.

    vectors    [n, M * S] float32
    centroids  [M, K, S] float32, K <= 256
    codes      [n, M] uint8, out
    """
    places, count, width = centroids.shape
    for i in range(vectors.shape[0]):
        for m in range(places):
            nearest, least = 0, np.inf
            for k in range(count):
                distance = 0.0
                for j in range(width):
                    difference = np.float64(vectors[i, m * width + j]) - np.float64(centroids[m, k, j])
                    distance += difference * difference
                if distance < least:
                    nearest, least = k, distance
            codes[i, m] = nearest


@kernel(f"void({_F4}, {_F43}, float32[:, ::1])")
def product_table(query, centroids, table):
    """Compute table[m, k] = subvector m of the query . centroids[m, k].

    query [M * S] float32, centroids [M, K, S] float32, table [M, K] float32, out
    """
    places, count, width = centroids.shape
    for m in range(places):
        for k in range(count):
            total = 0.0
            for j in range(width):
                total += np.float64(query[m * width + j]) * np.float64(centroids[m, k, j])
            table[m, k] = total


@kernel(f"void({_U12}, {_F42}, float64[::1])")
def look_up(codes, table, out):
    """Compute out[i] = sum over m of table[m, codes[i, m]].

    codes [n, M] uint8, table [M, 256] float32, out [n] float64
    """
    places = table.shape[0]
    whole = places - places % 4
    for i in range(codes.shape[0]):
        a = b = c = d = 0.0
        for m in range(0, whole, 4):
            a += table[m, codes[i, m]]
            b += table[m + 1, codes[i, m + 1]]
            c += table[m + 2, codes[i, m + 2]]
            d += table[m + 3, codes[i, m + 3]]
        for m in range(whole, places):
            a += table[m, codes[i, m]]
        out[i] = (a + b) + (c + d)
