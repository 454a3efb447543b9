"""Recognition from photographs to µAP: every classifier of the HOW paper does better than labels given by chance."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import naive_evaluation as twin
from asmk_engine.errors import InputError
from asmk_engine.features import FeatureSet
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.reproduction.datasets import Rehearsed, RetrievalTask
from asmk_engine.reproduction.evaluation import evaluate_labels
from asmk_engine.reproduction.experiment import parse_experiment
from asmk_engine.reproduction.extraction import Settings
from asmk_engine.reproduction.stages import run
from disks import fast_disk
from rehearsals import Silent, drawn, write_ground_truth

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
BUILDINGS = ("herz_jesu", "sceaux_castle", "reichstag", "lund_door", "lund_street")
VOTES = {"cls1": (1, 1.0, False), "cls2": (10, 1.0, False), "cls3": (10, 0.5, True)}

RECOGNITION = """
name = "recognition"
title = "Recognition with RootSIFT"
source = "nowhere"
kind = "local"
[[describe]]
extractor = "rootsift"
options = { max_features = 300, max_side = 320 }
[train]
dataset = "sfm120k"
[codebook]
[search]
assignments = 1
[[tests]]
dataset = "gldv2"
published = { cls3 = 81.3 }
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)


def photographed(folder: Path) -> Rehearsed:
    """Five buildings of the shared photographs, each seen eight times or more."""
    if not SHARED.is_dir():
        pytest.skip("the shared photographs are not there")
    views: dict[str, list[str]] = {}
    for building in BUILDINGS:
        shutil.copytree(SHARED / "images" / building, folder / "photos" / building)
        views[building] = sorted(f"{building}/{path.name}" for path in (folder / "photos" / building).iterdir())
    write_ground_truth(views, folder / "gnd.json")
    return Rehearsed(folder / "photos", folder / "gnd.json")


@dataclass(frozen=True)
class Run:
    """A finished rehearsal: its scores, and what they were measured on."""

    scores: dict[str, float]
    task: RetrievalTask
    queries: FeatureSet
    searcher: Searcher
    work: Path


@pytest.fixture(scope="module", params=[drawn, photographed], ids=lambda made: made.__name__)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("recognition")
    datasets, work = request.param(folder), folder / "work"
    row = parse_experiment(RECOGNITION, "recognition.toml")
    measured = run(row, datasets, Settings(work, workers=0), Silent()).measured["gldv2"]
    return Run(
        {name: found.value for name, found in measured.items()},
        datasets.task("gldv2", True),
        FeatureSet.open(work / "gldv2.queries.features"),
        Searcher(Index.open(work / "gldv2-by-sfm120k.index"), multiple_assignment=1),
        work,
    )


def scores_of(done: Run, labels: dict[str, str]) -> dict[str, float]:
    found = evaluate_labels(replace(done.task, labels=labels), done.queries, done.searcher, lambda *_: None)
    return {name: one.value for name, one in found.items()}


def twin_scores(done: Run, labels: dict[str, str]) -> dict[str, float]:
    """The same scores by the twins: votes and µAP written from the papers, on full rankings."""
    hits = {query.name: done.searcher.search(done.queries.read(query.name)) for query in done.task.queries}
    scores = {}
    for name, votes in VOTES.items():
        guesses = {}
        for query, found in hits.items():
            others = [(hit.name, hit.score) for hit in found if hit.name != query]
            confidence = twin.vote(others, labels, *votes)
            if confidence:
                guesses[query] = min(confidence.items(), key=lambda one: (-one[1], one[0]))
        scores[name] = 100 * twin.micro_average_precision(done.task.answers, guesses)
    return scores


def test_every_label_is_more_frequent_than_there_are_labels(finished: Run) -> None:
    """As in the set of the paper: a weight by the number of images instead of their share would be 0 everywhere."""
    labels = list((finished.task.labels or {}).values())
    assert len(set(labels)) > 1 and min(map(labels.count, labels)) >= len(set(labels))


def test_no_classifier_loses_to_chance(finished: Run) -> None:
    labels = dict(finished.task.labels or {})
    rng = np.random.default_rng(0)
    chance = [
        scores_of(finished, dict(zip(labels, rng.permutation(list(labels.values())).tolist(), strict=True)))
        for _ in range(40)
    ]
    for name, score in finished.scores.items():
        assert score > np.quantile([one[name] for one in chance], 0.95), name


def test_the_scores_are_those_of_the_twins(finished: Run) -> None:
    assert finished.scores == pytest.approx(twin_scores(finished, dict(finished.task.labels or {})), abs=1e-9)


def test_scores_with_weights_of_before_are_not_taken_over(finished: Run) -> None:
    (kept,) = finished.work.glob("search-*/numbers.json")
    assert json.loads(kept.read_text())["inputs"]["frequency of a label"] == "relative"


def test_a_single_label_is_refused_in_one_line(tmp_path: Path) -> None:
    row = parse_experiment(RECOGNITION, "recognition.toml")
    with pytest.raises(InputError, match=r"1 label, .*, for all 6 labelled images, expected 2 or more") as caught:
        run(row, drawn(tmp_path, 1), Settings(tmp_path / "work", workers=0), Silent())
    assert "\n" not in str(caught.value)
