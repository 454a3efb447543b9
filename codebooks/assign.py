"""Exact assignment of descriptors to their k nearest centroids."""

from __future__ import annotations

import numpy as np

from asmk_engine.kernels.cluster import smallest
from asmk_engine.threads import forks_wait

# Distances computed at a time (64 MiB): enough for full speed of the matrix product, with bounded memory.
BLOCK = 1 << 24


def nearest_words(descriptors: np.ndarray, centroids: np.ndarray, k: int) -> np.ndarray:
    """Return the k nearest centroids in L2, nearest first; ties go to the lower word.

    descriptors  [n, D] float32
    centroids    [K, D] float32, 1 <= k <= K
    returns      [n, k] int32
    """
    words = np.empty((len(descriptors), k), np.int32)
    distances = np.empty((len(descriptors), k), np.float32)
    norms = np.einsum("kd,kd->k", centroids, centroids)
    rows = max(1, BLOCK // len(centroids))
    for begin in range(0, len(descriptors), rows):
        block = slice(begin, begin + rows)
        with forks_wait():
            products = (descriptors[block] * np.float32(-2.0)) @ centroids.T
        products += norms
        smallest(products, k, words[block], distances[block])
    return words
