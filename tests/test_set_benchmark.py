"""The benchmark of a re-ranker of mutual neighbours: its rankings, its network, and its self-made pairs."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from asmk_engine.demo import bundled_photos
from asmk_engine.images.decoding import view_image
from asmk_engine.verification.match import Verification
from asmk_engine.verification.mutual import ImageVectors, MutualNeighbours, compare
from asmk_engine.verification.reranking import Reranking
from audit_samples import save
from samples import ENVIRONMENT

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
COMPARED = 10


@pytest.fixture(scope="module")
def scripts() -> Any:
    """The modules of the benchmark, which find each other in their folder."""
    names = ("set_reranking", "set_pairs", "set_network", "reranking", "halves")
    sys.path.insert(0, str(FOLDER))
    yield {name: importlib.import_module(name) for name in names}
    sys.path.remove(str(FOLDER))
    for name in names:
        sys.modules.pop(name)


@pytest.fixture(scope="module")
def half(scripts: dict[str, ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("halves")
    scripts["set_reranking"].draw_halves(folder, ["drawn"])
    return scripts["set_pairs"].SearchedHalf(folder / "train", "drawn", 0, folder, 16)


def test_nothing_added_is_the_ranking_by_both(scripts: Any, half: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = Reranking.by_both(COMPARED)
    monkeypatch.setattr(scripts["set_pairs"], "IMAGES", COMPARED)
    monkeypatch.setattr(scripts["set_pairs"], "BOTH", rule)
    untrained = scripts["set_network"].SetNetwork(scripts["set_network"].SetTraining())
    for query in half.queries():
        found = half.compared(query)
        expected = half.searcher.search(query.features(), None, rerank=rule)
        assert len(found.facts) == COMPARED < len(found.names)
        assert found.ranking(scripts["set_network"].added_by(untrained, found)) == [hit.name for hit in expected]
        assert sorted(found.totals.tolist(), reverse=True) == [hit.score for hit in expected]
        moved = found.ranking(np.array([0.0] * (COMPARED - 1) + [1e3]))
        assert moved[0] == found.names[COMPARED - 1] and moved[COMPARED:] == found.names[COMPARED:].tolist()


def test_rankings_are_kept_and_labelled(scripts: Any, half: Any) -> None:
    pairs, whole = scripts["set_pairs"], half.whole_images()
    assert len(whole) == 16 and all(len(query.easy) == 3 for query in whole)
    first = list(half.pairs("queries", half.queries()))
    for kept, one in zip(half.pairs("queries", half.queries()), first, strict=True):
        for name in pairs.ARRAYS:
            np.testing.assert_array_equal(getattr(kept, name), getattr(one, name))
    (query, *_), one = half.queries(), first[0]
    labels = dict(zip(one.names.tolist(), one.labels.tolist(), strict=True))
    assert labels["instance-0/0.jpg"] == pairs.JUNK and query.name == "instance-0/0.jpg"
    assert labels["instance-0/1.jpg"] == pairs.EASY and labels["instance-0/3.jpg"] == pairs.HARD
    assert labels["instance-1/0.jpg"] == pairs.NEGATIVE


def image(rng: np.random.Generator, count: int) -> ImageVectors:
    vectors = rng.normal(size=(count, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places = np.column_stack([rng.uniform(0, 100, (count, 2)), rng.uniform(4, 8, count), np.full(count, np.nan)])
    return ImageVectors(vectors, places.astype(np.float32), (100, 80))


@pytest.mark.parametrize("counts", [(0, 0), (0, 3), (1, 1), (1, 5), (9, 7), (70, 80)])
def test_tokens_are_those_of_loops(scripts: Any, counts: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(counts))
    one, other = image(rng, counts[0]), image(rng, counts[1])
    if min(counts) == 70:  # more mutual neighbours than are kept, and a map that explains some
        other.vectors[:60], other.places[:60] = one.vectors[:60], one.places[:60]
    match = compare(one, other, MutualNeighbours(places=Verification()))
    tokens = scripts["set_pairs"].tokens_of(one, other, match)
    expected = tokens_by_loops(one, other, match)
    assert (tokens[len(expected) :, 13] < 0).all() and tokens.shape == (48, 14)
    np.testing.assert_allclose(tokens[: len(expected)], np.array(expected).reshape(-1, 14), rtol=1e-3, atol=1e-4)


def tokens_by_loops(one: ImageVectors, other: ImageVectors, match: Any) -> list[list[float]]:
    """The slow twin: every cosine of every pair of features, one at a time."""
    cosines = one.vectors.astype(np.float64) @ other.vectors.astype(np.float64).T
    rows = []
    for i in range(len(one)):
        for j in range(len(other)):
            by_row = [cosines[i, k] for k in range(len(other)) if k != j]
            by_column = [cosines[k, j] for k in range(len(one)) if k != i]
            best = cosines[i, j]
            if best <= max([*by_row, *by_column, -2.0]):
                continue
            (x, y, scale, _), (u, v, size, _) = one.places[i].astype(float), other.places[j].astype(float)
            mapped = match.affine @ np.array([x, y, 1.0])
            far = math.dist(mapped, (u, v)) / (0.5 * size + 0.01 * 100)
            row = [best, best - max([*by_row, -1.0]), best - max([*by_column, -1.0]), i / len(one), j / len(other)]
            row += [(x - 50) / 100, (y - 40) / 100, (u - 50) / 100, (v - 40) / 100]
            rows.append([*row, math.log(scale / 100), math.log(size / 100), i in match.query_features, min(far, 20)])
    rows.sort(key=lambda row: -row[0])
    return [[*row, number] for number, row in enumerate(rows[:48])]


def test_agreements_are_those_of_loops(scripts: Any) -> None:
    tokens = torch.from_numpy(np.random.default_rng(3).normal(0, 0.3, (2, 5, 14))).float()
    found = scripts["set_network"].agreements_of(tokens).numpy()
    for b in range(2):
        for i in range(5):
            for j in range(5):
                one, other = tokens[b, i].numpy().astype(float), tokens[b, j].numpy().astype(float)
                step, moved = other[5:7] - one[5:7], other[7:9] - one[7:9]
                far, gone = np.hypot(*step), np.hypot(*moved)
                scales = one[10] - one[9], other[10] - other[9]
                ratio = math.log((gone + 0.01) / (far + 0.01))
                expected = [
                    min(abs(ratio - sum(scales) / 2), 3),
                    step @ moved / (far * gone + 1e-4),
                    min(abs(scales[1] - scales[0]), 3),
                    math.exp(-10 * far),
                    math.exp(-10 * gone),
                ]
                np.testing.assert_allclose(found[b, i, j], expected, rtol=1e-3, atol=1e-5)


def test_absent_neighbours_and_their_order_change_nothing(scripts: Any) -> None:
    network_script = scripts["set_network"]
    torch.manual_seed(0)
    network = network_script.SetNetwork(network_script.SetTraining(layers=2))
    torch.nn.init.normal_(network.exit[-1].weight)
    tokens, facts = torch.randn(3, 12, 14), torch.rand(3, 8)
    tokens[..., 13] = torch.tensor([0.0] * 7 + [-1.0] * 5)
    with torch.no_grad():
        found = network(tokens, facts)
        torch.testing.assert_close(network(tokens[:, torch.randperm(12)], facts), found, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network(tokens[:, :7], facts), found, rtol=1e-4, atol=1e-5)
    assert network_script.parameter_count(network) < 100_000


def test_training_puts_positives_first(scripts: Any) -> None:
    """Images in a random order, and positives that are told by one column of the tokens."""
    rng = np.random.default_rng(0)
    labels = np.array([2, 1, 1, 2, 1, 1, 1, 1], np.int8)
    tokens = rng.normal(0, 0.1, (8, 48, 14)).astype(np.float16)
    tokens[..., 13], tokens[..., 11] = 0, (labels > 1)[:, None]
    names = np.array([f"{number}.jpg" for number in range(8)])
    rankings = [
        scripts["set_pairs"].RankedPairs(
            "q", names, labels, rng.normal(0, 0.1, 8), tokens, np.zeros((8, 8), np.float32)
        )
        for _ in range(8)
    ]
    options = scripts["set_network"].SetTraining(epochs=30, rate=1e-2, penalty=0.0)
    network = scripts["set_network"].train(rankings, options, 0)
    for one in rankings:
        assert set(one.ranking(scripts["set_network"].added_by(network, one))[:2]) == {"0.jpg", "3.jpg"}


def test_self_made_pairs_find_their_photographs(scripts: Any, tmp_path: Path) -> None:
    for number, photo in enumerate(bundled_photos()[:6]):
        save(tmp_path / "photos" / "_distractors" / f"{number}.jpg", view_image(photo.path, 320).pixels)
    command = [sys.executable, "-m", "asmk_engine", "extract", tmp_path / "photos", "-o", tmp_path / "sift.features"]
    subprocess.run([*command, "--extractor", "rootsift", "-q"], check=True, env=ENVIRONMENT)
    half = scripts["set_pairs"].SearchedHalf(tmp_path, "sift", 0, tmp_path, 16)
    rankings = list(half.pairs("self-made", half.self_made(8)))
    assert len(rankings) == 8
    for one in rankings:
        assert one.labels.tolist().count(scripts["set_pairs"].EASY) <= 1
    first = [one.labels[np.argmax(one.totals)] for one in rankings]
    assert first.count(scripts["set_pairs"].EASY) >= 4
    again = half.view(3, half.index.names[0], half.index.names)
    np.testing.assert_array_equal(again.descriptors, half.view(3, half.index.names[0], half.index.names).descriptors)


def test_a_view_is_pasted_inside_its_background(scripts: Any) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        view = np.full((int(rng.integers(1, 300)), int(rng.integers(1, 300)), 3), 255, np.uint8)
        background = np.zeros((200, 150, 3), np.uint8)
        made = scripts["set_pairs"].pasted(view, background, rng)
        rows, columns = (np.flatnonzero(made[..., 0].any(axis=axis)) for axis in (1, 0))
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert (made[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 255).all()
        assert max(height / 200, width / 150) <= 0.75 and not background.any()
