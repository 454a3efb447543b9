"""`train-global` from the command line, for every network, and the errors that come before the first epoch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from asmk_engine.cli import commands, train_global
from asmk_engine.errors import AsmkError, InputError, MismatchError
from asmk_engine.extractors import load_extractor
from asmk_engine.networks.backbones import build_backbone
from asmk_engine.networks.composed.checkpoints import open_composed_checkpoint
from asmk_engine.networks.composed.table import NETWORKS
from asmk_engine.networks.global_checkpoints import open_global_checkpoint, save_global_checkpoint
from asmk_engine.training.global_networks import TRAINABLE
from asmk_engine.training.log import read_log
from asmk_engine.training.loss_defaults import DEFAULTS, LOSSES
from tiny_networks import randomised
from trainings import tiny_global, write_photographs

SMALL = ["--max-side", 64, "--crop", 48, "--batch", 4, "--epochs", 1, "--device", "cpu", "-q"]
# Heads as small as their switches allow.
SWITCHES = {
    "agem": [],
    "cider": [],
    "cvnet": ["dim=8"],
    "delg": ["dim=8", "code=4", "hidden=8"],
    "dolg": [],
    "dplg": [],
    "gem-ap": ["dim=8"],
    "glam": [],
    "solar": [],
    "token": ["dim=16", "width=16", "attention_heads=2"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_photographs(folder / "photographs", {"a": 3, "b": 3, "c": 2})
    with torch.random.fork_rng():
        backbone = randomised(build_backbone("squeezenet1_1"))
    np.savez(folder / "squeezenet.npz", **{key: value.numpy() for key, value in backbone.state_dict().items()})
    save_global_checkpoint(folder / "gem.safetensors", tiny_global(), {"from": "a test"})
    return folder


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the tiny trainings."""
    monkeypatch.setattr("asmk_engine.training.loop.draw_curves", lambda folder: folder)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(commands, [str(argument) for argument in arguments])


def fault(result: Result) -> AsmkError:
    assert isinstance(result.exception, AsmkError), result.output
    return result.exception


def train(folder: Path, output: Path, *more: object, network: str = "gem", loss: str = "arcface") -> Result:
    weights = folder / ("gem.safetensors" if network == "gem" else "squeezenet.npz")
    options = ["--network", network, "--weights", weights, "--loss", loss, "-o", output, *SMALL]
    return run("train-global", folder / "photographs", *options, *more)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_gem(folder: Path, tmp_path: Path, loss: str) -> None:
    tuples = ["--pairs", 4, "--negatives", 1] if "tri" in loss or loss == "contrastive" else []
    result = train(folder, tmp_path, "--json", *tuples, loss=loss)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["kind"], told["epoch"], told["best"]) == ("training", 1, str(tmp_path / "best.safetensors"))
    described = read_log(tmp_path)[0]
    assert described["training"] == "gem"
    assert loss != "momentum" or described["contrast"]["queue"] == 8  # of as many images
    assert described["learning_rate"] == DEFAULTS[loss].learning_rate
    network, origin = open_global_checkpoint(told["best"])
    assert origin["from"] == "a test"
    assert not all(map(torch.equal, network.state_dict().values(), tiny_global().state_dict().values()))


@pytest.mark.parametrize("network", NETWORKS)
def test_every_composed_network_trains(folder: Path, tmp_path: Path, network: str) -> None:
    switches = [word for switch in SWITCHES[network] for word in ("--switch", switch)]
    result = train(folder, tmp_path, *switches, "--learning-rate", 1e-3, network=network)
    assert result.exit_code == 0, result.output
    made, origin = open_composed_checkpoint(tmp_path / "best.safetensors")
    assert made.options.network == network
    assert made.options.untrained_seed is None
    assert origin["training"]["training"] == network
    described = load_extractor(network, weights=str(tmp_path / "last.safetensors"), max_side=64)
    features = described.extract(folder / "photographs" / "a" / "0.png")
    assert features.descriptors.shape == (1, made.dim)
    assert np.linalg.norm(features.descriptors) == pytest.approx(1, abs=1e-3)
    assert set(SWITCHES) == set(NETWORKS)
    before = read_log(tmp_path)
    assert train(folder, tmp_path, *switches, "--learning-rate", 1e-3, network=network).exit_code == 0
    assert read_log(tmp_path) == before


def test_a_pooling_gets_a_layer_and_is_trained_further(folder: Path, tmp_path: Path) -> None:
    options = ["--dim", 8, "--least-area", 0.5, "--sampling", "classes", "--per-class", 2, "--precision", "bf16"]
    result = train(folder, tmp_path / "one", *options, network="spoc", loss="cross-entropy")
    assert result.exit_code == 0, result.output
    best = tmp_path / "one" / "best.safetensors"
    assert open_global_checkpoint(best)[0].options.whitening == 8
    again = ["--network", "spoc", "--weights", best, "--loss", "ap", "--freeze", "backbone", *SMALL]
    result = run("train-global", folder / "photographs", "-o", tmp_path / "two", *again)
    assert result.exit_code == 0, result.output
    origin = open_global_checkpoint(tmp_path / "two" / "best.safetensors")[1]
    assert origin["training"]["loss"] == "ap"
    assert len(origin["backbone_sha256"]) == 64
    wrong = run("train-global", folder / "photographs", "-o", tmp_path / "three", *again, "--dim", 4)
    assert "a complete network has its own head; leave out --dim and --switch" in str(fault(wrong))


def test_a_validation_keeps_the_best(folder: Path, tmp_path: Path) -> None:
    names = ["a/0.png", "a/1.png", "b/0.png", "b/1.png", "c/0.png", "c/1.png"]
    queries = [{"query": "a/2.png", "bbox": [0, 0, 30, 30], "easy": names[:2], "hard": [], "junk": []}]
    (tmp_path / "gnd.json").write_text(json.dumps({"imlist": names, "queries": queries}))
    options = ["--validate", tmp_path / "gnd.json", "--validate-images", folder / "photographs", "--epochs", 3]
    result = train(folder, tmp_path / "run", *options, "--json")
    assert result.exit_code == 0, result.output
    scores = [entry["score"] for entry in read_log(tmp_path / "run") if entry["kind"] == "validation"]
    assert len(scores) == 4
    told = json.loads(result.stdout)
    assert told["score"] == max(scores)
    assert told["epoch"] == scores.index(max(scores))
    extractor = load_extractor("gem", weights=told["best"], max_side=64)
    vectors = np.concatenate([extractor.extract(folder / "photographs" / name).descriptors for name in names])
    query = extractor.extract(folder / "photographs" / "a" / "2.png", box=(0, 0, 30, 30)).descriptors[0]
    ranks = sorted(np.argsort(-(vectors @ query), kind="stable").tolist().index(place) for place in (0, 1))
    pieces = [((1.0 if rank == 0 else seen / rank) + (seen + 1) / (rank + 1)) / 2 for seen, rank in enumerate(ranks)]
    assert told["score"] == pytest.approx(sum(pieces) / 2, abs=1e-6)


def test_classes_are_selected(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "exclude.txt").write_text("b\n")
    result = train(folder, tmp_path / "run", "--exclude", tmp_path / "exclude.txt", "--least-images", 2)
    assert result.exit_code == 0, result.output
    assert read_log(tmp_path / "run")[1]["items"] == 4  # of five
    wrong = train(folder, tmp_path / "other", "--exclude", tmp_path / "exclude.txt", "--least-images", 3)
    assert "1 of 2 classes have 3 images or more" in str(fault(wrong))


def test_other_options_do_not_resume(folder: Path, tmp_path: Path) -> None:
    assert train(folder, tmp_path, "--micro-batch", 2).exit_code == 0
    assert train(folder, tmp_path, "--workers", 1, "--check", "files").exit_code == 0
    assert "margin was 0.15, is 0.2" in str(fault(train(folder, tmp_path, "--margin", 0.2)))
    assert isinstance(fault(train(folder, tmp_path, "--freeze", "head")), MismatchError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", 99], "8 images of a class, fewer than the 99 of a step; lower --batch"),
        (["--switch", "dim"], "expected NAME=VALUE"),
        (["--freeze", "neck"], "expected backbone or head"),
        (["--freeze", "head", "--freeze", "backbone"], "in epoch 1 both backbone and head are frozen"),
        (["--second-order", 1], "it is computed from tuples"),
        (["--exclude", "nowhere.txt"], "nowhere.txt: no such file; expected a list of classes"),
        (["--validate", "gnd.json"], "give the folder of its images with --validate-images"),
        (["--validate-images", "here"], "--validate-images without --validate"),
        (["--sampling", "classes", "--per-class", 3], "batch_size is 4, per_class 3"),
        (["--least-area", 2], "the crop has side 48, area 2.0"),
    ],
)
def test_faults_are_told_before_the_first_epoch(
    folder: Path, tmp_path: Path, options: list[object], message: str
) -> None:
    assert message in str(fault(train(folder, tmp_path / "run", *options)))
    assert not (tmp_path / "run" / "state.safetensors").exists()


def test_bad_photographs_and_networks(folder: Path, tmp_path: Path) -> None:
    bad = write_photographs(tmp_path / "bad", {"a": 3, "b": 3})
    (bad / "b" / "0.png").write_bytes(b"no photograph")
    options = ["--network", "gem", "--weights", folder / "gem.safetensors", "--loss", "arcface", *SMALL]
    result = run("train-global", bad, "-o", tmp_path / "run", *options)
    assert "1 of 6 photographs cannot be used for training" in str(fault(result))
    unknown = train(folder, tmp_path / "run", network="resnet")
    assert str(fault(unknown)).endswith(f"choose one of {', '.join(TRAINABLE)}")
    other = train(folder, tmp_path / "run", "--switch", "colour=red", network="dolg")
    assert "unknown switch colour; this network has:" in str(fault(other))
    tuples = train(folder, tmp_path / "run", "--micro-batch", 1, loss="triplet")
    assert isinstance(fault(tuples), InputError)


def test_a_projection_is_refused(folder: Path, tmp_path: Path) -> None:
    save_global_checkpoint(tmp_path / "projected.safetensors", tiny_global(projection=4), {})
    options = ["--network", "gem", "--weights", tmp_path / "projected.safetensors", "--loss", "arcface", *SMALL]
    result = run("train-global", folder / "photographs", "-o", tmp_path / "run", *options)
    assert "learn it again with `asmk-engine whiten-global`" in str(fault(result))


def test_the_losses_of_the_command_are_all() -> None:
    assert train_global.LOSSES == LOSSES == tuple(DEFAULTS)
