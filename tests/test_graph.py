"""Assignment through the graph: against comparing all words, and with malicious graphs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from asmk_engine.codebooks import Codebook
from asmk_engine.codebooks.graph import BEAM, ENTRIES, Graph, Navigator, build_graph
from asmk_engine.errors import DamagedError, InputError
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.kernels.graph import quantise, reach, search, thin
from samples import RECIPE, random_codebook, random_images, write_features

DIM = 8


def clustered(count: int, dim: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(max(1, count // 50), dim))
    return (centres[rng.integers(0, len(centres), count)] + rng.normal(size=(count, dim))).astype(np.float32)


def linked(centroids: np.ndarray) -> Codebook:
    dim = centroids.shape[1]
    plain = Codebook(np.zeros(dim, np.float32), np.eye(dim, dtype=np.float32), centroids, RECIPE)
    return plain.with_assignment("graph")


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    shared = [len({*one} & {*other}) for one, other in zip(found.tolist(), exact.tolist(), strict=True)]
    return float(np.mean(shared)) / found.shape[1]


def reachable(graph: Graph) -> set[int]:
    seen: set[int] = set()
    waiting = graph.entries.tolist()
    while waiting:
        word = waiting.pop()
        if word not in seen:
            seen.add(word)
            waiting += [other for other in graph.neighbours[word].tolist() if other >= 0]
    return seen


@pytest.fixture(scope="module")
def large() -> Codebook:
    return linked(clustered(6000, 32))


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return clustered(6000, 32, seed=0)[::10] + np.random.default_rng(5).normal(size=(600, 32)).astype(np.float32)


def test_nearly_all_of_the_nearest_words_are_found(large: Codebook, queries: np.ndarray) -> None:
    exact = large.assign(queries, 5, exact=True)
    found = large.assign(queries, 5)
    assert found.dtype == np.int32 and found.shape == (600, 5)
    assert np.mean(found[:, 0] == exact[:, 0]) > 0.99 and recall(found, exact) > 0.98


def test_words_are_in_the_order_of_their_true_distances(large: Codebook, queries: np.ndarray) -> None:
    for query, words in zip(queries[:50], large.assign(queries[:50], 7), strict=True):
        distances = ((large.centroids[words].astype(np.float64) - query) ** 2).sum(axis=1)
        assert len(set(words.tolist())) == 7 and (np.diff(distances) > -1e-4).all()


def test_a_beam_over_everything_that_is_reached_finds_what_comparing_all_finds(large: Codebook) -> None:
    queries = clustered(40, 32, seed=9)
    found = Navigator(large.centroids, large.graph).nearest(queries, 60, beam=large.words)
    assert np.array_equal(found[:, :12], large.assign(queries, 12, exact=True))


def test_threads_and_batches_do_not_change_a_word(large: Codebook, queries: np.ndarray) -> None:
    whole = large.assign_projected(queries, 5, threads=1)
    assert np.array_equal(whole, large.assign_projected(queries, 5, threads=2))
    for size in (1, 7, 64, 65):
        parts = [large.assign_projected(queries[i : i + size], 5, threads=2) for i in range(0, 130, size)]
        assert np.array_equal(np.concatenate(parts)[:130], whole[:130])
    assert large.assign_projected(queries[:0], 5).shape == (0, 5)
    assert np.array_equal(large.assign_projected(queries[::2], 5), whole[::2])


def test_the_graph_is_the_same_each_time_and_leads_everywhere(large: Codebook) -> None:
    again = build_graph(large.centroids, workers=1)
    assert np.array_equal(again.neighbours, large.graph.neighbours)
    assert np.array_equal(again.entries, large.graph.entries)
    assert reachable(large.graph) == set(range(large.words))
    for word, row in enumerate(large.graph.neighbours):
        kept = row[row >= 0].tolist()
        assert word not in kept and len(set(kept)) == len(kept) and (row[len(kept) :] == -1).all()


def test_a_graph_of_centroids_nearby_is_a_good_start(large: Codebook, queries: np.ndarray) -> None:
    moved = large.centroids + 0.05 * np.random.default_rng(1).normal(size=large.centroids.shape).astype(np.float32)
    codebook = replace(large, centroids=moved, graph=build_graph(moved, start=large.graph))
    assert recall(codebook.assign(queries, 5), codebook.assign(queries, 5, exact=True)) > 0.98


@settings(max_examples=30, deadline=None)
@given(st.integers(1, ENTRIES), st.integers(1, 70), st.integers(0, 2**32))
def test_small_codebooks_are_assigned_as_their_twin_says(words: int, dim: int, seed: int) -> None:
    centroids = random_codebook(words, dim, seed).centroids
    codebook = linked(centroids)
    descriptors = np.random.default_rng(seed).normal(size=(5, dim)).astype(np.float32)
    k = min(words, 5)
    assert codebook.assign(descriptors, k).tolist() == [naive.nearest_words(d, centroids, k) for d in descriptors]


@pytest.mark.parametrize("words", [1, 2, 3, 30, 97, 300])
def test_every_number_of_words_can_be_asked_for(words: int) -> None:
    codebook = linked(clustered(words, DIM))
    descriptors = clustered(9, DIM, seed=4)
    for k in {1, 2, words} & set(range(1, words + 1)):
        found = codebook.assign(descriptors, k)
        assert all(len(set(row)) == k for row in found.tolist()) and found.min() >= 0 and found.max() < words
    assert sorted(codebook.assign(descriptors, words)[0].tolist()) == list(range(words))


@pytest.mark.parametrize("copies", [4, 300, 1500])
def test_equal_centroids_give_the_lower_word_first(copies: int) -> None:
    codebook = linked(np.ones((copies, DIM), np.float32))
    assert reachable(codebook.graph) == set(range(copies))
    found = codebook.assign(np.ones((2, DIM), np.float32), 4)
    assert found[0].tolist() == sorted(set(found[0].tolist())) and np.array_equal(found[0], found[1])
    mixed = linked(np.repeat(clustered(copies, DIM), 3, axis=0))
    words = mixed.assign(mixed.centroids[::3], 3)
    assert recall(words, 3 * np.arange(copies)[:, None] + np.arange(3)) > 0.98


def test_components_far_out_do_not_spoil_the_rest() -> None:
    centroids = clustered(2000, DIM)
    centroids[7, 3] = 1e6
    codebook = linked(centroids)
    descriptors = clustered(200, DIM, seed=3)
    assert recall(codebook.assign(descriptors, 3), codebook.assign(descriptors, 3, exact=True)) > 0.98
    huge = np.full((3, DIM), 3e38, np.float32) * [[1], [-1], [0]]
    assert codebook.assign(huge.astype(np.float32), 2).max() < 2000


def test_quantising_rounds_clips_and_pads() -> None:
    out = np.full((2, 32), 9, np.int8)
    quantise(np.array([[0.26, -1], [99, -99]], np.float32), np.array([0, 1], np.float32), np.float32(10), out)
    assert out[:, :2].tolist() == [[3, -20], [127, -127]] and not out[:, 2:].any()


def test_thinning_keeps_what_no_neighbour_is_nearer_to() -> None:
    codes = np.zeros((6, 32), np.int8)
    codes[:, 0] = [0, 1, 2, -3, 5, 0]
    codes[5, 1] = 4
    starts = np.array([0, 9, 9, 9, 9, 9, 9])
    candidates = np.array([4, 3, 2, 1, 1, 0, -7, 99, 5], np.int32)
    neighbours = np.full((6, 4), 77, np.int32)
    thin(codes, 0, 2, starts, candidates, 1.0, neighbours)
    assert neighbours[0].tolist() == [1, 3, 5, -1] and neighbours[1].tolist() == [-1] * 4
    assert (neighbours[2:] == 77).all()
    thin(codes, 0, 1, starts, candidates, 1e9, neighbours)
    assert neighbours[0].tolist() == [1, 2, 3, 5]


def test_reaching_counts_each_word_once() -> None:
    neighbours = np.array([[1, 2], [0, -1], [2, 9], [0, -1]], np.int32)
    reached, queue = np.zeros(4, np.uint8), np.empty(4, np.int32)
    assert reach(neighbours, 0, reached, queue) == 3 and reached.tolist() == [1, 1, 1, 0]
    assert reach(neighbours, 1, reached, queue) == 0 and reach(neighbours, 3, reached, queue) == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 6), st.integers(1, 50), st.sampled_from([32, 64, 128]))
def test_no_bytes_of_a_graph_lead_the_search_astray(seed: int, words: int, k: int, beam: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    centroids = rng.normal(size=(words, DIM)).astype(np.float32)
    codes = rng.integers(-128, 128, (words, width)).astype(np.int8)
    wild = rng.integers(-(2**31), 2**31, 5 * words)
    tame = rng.integers(-1, words + 2, 5 * words)
    links = np.where(rng.random(5 * words) < 0.5, tame, wild).astype(np.int32)
    starts = np.arange(0, 5 * words + 1, 5, dtype=np.int32)
    starts[rng.random(words + 1) < 0.2] = rng.integers(-(2**31), 2**31)
    entries = np.concatenate([rng.integers(-(2**31), 2**31, 3), rng.integers(0, words, 3)]).astype(np.int32)
    labels, spread = rng.permutation(words).astype(np.int32), rng.choice([1.0, 1.1, np.inf])
    room = np.full((10, k), 7777, np.int32)  # the rows around those written stay as they are
    queries = rng.normal(size=(8, DIM)).astype(np.float32)
    asked = codes[:1].repeat(8, axis=0)
    search(queries, asked, centroids, codes, labels, starts, links, entries, beam, spread, room[1:9])
    assert (room[[0, 9]] == 7777).all() and room[1:9].min() >= -1 and room[1:9].max() < words
    for row in room[1:9].tolist():
        found = [word for word in row if word >= 0]
        assert len(set(found)) == len(found) and row[: len(found)] == found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 9), st.integers(1, 40), st.sampled_from([32, 96, 128]))
def test_the_search_walks_as_its_twin(seed: int, words: int, degree: int, beam: int, width: int) -> None:
    """Small whole numbers, so that 8-bit copies are exact and many distances are equal."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(-2, 3, (words, width)).astype(np.int8)
    asked = rng.integers(-2, 3, (5, width)).astype(np.int8)
    rows = [rng.permutation(words)[: rng.integers(0, degree + 1)].tolist() for _ in range(words)]
    starts = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    links = np.array([place for row in rows for place in row], np.int32)
    entries = rng.integers(0, words, 2).astype(np.int32)
    labels, spread = rng.permutation(words).astype(np.int32), rng.choice([1.0, 1.1, np.inf])
    centroids = codes[np.argsort(labels)].astype(np.float32)
    found = np.empty((5, 4), np.int32)
    search(asked.astype(np.float32), asked, centroids, codes, labels, starts, links, entries, beam, spread, found)
    for query, row in zip(asked, found.tolist(), strict=True):
        assert row == naive.walk(query, codes, labels.tolist(), rows, entries.tolist(), beam, spread, 4)


@pytest.mark.parametrize("dim", [1, 31, 33, 127, 128, 129, 200])
def test_every_number_of_dimensions_is_assigned(dim: int) -> None:
    rng = np.random.default_rng(dim)
    codebook = linked(rng.uniform(size=(1500, dim)).astype(np.float32))
    descriptors = (codebook.centroids[::10] + 0.05 * rng.normal(size=(150, dim))).astype(np.float32)
    exact = codebook.assign(descriptors, 3, exact=True)
    found = Navigator(codebook.centroids, codebook.graph).nearest(descriptors, 60, beam=1500)[:, :3]
    assert recall(found, exact) > 0.99


def test_more_queries_than_there_are_marks_do_not_disturb_each_other(large: Codebook) -> None:
    codes = clustered(large.words, 32, seed=3).astype(np.int8)
    starts = np.concatenate([[0], np.cumsum((large.graph.neighbours >= 0).sum(axis=1))]).astype(np.int32)
    graph = (starts, large.graph.neighbours[large.graph.neighbours >= 0], large.graph.entries)
    asked, found = codes[:600], np.empty((600, 3), np.int32)
    rest = (large.centroids, codes, np.arange(large.words, dtype=np.int32), *graph, 24, np.inf)
    search(asked.astype(np.float32), asked, *rest, found)
    for row in (0, 254, 255, 256, 509, 510, 599):
        alone = np.empty((1, 3), np.int32)
        search(asked[row : row + 1].astype(np.float32), asked[row : row + 1], *rest, alone)
        assert np.array_equal(alone[0], found[row])


def test_a_graph_that_leads_nowhere_costs_time_but_no_words() -> None:
    whole = linked(clustered(300, DIM))
    lost = Graph(np.full((300, 4), -1, np.int32), np.array([3], np.int32))
    codebook, descriptors = replace(whole, graph=lost), clustered(20, DIM, seed=2)
    assert np.array_equal(codebook.assign(descriptors, 4), whole.assign(descriptors, 4, exact=True))
    assert (codebook.assign(descriptors, 1) == 3).all()


def test_assignment_is_chosen_by_name_or_by_the_number_of_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = write_features(tmp_path / "f", random_images(40, DIM, features=40))
    assert Codebook.train(features, 8, rounds=1).assignment == "exact"
    assert Codebook.train(features, 8, rounds=1, assignment="graph").assignment == "graph"
    monkeypatch.setattr("asmk_engine.codebooks.graph.GRAPH_WORDS", 8)
    assert Codebook.train(features, 8, rounds=1).assignment == "graph"
    assert Codebook.train(features, 8, rounds=1, assignment="exact").assignment == "exact"
    assert Codebook.train(features, 7, rounds=1).assignment == "exact"
    with pytest.raises(InputError, match="choose auto, exact, graph"):
        Codebook.train(features, 8, assignment="hnsw")


def test_a_file_and_an_index_bring_the_graph_back(tmp_path: Path) -> None:
    codebook = linked(clustered(400, DIM))
    codebook = replace(codebook, graph=replace(codebook.graph, beam=33))
    codebook.save(tmp_path / "c.h5")
    Index.create(tmp_path / "index", codebook)
    descriptors = clustered(50, DIM, seed=7)
    for found in (Codebook.open(tmp_path / "c.h5"), Index.open(tmp_path / "index").codebook):
        assert found.assignment == "graph" and found.graph.beam == 33
        assert found.fingerprint == codebook.fingerprint
        assert np.array_equal(found.graph.neighbours, codebook.graph.neighbours)
        assert np.array_equal(found.graph.entries, codebook.graph.entries)
        assert np.array_equal(found.assign(descriptors, 5), codebook.assign(descriptors, 5))


def test_the_fingerprint_covers_the_graph() -> None:
    codebook = linked(clustered(100, DIM))
    other = codebook.graph.neighbours.copy()
    other[5, 0] = -1
    same = [
        codebook.with_assignment("exact"),
        codebook,
        replace(codebook, graph=replace(codebook.graph, beam=BEAM + 1)),
        replace(codebook, graph=replace(codebook.graph, neighbours=other)),
        replace(codebook, graph=replace(codebook.graph, entries=codebook.graph.entries[1:].copy())),
    ]
    assert len({one.fingerprint for one in same}) == len(same)
    assert codebook.fingerprint == linked(codebook.centroids).fingerprint


def test_files_without_a_word_on_assignment_are_exact(tmp_path: Path) -> None:
    codebook = random_codebook(30, DIM)
    codebook.save(tmp_path / "c.h5")
    with h5py.File(tmp_path / "c.h5", "a") as file:
        del file.attrs["assignment"]
    found = Codebook.open(tmp_path / "c.h5")
    assert found.assignment == "exact" and found.fingerprint == codebook.fingerprint


def bad_graphs(graph: Graph) -> dict[str, Graph]:
    wild, low = graph.neighbours.copy(), graph.neighbours.copy()
    wild[3, 0], low[3, 0] = len(wild), -2
    return {
        "number too large": replace(graph, neighbours=wild),
        "number too small": replace(graph, neighbours=low),
        "dtype": replace(graph, neighbours=graph.neighbours.astype(np.int64)),
        "rows": replace(graph, neighbours=graph.neighbours[:-1]),
        "flat": replace(graph, neighbours=graph.neighbours[:, 0]),
        "narrow": replace(graph, neighbours=graph.neighbours[:, :0]),
        "no entry": replace(graph, entries=graph.entries[:0]),
        "wild entry": replace(graph, entries=np.array([-1], np.int32)),
        "entries dtype": replace(graph, entries=graph.entries.astype(np.float32)),
        "many entries": replace(graph, entries=np.zeros(len(wild) + 1, np.int32)),
        "no beam": replace(graph, beam=0),
        "endless beam": replace(graph, beam=1 << 40),
    }


BAD = list(bad_graphs(build_graph(clustered(100, DIM))))


@pytest.mark.parametrize("case", BAD)
def test_a_damaged_graph_is_refused(case: str, tmp_path: Path) -> None:
    codebook = linked(clustered(100, DIM))
    bad = bad_graphs(codebook.graph)[case]
    with pytest.raises(DamagedError, match=r"codebook: .*expected.*restore a copy"):
        replace(codebook, graph=bad)
    path = tmp_path / "c.h5"
    object.__setattr__(codebook, "graph", bad)
    codebook.save(path)
    with pytest.raises(DamagedError, match=r"c\.h5"):
        Codebook.open(path)
    with pytest.raises(DamagedError, match=r"codebook-.*safetensors"):
        Index.create(tmp_path / "index", codebook)


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    for key, value in (("assignment", "hnsw"), ("assignment", "exact"), ("graph_beam", 41), ("graph_beam", "wide")):
        linked(clustered(100, DIM)).save(path)
        with h5py.File(path, "a") as file:
            file.attrs[key] = value
        with pytest.raises(DamagedError, match=r"c\.h5"):
            Codebook.open(path)
    linked(clustered(100, DIM)).save(path)
    with h5py.File(path, "a") as file:
        del file["graph_entries"]
    with pytest.raises(DamagedError, match=r"c\.h5"):
        Codebook.open(path)


def test_an_index_through_the_graph_finds_its_images(tmp_path: Path) -> None:
    images = random_images(30, DIM, features=30)
    codebook = linked(clustered(500, DIM))
    index = Index.create(tmp_path / "index", codebook)
    index.add(write_features(tmp_path / "f", images))
    searcher = Searcher(Index.open(tmp_path / "index"))
    for name, features in images.items():
        if len(features) > 5:
            assert searcher.search(features, 1)[0].name == name


def test_projection_in_small_products_is_the_same_but_for_rounding() -> None:
    rng = np.random.default_rng(0)
    projection = rng.normal(size=(16, 128)).astype(np.float32)
    mean, centroids = rng.normal(size=128).astype(np.float32), clustered(100, 16)
    plain = Codebook(mean, projection, centroids, RECIPE)
    for count in (0, 1, 127, 128, 300):
        descriptors = rng.normal(size=(count, 128)).astype(np.float16)
        twin = (descriptors.astype(np.float64) - mean) @ projection.T.astype(np.float64)
        for codebook in (plain, plain.with_assignment("graph")):
            np.testing.assert_allclose(codebook.project(descriptors), twin, rtol=1e-4, atol=1e-3)
