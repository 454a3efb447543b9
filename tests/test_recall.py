"""The recall that a codebook measures of its graph, and the beam it chooses by it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import naive
from asmk_engine.cli.codebook import build_codebook
from asmk_engine.cli.info import info
from asmk_engine.codebooks import Codebook
from asmk_engine.codebooks.graph import BEAM, SPREAD, build_graph
from asmk_engine.codebooks.recall import (
    LEAST_BEAM,
    SPREADS,
    GraphRecall,
    beams,
    choose_beam,
    recall_from_json,
    true_nearest,
)
from asmk_engine.codebooks.sample import sample_and_hold_out, sample_descriptors
from asmk_engine.errors import DamagedError, InputError, MismatchError
from asmk_engine.features import FeatureSet
from asmk_engine.inverted.index import Index
from samples import RECIPE, random_images, write_features


def plain(centroids: np.ndarray) -> Codebook:
    dim = centroids.shape[1]
    return Codebook(np.zeros(dim, np.float32), np.eye(dim, dtype=np.float32), centroids, RECIPE)


def clusterable(words: int, dim: int, others: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Centroids, and descriptors of the same clusters, two words to a cluster."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(max(1, words // 2), dim))
    drawn = centres[rng.integers(0, len(centres), words + others)] + 0.7 * rng.normal(size=(words + others, dim))
    return drawn[:words].astype(np.float32), drawn[words:].astype(np.float32)


def uniform(words: int, dim: int, others: int = 60) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(4).uniform(size=(words + others, dim)).astype(np.float32)
    return drawn[:words], drawn[words:]


def duplicates(words: int, dim: int, others: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Each word four times."""
    centroids, descriptors = clusterable(words // 4, dim, others)
    return np.repeat(centroids, 4, axis=0), descriptors


DATA = [clusterable, uniform, duplicates]


def recall_twin(codebook: Codebook, descriptors: np.ndarray) -> tuple[float, float]:
    """Recall@1 and recall@5, counted one descriptor at a time against a comparison with all words."""
    k = min(5, codebook.words)
    first = shared = 0
    for descriptor, found in zip(descriptors, codebook.assign(descriptors, k).tolist(), strict=True):
        distances = ((codebook.centroids.astype(np.float64) - descriptor) ** 2).sum(axis=1)
        exact = sorted(range(codebook.words), key=lambda word: (distances[word], word))[:k]
        first += found[0] == exact[0]
        shared += len(set(found) & set(exact))
    return first / len(descriptors), shared / (k * len(descriptors))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(("words", "dim"), [(1, 3), (4, 8), (40, 8), (1200, 24)])
def test_the_recall_is_what_its_twin_counts(data: Callable[..., tuple[np.ndarray, np.ndarray]], words: int, dim: int):
    centroids, descriptors = data(max(words, 4) if data is duplicates else words, dim)
    codebook = plain(centroids).with_assignment("graph", descriptors)
    recall = codebook.graph_recall
    assert recall is not None and codebook.graph is not None
    assert (recall.beam, recall.spread, recall.descriptors) == (codebook.graph.beam, codebook.graph.spread, 60)
    assert (recall.recall_at_1, recall.recall_at_5) == pytest.approx(recall_twin(codebook, descriptors))


@pytest.mark.parametrize("data", DATA)
def test_no_smaller_beam_and_no_smaller_spread_would_do(data: Callable[..., tuple[np.ndarray, np.ndarray]]) -> None:
    centroids, descriptors = data(2000, 12)
    codebook = plain(centroids).with_assignment("graph", descriptors)
    recall = codebook.graph_recall
    tried = [(beam, spread) for beam in beams(2000) for spread in SPREADS]
    enough = []
    for beam, spread in tried:
        graph = replace(codebook.graph, beam=beam, spread=spread)
        at_1, at_5 = recall_twin(replace(codebook, graph=graph), descriptors)
        if at_1 >= 0.99 and at_5 >= 0.98:
            enough.append((beam, spread))
    assert recall.is_enough == bool(enough)
    assert (recall.beam, recall.spread) == (enough[0] if enough else tried[-1])


def test_the_beams_start_with_that_of_five_words_and_end_where_comparing_all_is_as_fast() -> None:
    for words, most in ((1, BEAM), (9216, 72), (16_384, 128), (65_536, 512)):
        tried = list(beams(words))
        assert tried[0] == LEAST_BEAM and BEAM in tried and all(beam % 8 == 0 for beam in tried)
        assert tried == sorted(set(tried)) and most * 0.85 < tried[-1] <= most


def test_the_exact_words_are_those_of_their_twin() -> None:
    centroids, descriptors = duplicates(60, 6, 20)
    expected = [naive.nearest_words(descriptor, centroids, 5) for descriptor in descriptors]
    assert true_nearest(descriptors, centroids).tolist() == expected
    assert true_nearest(descriptors[:2], centroids[:3]).tolist() == [
        naive.nearest_words(descriptor, centroids[:3], 3) for descriptor in descriptors[:2]
    ]


def test_the_beam_does_not_depend_on_the_threads() -> None:
    centroids, descriptors = clusterable(1500, 16, 300)
    graph = build_graph(centroids)
    one, other = (choose_beam(centroids, graph, descriptors, workers=workers) for workers in (1, 3))
    assert one[1] == other[1] and (one[0].beam, one[0].spread) == (other[0].beam, other[0].spread)


def test_where_no_beam_finds_enough_auto_compares_with_all_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asmk_engine.codebooks.graph.GRAPH_WORDS", 1000)
    centroids, descriptors = uniform(3000, 64)
    stated = plain(centroids).with_assignment("graph", descriptors)
    assert stated.assignment == "graph" and stated.graph.beam == BEAM and stated.graph.spread == SPREADS[-1]
    assert stated.graph_recall.recall_at_1 < 0.99 and not stated.graph_recall.is_enough
    given_up = plain(centroids).with_assignment("auto", descriptors)
    assert given_up.assignment == "exact" and given_up.graph_recall == stated.graph_recall
    assert given_up.fingerprint == plain(centroids).fingerprint
    assert plain(centroids).with_assignment("auto").assignment == "graph"  # nothing to measure with
    assert "expected at least 0.990 and 0.980" in str(given_up.graph_recall)


def test_without_a_sample_nothing_is_measured_and_the_usual_beam_stays() -> None:
    centroids, descriptors = clusterable(300, 8)
    for sample in (None, descriptors[:0]):
        codebook = plain(centroids).with_assignment("graph", sample)
        assert codebook.graph_recall is None
        assert (codebook.graph.beam, codebook.graph.spread) == (BEAM, SPREAD)
    measured = plain(centroids).with_assignment("graph", descriptors)
    assert measured.with_assignment("exact").graph_recall is None
    assert measured.with_assignment("graph").graph_recall is None


def test_a_sample_that_does_not_fit_is_refused() -> None:
    centroids, descriptors = clusterable(30, 8)
    with pytest.raises(MismatchError, match=r"expects \[n, 8\]"):
        plain(centroids).with_assignment("graph", descriptors[:, :3])
    with pytest.raises(InputError, match="NaN"):
        plain(centroids).with_assignment("graph", np.full((2, 8), np.nan, np.float32))


def test_raw_descriptors_are_projected_before_they_are_measured() -> None:
    centroids, descriptors = clusterable(400, 8)
    rng = np.random.default_rng(0)
    projection = np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)
    mean = rng.normal(size=8).astype(np.float32)
    codebook = Codebook(mean, projection, centroids, RECIPE).with_assignment("graph", descriptors @ projection + mean)
    assert codebook.graph_recall == plain(centroids).with_assignment("graph", descriptors).graph_recall


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    return write_features(tmp_path / "features", random_images(60, 8, features=40))


def rows(descriptors: np.ndarray) -> set[bytes]:
    return {descriptor.tobytes() for descriptor in descriptors}


def test_what_is_held_out_is_not_in_the_sample_and_changes_nothing_where_enough_is_left(features: FeatureSet) -> None:
    total = features.descriptor_count
    for count in (0, 1, total // 2, total - total // 20):
        sample, held_out = sample_and_hold_out(features, count, 10_000, np.random.default_rng(5))
        assert np.array_equal(sample, sample_descriptors(features, count, np.random.default_rng(5)))
        assert len(held_out) == total // 20 and not rows(sample) & rows(held_out)
    sample, held_out = sample_and_hold_out(features, 10 * total, 7, np.random.default_rng(5))
    stored = np.concatenate([image.descriptors for _, image in features.images()])
    assert (len(sample), len(held_out)) == (total - 7, 7) and rows(sample) | rows(held_out) == rows(stored)


def test_what_is_held_out_is_drawn_uniformly(features: FeatureSet) -> None:
    stored = np.concatenate([image.descriptors for _, image in features.images()])
    drawn = np.zeros(len(stored))
    for seed in range(400):
        held_out = sample_and_hold_out(features, len(stored) // 2, 10_000, np.random.default_rng(seed))[1]
        drawn += np.isin(stored[:, 0], held_out[:, 0])
    assert drawn.max() < 55 and abs(drawn[: len(stored) // 2].mean() - 20) < 1.5  # 20 expected, binomial


def test_training_holds_out_only_for_a_graph_and_learns_the_same_words(features: FeatureSet) -> None:
    options = {"rounds": 2, "seed": 3, "training_per_word": 30}
    exact = Codebook.train(features, 16, assignment="exact", **options)
    linked = Codebook.train(features, 16, assignment="graph", **options)
    assert exact.graph_recall is None
    assert np.array_equal(exact.centroids, linked.centroids) and exact.training == linked.training
    assert linked.graph_recall.descriptors == features.descriptor_count // 20
    again = Codebook.train(features, 16, assignment="graph", **options)
    assert again.graph_recall == linked.graph_recall and again.fingerprint == linked.fingerprint
    everything = Codebook.train(features, 16, assignment="graph", rounds=1, training_per_word=1000)
    assert everything.training["descriptors"] == features.descriptor_count - features.descriptor_count // 20
    one = Codebook.train(write_features(features.path.parent / "one", random_images(2, 8)), 1, assignment="graph")
    assert one.assignment == "graph"


def test_training_gives_a_graph_up_that_finds_too_little(features: FeatureSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asmk_engine.codebooks.graph.GRAPH_WORDS", 8)
    monkeypatch.setattr("asmk_engine.codebooks.recall.LEAST_AT_1", 1.01)
    given_up = Codebook.train(features, 16, rounds=1)
    assert given_up.assignment == "exact" and given_up.graph_recall is not None
    assert Codebook.train(features, 16, rounds=1, assignment="graph").assignment == "graph"


@pytest.mark.parametrize("kept", [True, False])
def test_files_and_indexes_keep_and_show_what_was_measured(kept: bool, tmp_path: Path) -> None:
    centroids, descriptors = clusterable(600, 8)
    codebook = plain(centroids).with_assignment("graph", descriptors)
    wide = replace(codebook.graph, beam=88, spread=1.25)
    recall = GraphRecall(88, 1.25, 1234, 0.995, 0.9875) if kept else GraphRecall(88, 1.25, 1234, 0.5, 0.25)
    codebook = replace(codebook, graph=wide if kept else None, graph_recall=recall)
    codebook.save(tmp_path / "c.h5")
    Index.create(tmp_path / "x.index", codebook)
    for found in (Codebook.open(tmp_path / "c.h5"), Index.open(tmp_path / "x.index").codebook):
        assert found.graph_recall == recall and found.fingerprint == codebook.fingerprint
        assert np.array_equal(found.assign(descriptors, 5), codebook.assign(descriptors, 5))
        assert found.graph is None or (found.graph.beam, found.graph.spread) == (88, 1.25)
    line = "graph              beam 88, spread 1.25, recall@1 0.9950, recall@5 0.9875 on 1 234 held-out descriptors"
    if not kept:
        line = (
            "graph              not used, recall@1 0.5000, recall@5 0.2500 at beam 88 on 1 234 held-out descriptors, "
            "too low"
        )
    for path in (tmp_path / "c.h5", tmp_path / "x.index"):
        assert line in CliRunner().invoke(info, [str(path)]).output.splitlines()
        assert json.loads(CliRunner().invoke(info, [str(path), "--json"]).output)["graph"] == {
            "beam": 88 if kept else None,
            "spread": 1.25 if kept else None,
            "measured_beam": 88,
            "descriptors": 1234,
            "recall_at_1": recall.recall_at_1,
            "recall_at_5": recall.recall_at_5,
            "enough": kept,
        }


def test_a_graph_that_was_not_measured_says_so(tmp_path: Path) -> None:
    plain(clusterable(30, 8)[0]).with_assignment("graph").save(tmp_path / "c.h5")
    output = CliRunner().invoke(info, [str(tmp_path / "c.h5")]).output
    assert "graph              beam 72, spread 1.11, recall not measured" in output.splitlines()
    plain(clusterable(30, 8)[0]).save(tmp_path / "c.h5")
    assert json.loads(CliRunner().invoke(info, [str(tmp_path / "c.h5"), "--json"]).output)["graph"] is None


def test_files_of_earlier_versions_keep_their_beam_and_fingerprint(tmp_path: Path) -> None:
    """What is not measured is written as earlier versions wrote it, and the fingerprint is computed as they did."""
    codebook = plain(clusterable(300, 8)[0]).with_assignment("graph")
    codebook.save(tmp_path / "c.h5")
    with h5py.File(tmp_path / "c.h5") as file:
        assert set(file.attrs) == {
            "kind", "format", "recipe", "training", "fingerprint", "assignment", "graph_beam",
        }  # fmt: skip
        assert file.attrs["graph_beam"] == 72
        digest = hashlib.sha256(file.attrs["recipe"].encode() + b"graph 72")
        for key in ("mean", "projection", "centroids", "graph_neighbours", "graph_entries"):
            digest.update(repr(file[key].shape).encode() + file[key][:].tobytes())
        assert file.attrs["fingerprint"] == digest.hexdigest()
    found = Codebook.open(tmp_path / "c.h5")
    assert (found.graph.beam, found.graph.spread, found.graph_recall) == (72, 1.11, None)


def test_another_beam_or_spread_is_another_codebook_but_another_measurement_is_not() -> None:
    codebook = plain(clusterable(300, 8)[0]).with_assignment("graph")
    wider = replace(codebook, graph=replace(codebook.graph, beam=80))
    further = replace(codebook, graph=replace(codebook.graph, spread=1.25))
    assert len({one.fingerprint for one in (codebook, wider, further)}) == 3
    measured = replace(codebook, graph_recall=GraphRecall(72, 1.11, 60, 1.0, 1.0))
    assert measured.fingerprint == codebook.fingerprint


def test_a_damaged_measurement_or_spread_is_refused(tmp_path: Path) -> None:
    good = json.loads(GraphRecall(72, 1.11, 60, 1.0, 1.0).to_json())
    assert recall_from_json(json.dumps(good), "c") == GraphRecall(72, 1.11, 60, 1.0, 1.0)
    assert recall_from_json(None, "c") is None
    bad = [{"beam": 0}, {"beam": 7.5}, {"descriptors": "x"}, {"recall_at_1": 1.5}, {"recall_at_5": float("nan")}]
    bad += [{"spread": 0.5}, {"spread": float("inf")}, {"other": 1}, {"recall_at_1": None}]
    for text in ["", "[]", "7", "{}", *(json.dumps(good | change) for change in bad)]:
        with pytest.raises(DamagedError, match="c: the recall of its graph is not readable"):
            recall_from_json(text, "c")
    for key, value in (("graph_spread", 0.9), ("graph_spread", "wide"), ("graph_spread", 1.2), ("graph_recall", "?")):
        plain(clusterable(30, 8)[0]).with_assignment("graph").save(tmp_path / "c.h5")
        with h5py.File(tmp_path / "c.h5", "a") as file:
            file.attrs[key] = value
        with pytest.raises(DamagedError, match=r"c\.h5"):
            Codebook.open(tmp_path / "c.h5")


def test_the_command_says_what_was_measured(features: FeatureSet, tmp_path: Path) -> None:
    command = [str(features.path), "-o", str(tmp_path / "c.h5"), "--words", "8", "--rounds", "1"]
    said = CliRunner().invoke(build_codebook, [*command, "--assignment", "graph"])
    assert said.exit_code == 0
    count = features.descriptor_count // 20
    measured = f"recall@1 1.0000, recall@5 1.0000 at beam 40 on {count} descriptors"
    assert f"graph assignment: the graph of words has {measured}" in said.output.splitlines()
    assert "graph of words" not in CliRunner().invoke(build_codebook, command).output
