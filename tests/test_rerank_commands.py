"""`evaluate` and `query` with `--reranker cvnet` on drawn photographs, and the scorer and its folder of levels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from asmk_engine.cli import commands
from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.networks.backbones import build_backbone
from asmk_engine.networks.reranking import scoring
from asmk_engine.networks.reranking.checkpoints import save_rerank_checkpoint
from asmk_engine.networks.reranking.correlation import unit_levels
from asmk_engine.networks.reranking.network import RerankNetwork, RerankOptions, seeded_rerank_network
from asmk_engine.networks.reranking.scoring import LevelComparer, batch_size
from asmk_engine.pipeline import index_folder
from asmk_engine.reranking.cvnet import CvnetScorer, CvnetScoring
from trainings import write_photographs

NAMES = [f"{name}/{number}.png" for name in "abc" for number in range(3)]


def tiny() -> RerankNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        backbone = build_backbone("squeezenet1_1")
        for parameter in backbone.parameters():
            parameter.data.mul_(1.7)
    return seeded_rerank_network(RerankOptions("squeezenet1_1", 8, 2), backbone).eval()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, their index of global descriptors, a network, backbone weights, and a ground truth."""
    folder = tmp_path_factory.mktemp("world")
    write_photographs(folder / "photographs", {"a": 3, "b": 3, "c": 3})
    network = tiny()
    save_rerank_checkpoint(folder / "net.safetensors", network, {})
    backbone = {key: value.numpy() for key, value in network.backbone.state_dict().items()}
    np.savez(folder / "squeezenet.npz", **backbone)
    index_folder(folder / "photographs", folder / "i.index", extractor="gem", weights=folder / "squeezenet.npz",
                 max_side=64, device="cpu", workers=0)  # fmt: skip
    queries = [
        {
            "query": f"{one}/0.png",
            "bbox": [2, 2, 38, 46],
            "easy": [f"{one}/1.png"],
            "hard": [f"{one}/2.png"],
            "junk": [],
        }
        for one in "abc"
    ]
    (folder / "gnd.json").write_text(json.dumps({"imlist": NAMES, "queries": queries}))
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(commands, [*map(str, arguments)])


def reranked(world: Path, *more: object) -> list[Any]:
    return ["--reranker", "cvnet", "--reranker-weights", world / "net.safetensors", "--reranker-side", 64, *more]


def scorer_of(world: Path, **options: Any) -> CvnetScorer:
    return CvnetScorer(
        CvnetScoring(world / "net.safetensors", 64, **options), lambda name: world / "photographs" / name
    )


def test_evaluate(world: Path, tmp_path: Path) -> None:
    given = ["evaluate", world / "i.index", "--ground-truth", world / "gnd.json", "--json"]
    result = run(*given, *reranked(world, "--rerank", 4, "--save-run", tmp_path / "run.jsonl", "--run-format", "jsonl"))
    assert result.exit_code == 0, (result.output, result.exception)
    assert "pair: " in result.stderr and "ms each" in result.stderr and "local map" in result.stderr
    report = json.loads(result.stdout)
    again = json.loads(
        run("evaluate", "--run", tmp_path / "run.jsonl", "--ground-truth", world / "gnd.json", "--json").stdout
    )
    assert report["medium"] == again["medium"]
    scorer, ranking = scorer_of(world), json.loads((tmp_path / "run.jsonl").read_text().splitlines()[0])["hits"]
    asked = ["query", world / "i.index", world / "photographs/a/0.png", "--box", "2,2,38,46", "--format", "jsonl", "-q"]
    plain = {hit["name"]: hit["score"] for hit in _hits(run(*asked))}
    chosen = [hit["name"] for hit in ranking if hit["name"] != "a/0.png"][:4]
    pair = dict(zip(chosen, scorer.scores("a/0.png", (2, 2, 38, 46), chosen), strict=True))
    for hit in ranking:
        if hit["name"] in pair:
            assert hit["score"] == pytest.approx(plain[hit["name"]] + 0.5 * pair[hit["name"]], abs=1e-5)


def _hits(result: Result) -> list[Any]:
    assert result.exit_code == 0, (result.output, result.exception)
    return list(json.loads(result.stdout)["hits"])


def test_query(world: Path, tmp_path: Path) -> None:
    given = ["query", world / "i.index", "a/0.png", "--format", "jsonl", "--top", 3]
    cached = reranked(world, "--rerank", 5, "--reranker-weight", 2, "--reranker-cache", tmp_path / "levels")
    first, second = run(*given, *cached), run(*given, *cached, "-q")
    assert "levels in 8 bits" in first.stderr and second.stderr == ""
    assert len(list((tmp_path / "levels").iterdir())) == 6
    hits = _hits(first)
    assert _hits(second) == hits and len(hits) == 3 and "a/0.png" not in [hit["name"] for hit in hits]
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True) and scores[0] > 1
    for precision in ("fp32", "bf16"):
        more = ["--rerank", 5, "--reranker-weight", 2, "--reranker-precision", precision]
        exact = {hit["name"]: hit["score"] for hit in _hits(run(*given, "-q", "--top", 8, *reranked(world, *more)))}
        assert [exact[hit["name"]] for hit in hits] == pytest.approx(scores, abs=0.05)


@pytest.mark.parametrize(
    "more", [["--only", "matches"], ["--rotations"], ["--mirror"], ["--fuse", "x"], ["--explain", "x"]]
)
def test_what_excludes_a_reranker(world: Path, more: list[str]) -> None:
    result = run("query", world / "i.index", "a/0.png", *reranked(world), *more)
    assert result.exit_code == 2 and f"--reranker and {more[0]} exclude each other" in result.output


def test_options_that_are_refused(world: Path) -> None:
    given = ["query", world / "i.index", "a/0.png"]
    for more, words in (
        (["--reranker-cache", "x"], "--reranker-cache needs --reranker"),
        (["--reranker", "cvnet"], "give them with --reranker-weights"),
        (reranked(world, "--join", 1), "--join is of re-ranking by features"),
        (["--reranker", "cvnet", "--reranker-weights", world / "squeezenet.npz"], "has no layers for re-ranking"),
        (reranked(world, "--reranker-seed", 4), "not made with untrained_seed 4"),
    ):
        result = run(*given, *more)
        assert isinstance(result.exception, InputError) and words in str(result.exception), result.output
    seeded = [
        "--reranker",
        "cvnet",
        "--reranker-weights",
        world / "squeezenet.npz",
        "--reranker-seed",
        4,
        "--rerank",
        1,
    ]
    assert run(*given, *seeded, "--reranker-side", 32).exit_code == 0


def test_pairs_are_compared_in_batches_of_one_size(world: Path, monkeypatch: Any) -> None:
    comparer, rng = LevelComparer(tiny(), device="cpu"), np.random.default_rng(0)
    sides = [(64, 48), (48, 64), (64, 48), (64, 48), (17, 17)]
    levels = [comparer.levels(rng.integers(0, 256, (*side, 3), np.uint8)) for side in sides]
    with torch.no_grad():
        expected = [float(comparer.network(levels[0], other).double().softmax(-1)[0, 1]) for other in levels]
    for most in (1, scoring.MOST_BYTES):
        monkeypatch.setattr(scoring, "MOST_BYTES", most)
        assert np.allclose(comparer.scores(levels[0], levels), expected, atol=1e-5)
    assert len(comparer.scores(levels[0], [])) == 0 and batch_size(1 << 20, 1 << 20) == 1
    assert unit_levels(levels[4]).shape == (1, 2, 8, 1, 1)
    with pytest.raises(InputError, match="10 × 40 pixels"):
        comparer.levels(np.zeros((40, 10, 3), np.uint8))


def test_levels_are_kept_by_content_and_damage_is_repaired(world: Path, tmp_path: Path) -> None:
    names, cache = NAMES[:3], tmp_path / "levels"
    exact = scorer_of(world).scores(names[0], None, names)
    first = scorer_of(world, cache=cache)
    kept = first.scores(names[0], None, names)
    assert np.abs(kept - exact).max() < 0.01 and len(list(cache.iterdir())) == 3
    again = scorer_of(world, cache=cache)
    assert np.array_equal(again.scores(names[0], None, names), kept)
    assert not again._comparer.times.counts["local map"]
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:-40])
    assert np.array_equal(scorer_of(world, cache=cache).scores(names[0], None, names), kept)


def test_an_image_that_cannot_be_compared_scores_0_and_is_reported(world: Path) -> None:
    scorer = scorer_of(world)
    found = scorer.scores("a/0.png", None, ["a/1.png", "gone.png", "a/2.png"])
    assert found[1] == 0 and found[0] > 0 and found[2] > 0 and list(scorer.failed) == ["gone.png"]
    assert any(line.startswith("gone.png: not compared, scores 0: ") for line in scorer.summary())
    with pytest.raises(NotFoundError):
        scorer.scores("gone.png", None, ["a/1.png"])
    with pytest.raises(InputError, match="give 16 or more"):
        CvnetScoring(world / "net.safetensors", 8)
