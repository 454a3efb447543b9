"""Two processes train as one process does with the joint batch."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import joined_training
from asmk_engine import Features
from asmk_engine.errors import InputError
from asmk_engine.networks.global_checkpoints import open_global_checkpoint, save_global_checkpoint
from asmk_engine.networks.tensor_files import read_safetensors
from asmk_engine.recipes import Recipe
from asmk_engine.training.global_tasks import make_task
from asmk_engine.training.global_trainee import GlobalTrainee, TraineeOptions
from asmk_engine.training.instance_layouts import read_instances
from asmk_engine.training.log import LOG, read_log
from asmk_engine.training.loop import LAST, TrainingRun
from asmk_engine.training.loop_options import LoopOptions
from asmk_engine.training.processes import Processes, join_processes
from samples import write_features
from trainings import tiny_global, write_photographs

TOLERANCE = 2e-5  # relative, of the losses of all steps: float32 sums in another order; 4e-6 was measured


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("joined")
    photographs = write_photographs(folder / "photographs", {"a": 4, "b": 4, "c": 3, "d": 2})
    features = write_drawn(photographs, folder / "features")
    joined_training.main(photographs, features, folder / "one")
    tests = Path(__file__).parent
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    paths = os.pathsep.join([str(tests.parent), str(tests), os.environ.get("PYTHONPATH", "")])
    found = subprocess.run(
        [*program, *map(str, [tests / "joined_training.py", photographs, features, folder / "two"])],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return folder / "one", folder / "two"


def write_drawn(photographs: Path, folder: Path) -> Path:
    """Write random features of the photographs: a set of local ones and one of global descriptors."""
    rng, local, whole = np.random.default_rng(0), {}, {}
    for path in sorted(photographs.rglob("*.png")):
        keypoints = np.column_stack([rng.uniform(0, 40, (5, 2)), np.full(5, 16.0)])
        name = path.relative_to(photographs).as_posix()
        local[name] = Features.from_descriptors(rng.normal(size=(5, 8)), keypoints, image_size=(40, 48))
        whole[name] = Features.from_descriptors(rng.normal(size=(1, 6)))
    write_features(folder / "local", local, recipe=Recipe("delg-local"))
    write_features(folder / "whole", whole, recipe=Recipe("delg"))
    return folder


@pytest.mark.parametrize("kind", [*joined_training.TASKS, *joined_training.PAIRS])
def test_two_processes_train_as_one(runs: tuple[Path, Path], kind: str) -> None:
    one, two = ([entry for entry in read_log(folder / kind) if entry["kind"] == "step"] for folder in runs)
    assert [entry["at"] for entry in two] == [entry["at"] for entry in one]
    assert [entry["loss"] for entry in two] == pytest.approx([entry["loss"] for entry in one], rel=TOLERANCE, abs=1e-5)
    networks = [read_safetensors(folder / kind / LAST)[0] for folder in runs]
    for name, value in networks[0].items():
        torch.testing.assert_close(networks[1][name], value, rtol=1e-3, atol=1e-5)


def test_a_step_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    data = read_instances(write_photographs(tmp_path / "photographs", {"a": 4, "b": 4}))
    three = Processes()
    three.count = 3
    task = make_task(GlobalTrainee(tiny_global(), "gem", TraineeOptions()), data, joined_training.BATCH)
    with pytest.raises(InputError, match="4 items a step cannot be shared by 3 processes; give a multiple of 3"):
        TrainingRun(tmp_path / "run", task, LoopOptions(batch_size=4), {}, processes=three)


def test_several_processes_need_a_whole_step(tmp_path: Path) -> None:
    data = read_instances(write_photographs(tmp_path / "photographs", {"a": 4, "b": 4}))
    two = Processes()
    two.count = 2
    options = replace(joined_training.TASKS["triplet"], pairs=4, negatives=1)
    task = make_task(GlobalTrainee(tiny_global(), "gem", TraineeOptions()), data, options)
    run = TrainingRun(tmp_path / "run", task, LoopOptions(batch_size=6), {}, processes=two)
    with pytest.raises(InputError, match="an epoch has 4 tuples, a step 6; several processes need one whole step"):
        run.run()


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    processes, device = join_processes("cpu")
    assert (processes.rank, processes.count, processes.is_first, device) == (0, 1, True, "cpu")
    assert processes.gather(torch.ones(2, requires_grad=True)).requires_grad is False
    assert processes.share(range(4)) == range(4)


@pytest.mark.slow
def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path: Path) -> None:
    photographs = write_photographs(tmp_path / "photographs", {"a": 8, "b": 8, "c": 8})
    save_global_checkpoint(tmp_path / "gem.safetensors", tiny_global(), {})
    options = "--network gem --loss momentum --queue 16 --crop 32 --max-side 48 --batch 4 --epochs 6 --device cpu -q"
    weights = ["--weights", str(tmp_path / "gem.safetensors"), *options.split()]
    root = str(Path(__file__).parents[1])

    def start(output: Path) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-m", "asmk_engine", "train-global", str(photographs), "-o", str(output), *weights]
        paths = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(program, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths})

    assert start(tmp_path / "whole").wait() == 0
    for epoch in (2, 4):
        process = start(tmp_path / "cut")
        while process.poll() is None and reached(tmp_path / "cut") < epoch:
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert start(tmp_path / "cut").wait() == 0
    logs = [[{**entry, "seconds": 0} for entry in read_log(tmp_path / name)] for name in ("whole", "cut")]
    assert logs[0] == logs[1]
    networks = [open_global_checkpoint(tmp_path / name / LAST)[0].state_dict() for name in ("whole", "cut")]
    assert all(torch.equal(value, networks[1][key]) for key, value in networks[0].items())


def reached(folder: Path) -> int:
    """The last epoch in the log of a run; 0 without a log."""
    if not (folder / LOG).exists():
        return 0
    return max((entry.get("epoch", 0) for entry in read_log(folder) if entry["kind"] == "step"), default=0)
