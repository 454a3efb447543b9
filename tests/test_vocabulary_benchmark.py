"""The benchmark of vocabulary sizes: how distractors are composed, its arithmetic, and a tiny run of it."""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from asmk_engine.features import Features, FeatureSet
from asmk_engine.inverted.signatures import sign
from samples import ENVIRONMENT, make_features, random_codebook, write_features

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "vocabulary.py"
DIM, GROUP, IMAGES, POOL = 8, 4, 24, 7


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vocabulary", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def pool_image(number: int) -> Features:
    """An image of its own number of features, at scattered places, some of them in one column."""
    rng = np.random.default_rng([number, 5])
    image = make_features(rng.normal(size=(20 + number, DIM)))
    keypoints = rng.integers(0, 9, (len(image), 3)).astype(np.float32)
    return replace(image, keypoints=keypoints)


def composed(images: list[Features], photographs: list[int]) -> Features:
    """The slow twin of a distractor: sorted by column, one third of each photograph, in a loop."""
    rows = []
    for place, photograph in enumerate(photographs):
        image = images[photograph]
        columns = sorted(range(len(image)), key=lambda row: (image.keypoints[row, 0], row))
        sizes = [len(image) // 3 + (third < len(image) % 3) for third in range(3)]
        begin = sum(sizes[:place])
        rows += [image.descriptors[row] for row in columns[begin : begin + sizes[place]]]
    return make_features(np.array(rows))


def test_a_distractor_has_a_third_of_each_of_three_photographs(script: ModuleType) -> None:
    images = [pool_image(number) for number in range(POOL)]
    codebook = random_codebook(16, DIM)
    distractors = script.Distractors(images, codebook, seed=3)
    made = list(distractors.signatures(4, 40))
    assert [name for name, _ in made] == [f"distractor {number:09d}" for number in range(4, 40)]
    for number, (_, signature) in enumerate(made, start=4):
        twin = composed(images, script.chosen(3, number, POOL))
        assert abs(len(twin) - np.mean([len(images[one]) for one in script.chosen(3, number, POOL)])) <= 1
        expected = sign(twin, codebook)
        np.testing.assert_array_equal(signature.words, expected.words)
        np.testing.assert_array_equal(signature.codes, expected.codes)


def test_the_photographs_of_a_distractor_differ_and_depend_on_the_seed(script: ModuleType) -> None:
    drawn = [script.chosen(0, number, POOL) for number in range(3000)]
    assert all(len(set(photographs)) == 3 for photographs in drawn)
    assert drawn == [script.chosen(0, number, POOL) for number in range(3000)]
    others = [script.chosen(1, number, POOL) for number in range(3000)]
    assert sum(one == two for one, two in zip(drawn, others, strict=True)) < 60  # 14 of 3000 are expected by chance
    for place in range(3):  # each photograph comes to each place alike: 429 times, with a deviation of 19
        counts = np.bincount([photographs[place] for photographs in drawn], minlength=POOL)
        assert counts.min() > 300 and counts.max() < 560


def test_every_feature_is_in_one_third(script: ModuleType) -> None:
    for size in (0, 1, 2, 20):
        image = pool_image(0).strongest(size)
        parts = script.thirds(image)
        assert sorted(np.concatenate(parts).tolist()) == list(range(size))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        columns = [image.keypoints[rows, 0] for rows in parts if len(rows)]
        assert all(left.max() <= right.min() for left, right in itertools.pairwise(columns))


def test_the_imbalance_is_one_for_equal_words(script: ModuleType) -> None:
    assert script.imbalance(np.array([5, 5, 5, 5])) == pytest.approx(1)
    assert script.imbalance(np.array([12, 0, 0, 0])) == pytest.approx(4)
    assert script.imbalance(np.array([3, 1])) == pytest.approx(2 * (9 + 1) / 16)


def test_differences_are_paired_by_query_and_averaged_over_the_seeds(script: ModuleType) -> None:
    here = [{"per_query": {"hard": {"a": 0.5, "b": 1.0}}}, {"per_query": {"hard": {"a": 0.7, "b": 0.8}}}]
    first = [{"per_query": {"hard": {"a": 0.4, "b": 1.0}}}, {"per_query": {"hard": {"a": 0.7, "b": 0.9}}}]
    # -5 and +5 points: a sample of two queries has the mean -5 or 5 in a quarter of the cases each.
    assert script.difference(here, first, "hard") == pytest.approx([0, -5, 5])


def test_no_photograph_is_learned_from_and_composed(script: ModuleType, place: Path) -> None:
    both, other = FeatureSet.open(place / "pool"), FeatureSet.open(place / "learned")
    [composed_names], [learned, others] = script.parted([both], [both, other], False)
    assert len(composed_names) == len(learned) == POOL and others == other.names
    assert sorted(composed_names + learned) == sorted(both.names)
    [composed_names], [learned, others] = script.parted([both], [both, other], True)
    assert composed_names == learned == both.names and others == other.names
    [composed_names], [others] = script.parted([both], [other], False)
    assert composed_names == both.names and others == other.names


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Feature sets of images in groups that show the same, and of others; and the ground truth of the former."""
    folder = tmp_path_factory.mktemp("place")
    images = {}
    for number in range(IMAGES):
        base = np.random.default_rng(number // GROUP).normal(size=(60, DIM))
        noise = np.random.default_rng([number, 9]).normal(size=base.shape)
        images[f"thing {number // GROUP}/{number % GROUP}.jpg"] = make_features(base + 0.3 * noise)
    write_features(folder / "searched", images)
    for name in ("learned", "pool"):
        write_features(folder / name, {f"{name}/{number}.jpg": pool_image(number) for number in range(2 * POOL)})
    names = list(images)
    queries = [
        {"query": group[0], "bbox": None, "easy": group[1:2], "hard": group[2:], "junk": []}
        for group in (names[begin : begin + GROUP] for begin in range(0, IMAGES, GROUP))
    ]
    (folder / "gnd.json").write_text(json.dumps({"imlist": names, "queries": queries}))
    return folder


def run(place: Path, *arguments: object, pool: str = "pool") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, "--learn", place / "learned", "--search", place / "searched", "--pool"]
    command += [place / pool, "--ground-truth", place / "gnd.json", "--rounds", 2, *arguments]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, env=ENVIRONMENT, timeout=300)


def test_a_tiny_run_is_reported(place: Path) -> None:
    done = run(place, "--words", "5,9", "--distractors", "30,0", "--seeds", 2)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    vocabularies = [json.loads(line) for line in lines[:4]]
    assert [(one["words"], one["seed"]) for one in vocabularies] == [(5, 0), (9, 0), (5, 1), (9, 1)]
    found = json.loads(lines[-1])
    rows = {(row["words"], row["distractors"]): row for row in found["rows"]}
    assert list(rows) == [(5, 0), (5, 30), (9, 0), (9, 30)]
    assert found["photographs"] == IMAGES and found["pool"] == 2 * POOL
    for (words, count), row in rows.items():
        both = [one["searches"][[0, 30].index(count)] for one in vocabularies if one["words"] == words]
        assert row["map"]["hard"] == pytest.approx(np.mean([one["map"]["hard"] for one in both]))
        assert row["words_per_image"] <= words and row["score_ms"] > 0 and row["assign_ms"] > 0
        assert row["difference"]["medium"][0] == pytest.approx(row["map"]["medium"] - rows[5, count]["map"]["medium"])
        assert row["graph_ms"] is None and 1 <= row["imbalance"] < words
    assert rows[9, 30]["map"]["medium"] <= rows[9, 0]["map"]["medium"]  # more images never help
    assert rows[9, 30]["words_per_distractor"] > rows[5, 30]["words_per_distractor"]


def test_what_cannot_be_compared_is_refused(place: Path) -> None:
    shared = run(place, pool="searched")
    assert shared.returncode == 1 and f"names {IMAGES} photographs of --pool for a query" in shared.stderr
    write_features(place / "few", {f"few/{number}.jpg": pool_image(number) for number in range(2)})
    few = run(place, pool="few")
    assert few.returncode == 1 and "--pool has 2 photographs; a distractor is composed of 3" in few.stderr
    many = run(place, "--words", "5,64")
    assert many.returncode == 1 and "--words 64 are too many for --learn, which has enough for 9" in many.stderr
    content = json.loads((place / "gnd.json").read_text())
    content["queries"][0]["bbox"] = [1, 1, 9, 9]
    (place / "region.json").write_text(json.dumps(content))
    region = run(place, "--ground-truth", place / "region.json")
    assert region.returncode == 1 and "region.json: a query has a region" in region.stderr
    none = run(place, "--seeds", 0)
    assert none.returncode == 2 and "give 1 or more --seeds" in none.stderr
