"""Exact assignment: the kernel that multiplies and chooses in one pass, and how its work is divided."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asmk_engine.codebooks import assign
from asmk_engine.codebooks.assign import nearest_words
from asmk_engine.kernels.nearest import PANEL, ROWS, nearest


def twin(descriptors: np.ndarray, centroids: np.ndarray, k: int) -> np.ndarray:
    """By the definition: squared distances in float64, sorted with the lower word first among equals."""
    rows = []
    for descriptor in descriptors.astype(np.float64):
        distances = [sum((x - y) ** 2 for x, y in zip(descriptor, word, strict=True)) for word in centroids.tolist()]
        rows.append(sorted(range(len(distances)), key=lambda word, found=distances: (found[word], word))[:k])
    return np.array(rows, np.int32).reshape(len(descriptors), k)


def whole_numbers(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Small whole numbers: their distances are exact in float32, and many are equal."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


@given(
    st.integers(0, 2 * ROWS + 3),
    st.integers(1, 2 * PANEL + 5),
    st.integers(1, 9),
    st.integers(1, 7),
    st.integers(0, 2**32),
)
def test_the_nearest_are_those_of_the_twin(rows: int, words: int, dim: int, k: int, seed: int) -> None:
    descriptors, centroids, k = whole_numbers((rows, dim), seed), whole_numbers((words, dim), seed + 1), min(k, words)
    np.testing.assert_array_equal(nearest_words(descriptors, centroids, k), twin(descriptors, centroids, k))


@given(st.integers(0, 40), st.integers(1, 90), st.integers(0, 2**32))
def test_a_part_of_the_words(first: int, count: int, seed: int) -> None:
    descriptors, centroids = whole_numbers((5, 4), seed), whole_numbers((first + count + 3, 4), seed + 1)
    k = min(count, 3)
    words, distances = np.full((5, k), -1, np.int32), np.full((5, k), np.nan, np.float32)
    nearest(descriptors, centroids, first, first + count, words, distances)
    np.testing.assert_array_equal(words, first + twin(descriptors, centroids[first : first + count], k))
    expected = ((descriptors[:, None] - centroids[words]) ** 2).sum(axis=2) - (descriptors**2).sum(axis=1)[:, None]
    np.testing.assert_array_equal(distances, expected)


@pytest.mark.parametrize("dim", [1, 3, 16, 40, 128, 1024])
def test_distances_of_real_numbers(dim: int) -> None:
    rng = np.random.default_rng(dim)
    descriptors, centroids = (rng.normal(size=(count, dim)).astype(np.float32) for count in (40, 70))
    words, distances = np.empty((40, 70), np.int32), np.empty((40, 70), np.float32)
    nearest(descriptors, centroids, 0, 70, words, distances)
    assert (np.sort(words, axis=1) == np.arange(70)).all()
    assert (np.diff(distances, axis=1) >= 0).all()
    wide, far = descriptors.astype(np.float64), centroids.astype(np.float64)[words]
    expected = ((wide[:, None] - far) ** 2).sum(axis=2) - (wide**2).sum(axis=1)[:, None]
    lengths = np.sqrt((wide**2).sum(axis=1)).max() + np.sqrt((far**2).sum(axis=2)).max()
    rounding = (dim + 2) * 2.0**-24 * lengths**2  # of a sum in any order (Higham, section 3.1)
    np.testing.assert_allclose(distances, expected, rtol=0, atol=rounding)


@pytest.mark.parametrize("k", [1, 5])
def test_nothing_depends_on_threads_parts_or_the_rows_beside(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    descriptors, centroids = (rng.normal(size=(count, 24)).astype(np.float32) for count in (150, 500))
    centroids[300:] = centroids[:200]  # equal words in different parts
    whole = nearest_words(descriptors, centroids, k, workers=1)
    np.testing.assert_array_equal(np.concatenate([nearest_words(d[None], centroids, k) for d in descriptors]), whole)
    for name, value in {"LEAST_ROWS": 8, "MOST_ROWS": 40, "LEAST_WORDS": 64, "TASK_BYTES": 1}.items():
        monkeypatch.setattr(assign, name, value)
    for workers in (1, 2, 3, 64):
        np.testing.assert_array_equal(nearest_words(descriptors, centroids, k, workers=workers), whole)


def test_all_words_in_their_order() -> None:
    descriptors, centroids = whole_numbers((30, 6), 0), whole_numbers((100, 6), 1)
    np.testing.assert_array_equal(nearest_words(descriptors, centroids, 100), twin(descriptors, centroids, 100))


def test_any_layout_and_nothing_at_all() -> None:
    descriptors, centroids = whole_numbers((20, 12), 0), whole_numbers((50, 12), 1)
    expected = nearest_words(descriptors, centroids, 2)
    fortran = nearest_words(np.asfortranarray(descriptors), np.asfortranarray(centroids), 2)
    np.testing.assert_array_equal(fortran, expected)
    frozen = centroids.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(nearest_words(descriptors.astype(np.float16), frozen, 2), expected)
    assert nearest_words(descriptors[:0], centroids, 2).shape == (0, 2)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_no_descriptor_among_many_words(workers: int) -> None:
    """So many words that they are divided among threads."""
    found = nearest_words(
        np.empty((0, 4), np.float32), whole_numbers((4 * assign.LEAST_WORDS, 4), 0), 5, workers=workers
    )
    assert found.shape == (0, 5)


def test_distances_beyond_all_numbers_leave_the_words_in_bounds() -> None:
    """Where a square overflows, any word will do, but one there is."""
    descriptors = np.full((3, 4), 1e30, np.float32)
    descriptors[1] = -1e30
    centroids = np.concatenate([np.full((40, 4), 1e30, np.float32), np.zeros((1, 4), np.float32)])
    words = nearest_words(descriptors, centroids, 41)
    assert (np.sort(words, axis=1) == np.arange(41)).all()
    first = nearest_words(descriptors, centroids, 1)
    assert ((first >= 0) & (first < 41)).all()
