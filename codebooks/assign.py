"""Exact assignment of descriptors to their k nearest centroids."""

from __future__ import annotations

import itertools

import numpy as np

from asmk_engine import threads
from asmk_engine.kernels.cluster import smallest
from asmk_engine.kernels.nearest import nearest

# A task compares so many descriptors, which should stay in a cache, with at least so many words.
TASK_BYTES = 1 << 20
LEAST_ROWS, MOST_ROWS = 256, 1024
LEAST_WORDS = 2048
TASKS_A_THREAD = 2


def nearest_words(descriptors: np.ndarray, centroids: np.ndarray, k: int, *, workers: int | None = None) -> np.ndarray:
    """The k nearest centroids in L2, nearest first, the lower word first among equals.

    The words of a descriptor depend neither on the number of threads nor on the descriptors beside it.

    Parameters
    ----------
    descriptors : numpy.ndarray, shape [n, D], float32
    centroids : numpy.ndarray, shape [K, D], float32
    k : int
        From 1 to K.
    workers : int, optional
        Threads, all available by default.

    Returns
    -------
    numpy.ndarray, shape [n, k], int32
    """
    descriptors, centroids = (np.ascontiguousarray(array, np.float32) for array in (descriptors, centroids))
    row_parts, word_parts = _parts(len(descriptors), centroids.shape, k, threads.thread_count(workers))
    words = np.empty((len(word_parts), len(descriptors), k), np.int32)
    distances = np.empty(words.shape, np.float32)

    def compare(part: tuple[int, slice]) -> None:
        number, rows = part
        begin, end = word_parts[number]
        nearest(descriptors[rows], centroids, begin, end, words[number, rows], distances[number, rows])

    threads.run(compare, itertools.product(range(len(word_parts)), row_parts), threads.thread_count(workers))
    return words[0] if len(word_parts) == 1 else _merged(words, distances)


def _parts(rows: int, shape: tuple[int, ...], k: int, workers: int) -> tuple[list[slice], list[tuple[int, int]]]:
    """Rows and words of the tasks: the words are divided where the rows give too few tasks."""
    words, dim = shape
    size = min(MOST_ROWS, max(LEAST_ROWS, TASK_BYTES // (4 * dim)))
    row_parts = [slice(begin, begin + size) for begin in range(0, rows, size)]
    wanted = -(-TASKS_A_THREAD * workers // max(len(row_parts), 1)) if workers > 1 else 1
    count = max(1, min(wanted, words // max(LEAST_WORDS, k)))
    ends = [words * number // count for number in range(count + 1)]
    return row_parts, list(itertools.pairwise(ends))


def _merged(words: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """The nearest of those found among parts of the words, [parts, n, k]; the parts are in their order."""
    parts, rows, k = words.shape  # there may be no rows
    shape = rows, parts * k
    beside, found = (np.ascontiguousarray(array.transpose(1, 0, 2)).reshape(shape) for array in (distances, words))
    places, least = np.empty((rows, k), np.int32), np.empty((rows, k), np.float32)
    smallest(beside, k, places, least)
    return np.take_along_axis(found, places, axis=1)
