"""Every global network by the commands a user types, with weights of full size: official files, and network files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import official_files as official
from asmk_engine.networks.composed.checkpoints import save_composed_checkpoint
from asmk_engine.networks.composed.network import build_composed
from asmk_engine.networks.composed.table import NETWORKS
from asmk_engine.training.log import read_log
from trainings import write_photographs

pytestmark = pytest.mark.slow

OFFICIAL = {"solar": "SOLAR", "gem-ap": "dirtorch", "dolg": "DOLG", "cvnet": "CVNet", "token": "Token"}
EXTRACTORS = {**{name: name for name in NETWORKS}, "delg-local": "delg"}
CLASSES = {"barn": 4, "bridge": 4, "church": 3}
AS_LINES = ["--format", "jsonl"]
SMALL = ["--max-side", "96", "--crop", "64", "--batch", "4", "--workers", "1"]


def synthesised(network: str, path: Path) -> Path:
    """Write weights of full size: with the published names where there is an official code, else a network file."""
    generator = torch.Generator().manual_seed(1)
    if network not in OFFICIAL:
        made = build_composed(network, "resnet50")
        made.mark_trained()
        save_composed_checkpoint(path.with_suffix(".safetensors"), made, {})
        return path.with_suffix(".safetensors")
    code = OFFICIAL[network]
    content = official.content(code, getattr(official, code.lower())())
    tensors = content.get("state_dict", content.get("model_state", content))
    for name, shape in ((name, tensor.shape) for name, tensor in tensors.items()):
        tensors[name] = drawn(name, tuple(shape), generator)
    torch.save(content, path)
    return path


def drawn(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return a tensor as of a network before its training: small random weights, and normalisations that do nothing."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if name.endswith(".p"):
        return torch.full(shape, 3.0)
    if len(shape) > 1:
        inputs = torch.Size(shape[1:]).numel()
        return torch.randn(shape, generator=generator) * inputs**-0.5
    return torch.ones(shape) if name.endswith(("weight", "running_var")) else torch.zeros(shape)


def run(*words: Any) -> str:
    done = subprocess.run([sys.executable, "-m", "asmk_engine", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def killed_in_the_second_epoch(folder: Path, words: list[str]) -> None:
    """Start a command that trains, and kill it when the first epoch is over."""
    process = subprocess.Popen([sys.executable, "-m", "asmk_engine", *words], stdout=subprocess.DEVNULL)
    try:
        while not (
            (folder / "log.jsonl").exists() and '"kind": "plan", "epoch": 2' in (folder / "log.jsonl").read_text()
        ):
            assert process.poll() is None, "the training ended before it was killed"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_weights_are_extracted_indexed_searched_evaluated_and_trained(extractor: str, tmp_path: Path) -> None:
    network, photographs = EXTRACTORS[extractor], write_photographs(tmp_path / "photographs", CLASSES)
    weights = synthesised(network, tmp_path / "weights.pth")
    names = sorted(path.relative_to(photographs).as_posix() for path in photographs.rglob("*.png"))
    queries = [{"query": "barn/0.png", "bbox": None, "easy": ["barn/1.png", "barn/2.png"], "hard": ["barn/3.png"]}]
    ground_truth = tmp_path / "gnd.json"
    ground_truth.write_text(json.dumps({"imlist": names, "queries": [{**query, "junk": []} for query in queries]}))

    features, index = tmp_path / "features", tmp_path / "index"
    chosen = ["--extractor", extractor, "--weights", weights, "--max-side", 96, "-q"]
    run("extract", photographs, "-o", features, *chosen)
    words = ["--words", 16] if extractor == "delg-local" else []
    run("index", features, "-o", index, *words, "-q")
    (answer,) = [json.loads(line) for line in run("query", index, photographs / "barn/0.png", *AS_LINES).splitlines()]
    assert answer["hits"][0]["name"] == "barn/0.png"
    scores = json.loads(run("evaluate", index, "--ground-truth", ground_truth, "--json"))
    assert 0 < scores["medium"]["mAP"] <= 100

    if extractor == "delg-local":
        return
    folder = tmp_path / "run"
    words = ["train-global", str(photographs), "--network", network, "--weights", str(weights), "--loss", "arcface"]
    words += ["-o", str(folder), "--epochs", "2", "--learning-rate", "1e-4", *SMALL]
    killed_in_the_second_epoch(folder, words)
    run(*words)
    losses = [entry["loss"] for entry in read_log(folder) if entry["kind"] == "epoch"]
    assert len(losses) == 2
    run("extract", photographs, "-o", tmp_path / "trained", *chosen[:2], "--weights", folder / "best.safetensors", "-q")
