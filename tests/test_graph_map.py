"""The benchmark that compares the mAP of the two assignments: its arithmetic, and a tiny run of it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from asmk_engine.codebooks import Codebook
from asmk_engine.features import FeatureSet
from samples import ENVIRONMENT, make_features, write_features

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "graph_map.py"
DIM, GROUP, IMAGES = 8, 4, 24


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("graph_map", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_difference_of_a_query_is_averaged_over_the_seeds(script: ModuleType) -> None:
    exact = [{"a": 0.5, "b": 1.0}, {"a": 0.7, "b": 0.8}]
    graph = [{"a": 0.4, "b": 1.0}, {"a": 0.7, "b": 0.9}]
    seeds = [
        {"exact": {"all": one, "none": {}}, "graph": {"all": two, "none": {}}}
        for one, two in zip(exact, graph, strict=True)
    ]
    found = script.compare(seeds)
    assert list(found) == ["all"]
    row = found["all"]
    assert (row["exact"], row["graph"], row["queries"]) == (pytest.approx(75), pytest.approx(75), 2)
    assert row["difference"] == pytest.approx(0, abs=1e-9)
    # Of two queries with -5 and +5 points, a sample has the mean -5 or 5 in a quarter of the cases each.
    assert (row["low"], row["high"]) == (pytest.approx(-5), pytest.approx(5))


def test_the_interval_is_that_of_paired_differences(script: ModuleType) -> None:
    rng = np.random.default_rng(2)
    names = [f"q{number}" for number in range(40)]
    seeds = []
    for _ in range(3):
        exact = rng.random(40)
        graph = exact + 0.01 * rng.normal(size=40) - 0.02
        both = {"exact": exact, "graph": graph}
        seeds.append({kind: {"m": dict(zip(names, values, strict=True))} for kind, values in both.items()})
    row = script.compare(seeds)["m"]
    differences = [np.mean([one["graph"]["m"][name] - one["exact"]["m"][name] for one in seeds]) for name in names]
    means = [np.mean(rng.choice(differences, 40)) for _ in range(4000)]
    assert row["difference"] == pytest.approx(100 * np.mean(differences))
    assert row["low"] == pytest.approx(100 * np.quantile(means, 0.025), abs=0.03)
    assert row["high"] == pytest.approx(100 * np.quantile(means, 0.975), abs=0.03)
    assert row["high"] < 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature set of images in groups that show the same, and its ground truth."""
    folder = tmp_path_factory.mktemp("place")
    images = {}
    for number in range(IMAGES):
        base = np.random.default_rng(number // GROUP).normal(size=(60, DIM))
        noise = np.random.default_rng([number, 9]).normal(size=base.shape)
        images[f"thing {number // GROUP}/{number % GROUP}.jpg"] = make_features(base + 0.3 * noise)
    write_features(folder / "sift", images)
    names = list(images)
    queries = [
        {"query": group[0], "bbox": None, "easy": group[1:2], "hard": group[2:], "junk": []}
        for group in (names[begin : begin + GROUP] for begin in range(0, IMAGES, GROUP))
    ]
    (folder / "gnd.json").write_text(json.dumps({"imlist": names, "queries": queries}))
    return folder


def run(place: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, place / "sift", "--ground-truth", place / "gnd.json", "--work", place / "work"]
    return subprocess.run(
        [*map(str, command), *map(str, arguments)], capture_output=True, text=True, env=ENVIRONMENT, timeout=300
    )


def test_a_tiny_run_is_reported_and_resumed(place: Path) -> None:
    options = ("--words", 16, "--rounds", 2, "--seeds", 2)
    done = run(place, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert list(found["rows"]) == ["easy", "medium", "hard"] and found["seeds"] == 2
    for row in found["rows"].values():  # so few words are all entries of the graph, which then finds what is nearest
        assert row["exact"] == row["graph"] > 20 and row["difference"] == row["low"] == row["high"] == 0
        assert row["queries"] == IMAGES // GROUP
    codebook = Codebook.train(FeatureSet.open(place / "sift"), 16, rounds=2, seed=0, assignment="graph")
    assert found["graphs"][0]["beam"] == codebook.graph.beam == 40
    assert found["graphs"][0]["recall_at_1"] == codebook.graph_recall.recall_at_1
    stages = {path: path.stat().st_mtime_ns for path in (place / "work").glob("*/numbers.json")}
    assert len(stages) == 6 and not list((place / "work").rglob("index"))
    lost = next(path for path in stages if path.parent.name.startswith("evaluation-"))
    lost.unlink()  # as if the run had been interrupted before its end
    again = run(place, *options)
    assert again.stdout == done.stdout
    changed = {path for path, made in stages.items() if path.stat().st_mtime_ns != made}
    assert changed == {lost}


def test_no_seeds_are_refused(place: Path) -> None:
    refused = run(place, "--seeds", 0)
    assert refused.returncode == 2 and "--seeds is 0" in refused.stderr
