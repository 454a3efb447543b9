"""The ablation of HOW's paper from the command line: every row of Table 1, and the starred curve of Fig. 4."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from asmk_engine.cli import commands
from asmk_engine.errors import InputError
from asmk_engine.extractors import load_extractor
from asmk_engine.networks.backbones import build_backbone
from asmk_engine.networks.checkpoints import open_checkpoint
from asmk_engine.training.ablation import ROWS, ablation_row
from asmk_engine.training.log import read_log
from tiny_networks import randomised
from trainings import photograph, write_photographs

# Of Table 1: the components of DELF that a row has (its hats), and its loss. "H": no smoothing, "O": a reduction after
# training, "W": learned attention.
TABLE = {
    "1": ("", "contrastive"),
    "2": ("H", "contrastive"),
    "3": ("HO", "contrastive"),
    "4": ("HOW", "contrastive"),
    "5": ("HOW", "classification"),
    "6": ("HO", "classification"),
    "7": ("H", "classification"),
    "8": ("OW", "classification"),
    "9": ("", "classification"),
    "star": ("", "contrastive"),
}
SMALL = ["--max-side", 48, "--epochs", 1, "--device", "cpu", "--pairs", 3, "--negatives", 2, "--dim", 6, "-q"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    write_photographs(folder / "photographs", {"a": 3, "b": 2, "c": 2})
    state = randomised(build_backbone("squeezenet1_1", 8)).state_dict()
    np.savez(folder / "imagenet.npz", **{key: value.numpy() for key, value in state.items()})
    return folder


def train(folder: Path, row: str, output: Path, *more: object) -> Result:
    backbone = ["--weights", folder / "imagenet.npz", "--backbone", "squeezenet1_1", "--backbone-skip", 8]
    arguments = ["train-ablation", row, folder / "photographs", "-o", output, *backbone, *SMALL, *more]
    return CliRunner().invoke(commands, [str(argument) for argument in arguments])


def test_the_rows_are_those_of_the_table() -> None:
    assert set(ROWS) == set(TABLE)
    for name, (hats, loss) in TABLE.items():
        row = ablation_row(name, "resnet50", 1)
        assert (row.options.backbone, row.options.skip, row.options.dim) == ("resnet50", 1, 128)
        assert (row.options.smoothing == 1) == ("H" in hats) and row.options.smoothing in (1, 3)
        assert row.options.reduction == ("post-whitening" if "O" in hats else "network")
        assert row.options.attention == ("learned" if "W" in hats else "norm")
        assert row.loss == loss and row.learn_reduction == (name == "star")
    with pytest.raises(InputError, match="no row '10'"):
        ablation_row("10")


@pytest.mark.parametrize("row", ROWS)
def test_every_row_trains_from_imagenet_weights(row: str, folder: Path, tmp_path: Path) -> None:
    result = train(folder, row, tmp_path)
    assert result.exit_code == 0, (result.output, result.exception)
    hats, loss = TABLE[row]
    start, _ = open_checkpoint(tmp_path / "start.safetensors")
    made, origin = open_checkpoint(tmp_path / "best.safetensors")
    assert made.options == start.options == ablation_row(row, "squeezenet1_1", 8, 6).options
    assert (
        read_log(tmp_path)[0]["training"] == ("how" if loss == "contrastive" else "delf") and origin["ablation"] == row
    )
    changed = {key for key, value in made.state_dict().items() if not torch.equal(value, start.state_dict()[key])}
    assert any(key.startswith("backbone.") for key in changed)
    assert any(key.startswith("attention.") for key in changed) == ("W" in hats)
    # In the network the reduction is fixed, but for the star; after training it is learned anew from what was trained.
    assert any(key.startswith("reduction.") for key in changed) == ("O" in hats or row == "star")
    extractor = load_extractor("delf" if "W" in hats else "how", weights=str(tmp_path / "best.safetensors"))
    found = extractor.extract(photograph(1)).descriptors.astype(np.float32)
    assert found.shape[1] == 6 and np.isfinite(found).all()
    if "O" in hats:
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=2e-3)


def test_a_row_is_resumed_and_another_one_is_refused(folder: Path, tmp_path: Path) -> None:
    assert train(folder, "1", tmp_path).exit_code == 0
    start = (tmp_path / "start.safetensors").read_bytes()
    assert train(folder, "1", tmp_path, "--epochs", 2).exit_code == 0
    assert [entry["epoch"] for entry in read_log(tmp_path) if entry["kind"] == "epoch"] == [1, 2]
    assert (tmp_path / "start.safetensors").read_bytes() == start
    refused = train(folder, "2", tmp_path)
    assert isinstance(refused.exception, InputError) and "another row of the ablation" in str(refused.exception)
