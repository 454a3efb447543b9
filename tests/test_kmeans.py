"""K-means with rounds through a graph of words: against Lloyd's, and on input that is hard to cluster."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from asmk_engine.codebooks.kmeans import Round, choose_backend, kmeans
from asmk_engine.errors import InputError
from asmk_engine.kernels.cluster import add_by_word, order_by_word
from asmk_engine.kernels.refine import BLOCK, refine

DIM = 8


def clustered(count: int, centres: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    middle = 3 * rng.normal(size=(centres, dim))
    return (middle[rng.integers(0, centres, count)] + rng.normal(size=(count, dim))).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 200), st.integers(1, 30), st.integers(1, 6), st.integers(0, 9), st.integers(0, 2**32))
def test_refining_equals_its_twin(count: int, words: int, links: int, second: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Whole numbers: squared distances are exact, and many of them equal.
    descriptors = rng.integers(-2, 3, (count, 5)).astype(np.float32)
    centroids = rng.integers(-2, 3, (words, 5)).astype(np.float32)
    neighbours = rng.integers(-1, words, (words, links)).astype(np.int32)
    before = rng.integers(0, words, count).astype(np.int32)
    starts = np.empty(words + 1, np.int64)
    order = order_by_word(before, starts)
    found, distances = np.full(count, -1, np.int32), np.empty(count, np.float32)
    cut = int(rng.integers(0, words + 1))
    for first, last in ((0, cut), (cut, words)):
        refine(descriptors, order, starts, first, last, centroids, neighbours, second, found, distances)
    expected = [
        naive.refined_word(descriptor, int(word), centroids, neighbours.tolist(), second)
        for descriptor, word in zip(descriptors, before, strict=True)
    ]
    assert [(int(w), float(d)) for w, d in zip(found, distances, strict=True)] == expected


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_descriptors_of_one_word_may_fill_several_blocks(count: int) -> None:
    descriptors, centroids = clustered(count, 5), clustered(20, 5, seed=1)
    everything = np.array([[w for w in range(20) if w != word] for word in range(20)], np.int32)
    starts = np.full(21, count)
    starts[:8] = 0  # all of them have word 7
    words, distances = np.empty(count, np.int32), np.empty(count, np.float32)
    refine(descriptors, np.arange(count), starts, 0, 20, centroids, everything, 0, words, distances)
    exact = ((descriptors[:, None].astype(np.float64) - centroids) ** 2).sum(axis=2)
    assert np.array_equal(words, exact.argmin(axis=1))
    np.testing.assert_allclose(distances, exact.min(axis=1), rtol=1e-5)


@given(st.lists(st.integers(0, 6), max_size=60))
def test_descriptors_are_ordered_and_summed_by_word(listed: list[int]) -> None:
    words = np.array(listed, np.int32)
    starts = np.full(8, -1)
    order = order_by_word(words, starts)
    assert order.tolist() == sorted(range(len(listed)), key=lambda row: listed[row])
    assert starts.tolist() == [sum(other < word for other in listed) for word in range(8)]
    descriptors = np.random.default_rng(0).normal(size=(len(listed), 3)).astype(np.float32)
    sums = np.zeros((7, 3))
    add_by_word(descriptors, order, starts, 2, 7, sums)
    for word in range(7):
        expected = descriptors[words == word].sum(axis=0, dtype=np.float64) if word >= 2 else np.zeros(3)
        np.testing.assert_allclose(sums[word], expected, atol=1e-12)


@pytest.mark.parametrize("words", [1, 2, 5, 12])
def test_rounds_through_the_graph_are_lloyds_when_it_leads_to_every_word(words: int) -> None:
    descriptors = clustered(300, 12, seed=words)
    start = descriptors[np.sort(np.random.default_rng(3).choice(300, words, replace=False))]
    for rounds in (1, 2, 5):
        expected, distortions = naive.lloyd(descriptors, start, rounds)
        found, history = kmeans(descriptors, words, rounds=rounds, seed=3, backend="graph")
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_allclose([done.distortion for done in history], distortions, rtol=1e-5)


@pytest.mark.parametrize(("words", "dim"), [(600, 16), (2000, 32)])
def test_the_graph_comes_close_to_comparing_all_words(words: int, dim: int) -> None:
    pytest.importorskip("torch")
    descriptors = clustered(12 * words, words // 3, dim)
    rounds = {name: kmeans(descriptors, words, rounds=6, seed=1, backend=name)[1] for name in ("torch", "graph")}
    exact, near = rounds["torch"][-1].distortion, rounds["graph"][-1].distortion
    assert near < 1.02 * exact
    assert rounds["graph"][-1].distortion < rounds["graph"][0].distortion


def test_distortion_is_of_the_words_assigned() -> None:
    descriptors = clustered(4000, 300)
    first, (one,) = kmeans(descriptors, 500, rounds=1, seed=2, backend="graph")
    start = descriptors[np.sort(np.random.default_rng(2).choice(4000, 500, replace=False))].astype(np.float64)
    least = np.array([((descriptor - start) ** 2).sum(axis=1).min() for descriptor in descriptors])
    assert least.mean() <= one.distortion * (1 + 1e-6) and one.distortion < 1.01 * least.mean()
    assert first.dtype == np.float32 and np.isfinite(first).all()


def test_threads_do_not_change_the_centroids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asmk_engine.codebooks.kmeans.TASK_ROWS", 100)
    monkeypatch.setattr("asmk_engine.codebooks.kmeans.WALK_ROWS", 1000)
    descriptors = clustered(5000, 60)
    seen: list[Round] = []
    one, history = kmeans(descriptors, 300, rounds=4, seed=0, backend="graph", workers=1, on_round=seen.append)
    assert seen == history and [done.number for done in history] == [1, 2, 3, 4]
    monkeypatch.undo()
    three, others = kmeans(descriptors, 300, rounds=4, seed=0, backend="graph", workers=3)
    assert np.array_equal(one, three) and history == others


def test_empty_words_are_seeded_anew_and_found() -> None:
    spots = 10 * np.random.default_rng(4).normal(size=(40, DIM)).astype(np.float32)
    descriptors = np.concatenate([np.repeat(spots[:1], 900, axis=0), np.repeat(spots, 5, axis=0)])
    centroids, history = kmeans(descriptors, 40, rounds=30, seed=0, backend="graph")
    assert history[0].reseeded > 20 and history[-1].reseeded == 0 and history[-1].distortion < 1e-6
    assert np.array_equal(np.unique(centroids.round(3), axis=0), np.unique(spots.round(3), axis=0))


@pytest.mark.parametrize("words", [1, 30, 1500])
def test_as_many_words_as_descriptors_are_the_descriptors(words: int) -> None:
    descriptors = clustered(words, max(1, words // 10), seed=7)
    centroids, history = kmeans(descriptors, words, rounds=2, seed=0, backend="graph")
    assert np.array_equal(centroids, descriptors) and history[-1].distortion == 0 and history[-1].reseeded == 0


def test_descriptors_that_are_all_equal_can_be_clustered() -> None:
    centroids, history = kmeans(np.ones((500, DIM), np.float32), 20, rounds=3, seed=0, backend="graph")
    assert (centroids == 1).all() and history[-1].distortion == 0


def test_large_codebooks_are_trained_through_the_graph() -> None:
    assert choose_backend("auto", 65_536) == "graph" and choose_backend("auto", 1024) in ("faiss", "torch")
    assert choose_backend("graph", 1) == "graph"
    with pytest.raises(InputError, match="choose auto, faiss, torch or graph"):
        choose_backend("sklearn", 65_536)
