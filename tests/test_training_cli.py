"""`train-how` and `train-delf` from the command line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asmk_engine.cli import commands
from asmk_engine.errors import AsmkError, InputError, MismatchError
from asmk_engine.networks.checkpoints import open_checkpoint, save_checkpoint
from asmk_engine.training.log import read_log
from tiny_networks import DELF
from trainings import tiny_network, write_photographs

SMALL = ["--max-side", "48", "--epochs", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_photographs(folder / "photographs", {"_others": 3, "a": 3, "b": 2, "c": 2})
    save_checkpoint(folder / "how.safetensors", tiny_network(), {"from": "a test"})
    save_checkpoint(folder / "delf.safetensors", tiny_network(**DELF), {})
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(commands, [str(argument) for argument in arguments])


def fault(result: Result) -> AsmkError:
    assert isinstance(result.exception, AsmkError), result.output
    return result.exception


def train(folder: Path, output: Path, *more: object, command: str = "train-how") -> Result:
    weights = folder / f"{command.removeprefix('train-')}.safetensors"
    return run(command, folder / "photographs", "-o", output, "--weights", weights, *SMALL, *more)


def test_train_how(folder: Path, tmp_path: Path) -> None:
    options = ["--background", folder / "photographs" / "_others", "--pairs", 4, "--negatives", 2, "--json"]
    result = train(folder, tmp_path / "run", *options)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told == {
        "kind": "training",
        "best": str(tmp_path / "run" / "best.safetensors"),
        "last": str(tmp_path / "run" / "last.safetensors"),
        "score": None,
        "epoch": 1,
    }
    assert "10 images, 3 instances" in result.stderr
    first, *rest = read_log(tmp_path / "run")
    assert (first["pairs"], first["pool"], first["learning_rate"], first["augmented_pairs"]) == (4, 20000, 5e-6, 0.0)
    assert [entry["kind"] for entry in rest] == ["plan", "step", "epoch"]
    assert open_checkpoint(told["best"])[1]["from"] == "a test"
    again = train(folder, tmp_path / "run", *options, "--margin", 0.7)
    assert isinstance(fault(again), MismatchError)


def test_train_how_without_labels(folder: Path, tmp_path: Path) -> None:
    result = train(folder, tmp_path, "--layout", "photos", "--pairs", 2, "--negatives", 1, "--skip", 2, "-q")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'best.safetensors'}  (epoch 1)\n"
    assert result.stderr == ""
    assert read_log(tmp_path)[0]["augmented_pairs"] == 1.0


def test_train_delf(folder: Path, tmp_path: Path) -> None:
    result = train(folder, tmp_path, "--augment", "--batch", 4, "-q", command="train-delf")
    assert result.exit_code == 0, result.output
    assert open_checkpoint(tmp_path / "best.safetensors")[0].options.attention == "learned"
    assert read_log(tmp_path)[0]["training"] == "delf"


def test_faults_are_told_before_the_first_epoch(folder: Path, tmp_path: Path) -> None:
    assert "needed; give more data" in str(fault(train(folder, tmp_path / "few", "--negatives", 9)))
    bad = write_photographs(tmp_path / "bad", {"a": 2, "b": 1, "c": 1})
    (bad / "b" / "0.png").write_bytes(b"no photograph")
    weights = ["--weights", folder / "how.safetensors", *SMALL]
    result = run("train-how", bad, "-o", tmp_path / "run", *weights, "--negatives", 1)
    assert "1 of 4 photographs cannot be used for training" in str(fault(result))
    assert not (tmp_path / "run" / "state.safetensors").exists()
    missing = train(folder, tmp_path / "run", "--negatives", 1, "--validate", folder / "gnd.json")
    assert isinstance(fault(missing), InputError)
    assert "--validate-images" in str(fault(missing))


def test_a_validation_from_the_command_line(folder: Path, tmp_path: Path) -> None:
    ground_truth = tmp_path / "gnd.json"
    names = ["a/0.png", "a/1.png", "b/0.png", "b/1.png", "c/0.png", "c/1.png"]
    queries = [{"query": "a/2.png", "bbox": None, "easy": names[:2], "hard": [], "junk": []}]
    ground_truth.write_text(json.dumps({"imlist": names, "queries": queries}))
    options = ["--validate", ground_truth, "--validate-images", folder / "photographs", "--validate-scales", "1"]
    result = train(folder, tmp_path / "run", "--pairs", 2, "--negatives", 1, *options)
    assert result.exit_code == 0, result.output
    assert "(mAP " in result.stdout
    assert "7 validation images are also training images" in result.stderr
    wrong = train(folder, tmp_path / "other", "--negatives", 1, *options[:-1], "one")
    assert "expected numbers such as 1,0.707,0.5" in str(fault(wrong))
    both = train(folder, tmp_path / "both", "--pairs", 2, "--negatives", 1, *options, "--validate-global")
    assert both.exit_code == 0, both.output
    assert ", of the global descriptor " in both.stderr
    alone = train(folder, tmp_path / "alone", "--negatives", 1, "--validate-global")
    assert "--validate-global without --validate; give the ground truth" in str(fault(alone))
    learned = train(folder, tmp_path / "learned", *options, "--validate-global", command="train-delf")
    assert "--validate-global with learned attention" in str(fault(learned))
