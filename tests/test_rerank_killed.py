"""Long runs around re-ranking, killed by SIGKILL at random moments: the last run ends as one that was never killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from asmk_engine import Features
from asmk_engine.networks.global_checkpoints import save_global_checkpoint
from asmk_engine.networks.global_network import GlobalNetwork, GlobalOptions
from asmk_engine.networks.reranking.checkpoints import save_rerank_checkpoint
from asmk_engine.pipeline import index_folder
from asmk_engine.recipes import Recipe
from asmk_engine.training.log import read_log
from asmk_engine.training.loop import BEST, LAST
from samples import ENVIRONMENT, write_features
from test_rerank_training import tiny
from trainings import write_photographs

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")]

KILLS = 4
COUNTS = {"a": 4, "b": 4, "c": 4}
NAMES = [f"{name}/{number}.png" for name in COUNTS for number in range(4)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_photographs(folder / "photographs", COUNTS)
    queries = [{"query": f"{name}/0.png", "bbox": None, "easy": [f"{name}/1.png"], "hard": [f"{name}/2.png"]}
               for name in COUNTS]  # fmt: skip
    truth = {"imlist": NAMES, "queries": [{**query, "junk": []} for query in queries]}
    (folder / "gnd.json").write_text(json.dumps(truth))
    network = tiny()
    save_global_checkpoint(
        folder / "gem.safetensors",
        GlobalNetwork(GlobalOptions("squeezenet1_1", whitening=8), network.backbone),
        {},
    )
    save_rerank_checkpoint(folder / "net.safetensors", network, {})
    rng, local, whole = np.random.default_rng(0), {}, {}
    for name in NAMES:
        keypoints = np.column_stack([rng.uniform(0, 40, (5, 2)), np.full(5, 16.0)])
        local[name] = Features.from_descriptors(rng.normal(size=(5, 8)), keypoints, image_size=(40, 48))
        whole[name] = Features.from_descriptors(rng.normal(size=(1, 6)))
    write_features(folder / "local", local, recipe=Recipe("delg-local"))
    write_features(folder / "whole", whole, recipe=Recipe("delg"))
    return folder


def killed(kills: int, seconds: float, *words: object) -> tuple[int, float, str]:
    """How many of the runs of a command were killed, how long the last one took, and what it printed."""
    program = [sys.executable, str(Path(__file__).parent / "killed_often.py"), str(kills), str(seconds), "1"]
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([*program, *map(str, words)], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    told, count, took = done.stdout.rsplit(maxsplit=2)
    return int(count), float(took), told


def rerank_words(world: Path, output: Path) -> list[object]:
    photographs = world / "photographs"
    words = ["train-rerank", photographs, "-o", output, "--weights", world / "gem.safetensors", "--device", "cpu", "-q"]
    small = ["--width", 8, "--levels", 1, "--crop", 32, "--max-side", 48, "--batch", 2, "--epochs", 3, "--triplets", 4]
    validated = ["--validate", world / "gnd.json", "--validate-images", photographs, "--validate-rerank", 3]
    return [*words, *small, "--learning-rate", 0.01, *validated]


def rrt_words(world: Path, output: Path) -> list[object]:
    words = ["train-rrt", world / "photographs", "--local", world / "local", "--global", world / "whole", "-o", output]
    small = ["--layers", 1, "--hidden", 8, "--neighbours", 11, "--least-positives", 1, "--batch", 4, "--epochs", 8]
    return [*words, *small, "--learning-rate", 0.01, "--device", "cpu", "-q", "--validate", world / "gnd.json"]


@pytest.mark.parametrize("words", [rerank_words, rrt_words], ids=["train-rerank", "train-rrt"])
def test_a_training_that_is_killed_again_and_again(world: Path, tmp_path: Path, words: object) -> None:
    assert callable(words)
    _, took, _ = killed(0, 0, *words(world, tmp_path / "whole"))
    count, _, _ = killed(KILLS, took, *words(world, tmp_path / "cut"))
    assert count
    for name in (LAST, BEST):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    logs = [[{**entry, "seconds": 0} for entry in read_log(tmp_path / folder)] for folder in ("whole", "cut")]
    assert logs[0] == logs[1]
    assert sorted(os.listdir(tmp_path / "cut")) == sorted(os.listdir(tmp_path / "whole"))


@pytest.mark.parametrize("command", ["evaluate", "query"])
def test_what_a_killed_search_kept_is_whole(world: Path, tmp_path: Path, command: str) -> None:
    index = tmp_path / "i.index"
    index_folder(world / "photographs", index, extractor="gem", weights=world / "gem.safetensors", max_side=48,
                 device="cpu", workers=0)  # fmt: skip
    asked = {"evaluate": ["--ground-truth", world / "gnd.json", "--json"], "query": ["a/0.png", "--format", "jsonl"]}
    words = [command, index, *asked[command], "--reranker", "cvnet", "--reranker-weights", world / "net.safetensors"]
    words += ["--reranker-side", 64, "-q", "--reranker-cache"]
    _, took, expected = killed(0, 0, *words, tmp_path / "whole")
    count, _, found = killed(KILLS, took, *words, tmp_path / "cut")
    assert count and found.splitlines()[-1] == expected.splitlines()[-1]
    kept = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "cut")]
    assert kept[0] == kept[1] and kept[0]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").iterdir()}
    _, _, again = killed(0, 0, *words, tmp_path / "cut")
    assert again.strip() == expected.strip()
    assert {path: path.stat().st_mtime_ns for path in before} == before  # used, not written again
