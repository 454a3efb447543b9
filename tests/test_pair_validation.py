"""Validation while re-ranking networks train: mAP before and after, against twins; the best epoch is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import naive_reranking
from asmk_engine import Features
from asmk_engine.cli import commands
from asmk_engine.errors import AsmkError
from asmk_engine.images.decoding import view_image
from asmk_engine.iteration import Silent
from asmk_engine.networks.reranking.image_tokens import ScaleUnit, image_tokens
from asmk_engine.networks.reranking.transformer_files import open_transformer, save_transformer
from asmk_engine.networks.reranking.transformer_options import TransformerOptions
from asmk_engine.networks.reranking.transformer_pairs import pair_logits
from asmk_engine.recipes import Recipe
from asmk_engine.reranking.cvnet import CvnetScorer, CvnetScoring
from asmk_engine.training.curves import draw_curves
from asmk_engine.training.log import read_log
from asmk_engine.training.pair_validation import VectorRanker, feature_validation
from asmk_engine.training.rerank_trainee import RerankTrainee
from asmk_engine.training.transformer_task import new_transformer
from asmk_engine.training.validation import main_score
from samples import write_features
from test_rerank_training import tiny, train
from trainings import write_photographs

COUNTS = {"a": 4, "b": 4, "c": 4}
NAMES = [f"{name}/{number}.png" for name, count in COUNTS.items() for number in range(count)]
IMAGES = [name for name in NAMES if name != "a/0.png"]
QUERIES: list[dict[str, Any]] = [
    {"query": "a/0.png", "bbox": [0, 0, 36, 40], "easy": ["a/1.png"], "hard": ["a/2.png"], "junk": ["a/3.png"]},
    {"query": "b/0.png", "bbox": [0, 0, 40, 48], "easy": ["b/2.png", "b/3.png"], "hard": [], "junk": []},
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, a ground truth of one query outside the database and one inside, features, and weights."""
    folder = tmp_path_factory.mktemp("world")
    write_photographs(folder / "photographs", COUNTS)
    (folder / "gnd.json").write_text(json.dumps({"imlist": IMAGES, "queries": QUERIES}))
    rng, local, whole = np.random.default_rng(0), {}, {}
    for name in NAMES:
        keypoints = np.column_stack([rng.uniform(0, 40, (5, 2)), np.full(5, 16.0)])
        local[name] = Features.from_descriptors(rng.normal(size=(5, 8)), keypoints, image_size=(40, 48))
        whole[name] = Features.from_descriptors(rng.normal(size=(1, 6)))
    write_features(folder / "local", local, recipe=Recipe("delg-local"))
    write_features(folder / "whole", whole, recipe=Recipe("delg"))
    backbone = {key: value.numpy() for key, value in tiny().backbone.state_dict().items()}
    np.savez(folder / "squeezenet.npz", **backbone)
    return folder


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asmk_engine.training.loop.draw_curves", lambda folder: folder)


def medium(order: list[str], query: dict[str, Any]) -> float:
    """The trapezoidal average precision of Medium, without junk and the query itself."""
    kept = [name for name in order if name not in {*query["junk"], query["query"]}]
    total, wanted = 0.0, {*query["easy"], *query["hard"]}
    for seen, rank in enumerate(sorted(kept.index(name) for name in wanted)):
        total += ((1.0 if rank == 0 else seen / rank) + (seen + 1) / (rank + 1)) / 2
    return total / len(wanted)


def mean_medium(similar: Any, pair: Any, first: int, weights: tuple[float, float]) -> tuple[float, float]:
    """mAP of Medium before and after re-ranking, of functions of query and image."""
    before, after = [], []
    for query in QUERIES:
        ranking = sorted(((name, similar(query, name)) for name in IMAGES), key=lambda one: (-one[1], one[0]))
        scores = {name: pair(query, name) for name in IMAGES}
        gone = {*query["junk"], query["query"]}
        before.append(medium([name for name, _ in ranking], query))
        after.append(medium(naive_reranking.reranked(ranking, scores, first, *weights, gone), query))
    return sum(before) / len(before), sum(after) / len(after)


def test_a_ranker_of_vectors() -> None:
    names, vectors = ["é", "b", "a", "c"], np.array([[1, 0], [0, 1], [0, 1], [0.5, 0]], np.float32)
    ranker = VectorRanker(names, vectors)
    hits = ranker.search(np.array([0.0, 1.0], np.float32), None)
    assert [(hit.name, hit.score) for hit in hits] == [("a", 1), ("b", 1), ("c", 0), ("é", 0)]
    assert [hit.name for hit in ranker.search(np.array([1.0, 0.0], np.float32), 2)] == ["é", "c"]
    numbers = ranker.image_numbers(["é", "a", "none"])
    assert ranker.rank(np.array([1.0, 0.0], np.float32)).numbers[0] == numbers["é"] and "none" not in numbers
    assert VectorRanker([], np.empty((0, 2), np.float32)).search(np.ones(2, np.float32), 3) == []


@pytest.mark.parametrize("first", [6, 100])
def test_a_transformer_is_validated_on_features(world: Path, tmp_path: Path, first: int) -> None:
    from asmk_engine.features import FeatureSet

    local, whole = FeatureSet.open(world / "local"), FeatureSet.open(world / "whole")
    network = new_transformer(TransformerOptions(6, 8, layers=1, heads=2, hidden=16), 3).eval()
    save_transformer(tmp_path / "net.safetensors", network, {})
    validation = feature_validation(world / "gnd.json", local, whole, ScaleUnit(), first, "cpu")

    def tokens(name: str) -> Any:
        return image_tokens(whole.read(name), local.read(name), ScaleUnit(), 500)

    def unit(name: str) -> np.ndarray:
        vector = whole.read(name).descriptors[0].astype(np.float64)
        return vector / np.sqrt(sum(value**2 for value in vector))

    def logit(query: dict[str, Any], name: str) -> float:
        return float(pair_logits(network, tokens(query["query"]), [tokens(name)])[0])

    before, after = mean_medium(lambda q, name: float(unit(q["query"]) @ unit(name)), logit, first, (1.0, 0.0))
    report = validation.report(tmp_path / "net.safetensors", "rrt", Silent())
    assert main_score(report) == pytest.approx(after, abs=1e-9)
    assert validation.global_score(tmp_path / "net.safetensors", Silent()) == pytest.approx(before, abs=1e-9)
    assert before != after and validation.described()["rerank"] == first


def run(*words: object) -> Result:
    return CliRunner().invoke(commands, [*map(str, words)])


def train_rrt(world: Path, output: Path, *more: object) -> Result:
    given = ["train-rrt", world / "photographs", "--local", world / "local", "--global", world / "whole", "-o", output]
    sizes = ["--layers", 1, "--hidden", 8, "--neighbours", 11, "--least-positives", 1, "--device", "cpu", "-q"]
    return run(*given, *sizes, *more)


def test_train_rrt_keeps_the_best_of_a_validation(world: Path, tmp_path: Path) -> None:
    options = ["--epochs", 3, "--learning-rate", 0.01, "--validate", world / "gnd.json", "--validate-rerank", 5]
    result = train_rrt(world, tmp_path / "run", *options, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    told, entries = json.loads(result.stdout), read_log(tmp_path / "run")
    found = [entry for entry in entries if entry["kind"] == "validation"]
    scores = [entry["score"] for entry in found]
    assert len(scores) == 4 and len({entry["global_score"] for entry in found}) == 1
    assert told["score"] == max(scores) and told["epoch"] == scores.index(max(scores))
    assert open_transformer(told["best"])[1]["training"]["epoch"] == told["epoch"]
    again = train_rrt(world, tmp_path / "run", *options, "--json")
    assert json.loads(again.stdout) == told
    other = train_rrt(world, tmp_path / "run", *options, "--validate-rerank", 6)
    assert "'rerank': 6" in str(other.exception)


def test_train_rerank_keeps_the_best_of_a_validation(world: Path, tmp_path: Path) -> None:
    options = ["--width", 8, "--levels", 2, "--validate", world / "gnd.json", "--validate-rerank", 4, "--epochs", 2]
    photographs = world / "photographs"
    result = train(photographs, tmp_path / "run", world / "squeezenet.npz", *options, "--validate-images", photographs,
                   "--learning-rate", 0.05, "--json")  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    told, entries = json.loads(result.stdout), read_log(tmp_path / "run")
    found = [entry for entry in entries if entry["kind"] == "validation"]
    scores = [entry["score"] for entry in found]
    assert len(scores) == 3 and told["score"] == max(scores) and told["epoch"] == scores.index(max(scores))
    trainee, scoring = RerankTrainee(tiny()), CvnetScoring(tmp_path / "run" / "last.safetensors", 64, device="cpu")
    scorer = CvnetScorer(scoring, lambda name: photographs / name)

    def vector(name: str, box: Any = None) -> np.ndarray:
        return trainee.vector(view_image(photographs / name, 64, box).pixels, "fp32").double().numpy()

    vectors = {name: vector(name) for name in IMAGES}
    before, after = mean_medium(
        lambda query, name: float(vector(query["query"], query["bbox"]) @ vectors[name]),
        lambda query, name: float(scorer.scores(query["query"], query["bbox"], [name])[0]),
        4, (0.5, 1.0),
    )  # fmt: skip
    assert found[-1]["global_score"] == pytest.approx(before, abs=1e-9)
    assert found[-1]["score"] == pytest.approx(after, abs=1e-9)


def test_curves_name_what_was_validated(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pictures = []
    for training in ("rrt", "how"):
        entries = [
            {"kind": "run", "training": training},
            {"kind": "step", "at": 0.5, "loss": 1.0, "epoch": 1},
            {"kind": "epoch", "epoch": 1, "loss": 1.0},
            {"kind": "validation", "epoch": 1, "score": 0.5, "global_score": 0.4},
        ]
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        pictures.append(draw_curves(tmp_path).read_bytes())
    assert pictures[0] != pictures[1]


def test_validations_that_are_refused(world: Path, tmp_path: Path) -> None:
    def fault(result: Result) -> str:
        assert isinstance(result.exception, AsmkError), result.output
        return str(result.exception)

    photographs, weights = world / "photographs", world / "squeezenet.npz"
    assert "without --validate" in fault(train_rrt(world, tmp_path / "run", "--validate-local", world / "local"))
    small = ["--width", 8, "--levels", 1]
    alone = train(photographs, tmp_path / "run", weights, *small, "--validate-images", photographs)
    assert "--validate-images without --validate" in fault(alone)
    alone = train(photographs, tmp_path / "run", weights, *small, "--validate", world / "gnd.json")
    assert "give the folder of its images with --validate-images" in fault(alone)
    lacking = write_features(tmp_path / "few", {"b/1.png": Features.from_descriptors(np.ones((2, 8)))},
                             recipe=Recipe("delg-local"))  # fmt: skip
    wrong = train_rrt(world, tmp_path / "run", "--validate", world / "gnd.json", "--validate-local", lacking.path)
    assert "lacks 11 of 12 images and queries of the validation" in fault(wrong)
    (tmp_path / "none.json").write_text(
        json.dumps({"imlist": IMAGES, "queries": [{**QUERIES[0], "easy": [], "hard": []}]})
    )
    assert "no query has a positive" in fault(train_rrt(world, tmp_path / "run", "--validate", tmp_path / "none.json"))
    assert not (tmp_path / "run" / "log.jsonl").exists()
