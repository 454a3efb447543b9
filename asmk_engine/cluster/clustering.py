"""k-means over descriptors that are spread over a cluster, with the bits of k-means in one process.

Each part of the descriptors is an object of Ray, and each step is a task on it, so that what a lost node had is done
again elsewhere. The sum of a word is handed from part to part, each of which adds its own descriptors: the additions of
one process, in its order. Words are divided into ranges, so that all parts are at work, each on another range.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from asmk_engine.cluster.connecting import ray_errors
from asmk_engine.codebooks.kmeans import Targets, add_rows, assign_rows, part_ends

PART_ROWS = 1 << 17
"""Descriptors of a part, unless the backend needs more: 64 MiB at 128 dimensions."""
RANGES = 8
"""Ranges of words whose sums are handed on separately."""
RANGE_WORDS = 1 << 10
"""Least words of a range: with fewer, the messages would take longer than the sums."""
RETRIES = 5


def _assign(descriptors: np.ndarray, targets: Targets, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return assign_rows(descriptors, targets, words, 1)


def _add(
    descriptors: np.ndarray, assigned: np.ndarray, words: tuple[int, int], count: int, before: np.ndarray
) -> np.ndarray:
    """Return the sums of a range of words with these descriptors added to those before."""
    first, last = words
    sums = np.zeros((count, descriptors.shape[1]))
    sums[first:last] = before
    add_rows(descriptors, assigned, words, sums, 1)
    return sums[first:last]


def _take(descriptors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return descriptors[rows]


class SpreadRows:
    """Descriptors [n, D] float32 in parts on a cluster; made for a backend and a number of words."""

    def __init__(self, ray: Any, descriptors: np.ndarray, backend: str, words: int, least: int = PART_ROWS) -> None:
        self._ray = ray
        self._ends = [0, *part_ends(len(descriptors), least, backend, words)]
        self._dim = descriptors.shape[1]
        with ray_errors("descriptors of k-means"):
            self._parts = [ray.put(descriptors[begin:end]) for begin, end in itertools.pairwise(self._ends)]
            self._words = [ray.put(np.empty(0, np.int32))] * len(self._parts)
        task = {"num_cpus": 1, "max_retries": RETRIES, "scheduling_strategy": "SPREAD"}
        self._assign = ray.remote(num_returns=2, **task)(_assign)
        self._add, self._take = ray.remote(**task)(_add), ray.remote(**task)(_take)

    def __len__(self) -> int:
        return self._ends[-1]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return copies of some descriptors, rows increasing, [k, D] float32."""
        asked = []
        for part, (begin, end) in zip(self._parts, itertools.pairwise(self._ends), strict=True):
            own = rows[(rows >= begin) & (rows < end)] - begin
            if len(own):
                asked.append(self._take.remote(part, own))
        with ray_errors("k-means"):
            return np.concatenate(self._ray.get(asked))

    def assign(self, targets: Targets) -> np.ndarray:
        """Give each descriptor a word; returns the squared distances, [n] float32."""
        with ray_errors("k-means"):
            sent = self._ray.put(targets)
            pairs = [
                self._assign.remote(part, sent, words) for part, words in zip(self._parts, self._words, strict=True)
            ]
            self._words = [words for words, _ in pairs]
            return np.concatenate(self._ray.get([distances for _, distances in pairs]))

    def sums(self, words: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of descriptors of each word, [K] int64, and their sum in their order, [K, D] float64."""
        count = max(1, min(RANGES, words // RANGE_WORDS))
        ranges = list(itertools.pairwise(words * number // count for number in range(count + 1)))
        with ray_errors("k-means"):
            sums = [self._ray.put(np.zeros((last - first, self._dim))) for first, last in ranges]
            for part, assigned in zip(self._parts, self._words, strict=True):
                sums = [
                    self._add.remote(part, assigned, own, words, before)
                    for own, before in zip(ranges, sums, strict=True)
                ]
            found = np.concatenate(self._ray.get(sums))
            counts = sum(np.bincount(one, minlength=words) for one in self._ray.get(self._words))
        return np.asarray(counts, np.int64), found
