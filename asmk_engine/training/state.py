"""The state of a training in one file, which is replaced atomically and contains only arrays and JSON.

network/NAME                      tensors of the trained modules
first/NAME, second/NAME, steps    Adam's moments, and the number of steps of each parameter that has them
momentum/NAME                     the momentum of stochastic gradient descent
plan, losses                      the items of the current epoch, and the losses of its steps so far
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from asmk_engine.errors import DamagedError, MismatchError
from asmk_engine.networks.backbones import load_tensors
from asmk_engine.networks.stored_names import from_stored, to_stored
from asmk_engine.storage.arrays import ArrayFile, map_arrays, write_arrays
from asmk_engine.storage.folder import Folder

STATE = "state.safetensors"
KIND = "asmk-engine training"
FORMAT = "1"
MOMENTS = {"first": "exp_avg", "second": "exp_avg_sq", "momentum": "momentum_buffer"}


@dataclass
class TrainingPosition:
    """The position of a training.

    epoch       current epoch, from 1
    plan        [n, k] int64, the items of the epoch; no rows before it is planned
    done        number of items of the epoch that were trained on
    losses      mean loss of the items of each step of the epoch so far
    best        highest score so far; None before the first
    best_epoch  epoch of the highest score
    log_bytes   length of the log at this position
    seconds     duration of the epoch so far
    scaler      `GradScaler.state_dict()`, for half precision
    """

    epoch: int = 1
    plan: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.int64))
    done: int = 0
    losses: list[float] = field(default_factory=list)
    best: float | None = None
    best_epoch: int = 0
    log_bytes: int = 0
    seconds: float = 0.0
    scaler: dict[str, Any] = field(default_factory=dict)


def save_state(
    folder: Path,
    trained: nn.Module,
    optimizer: torch.optim.Optimizer,
    place: TrainingPosition,
    described: dict[str, Any],
) -> None:
    """Replace the state of a run atomically: after a crash either the old or the new state exists."""
    arrays = {f"network/{key}": _plain(value) for key, value in to_stored(_tensors(trained)).items()}
    arrays |= _moments(trained, optimizer)
    if len(place.plan):
        arrays["plan"] = place.plan
    if place.losses:
        arrays["losses"] = np.array(place.losses, np.float64)
    numbers = {key: value for key, value in asdict(place).items() if key not in ("plan", "losses")}
    metadata = {
        "kind": KIND,
        "format": FORMAT,
        "place": json.dumps(numbers),
        "options": json.dumps(to_stored(described)),
    }
    target = Folder(folder)
    write_arrays(target, STATE, arrays, metadata)
    target.sync()


def _learning(trained: nn.Module, optimizer: torch.optim.Optimizer) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters of the optimiser with their names, in its order."""
    names = {id(parameter): name for name, parameter in trained.named_parameters()}
    return [(names[id(one)], one) for group in optimizer.param_groups for one in group["params"]]


def _moments(trained: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, np.ndarray]:
    """Return the state of the optimiser as arrays; that of parameters which have not learned yet is missing."""
    learning = [(name, optimizer.state.get(one, {})) for name, one in _learning(trained, optimizer)]
    known = [(name, state) for name, state in to_stored(dict(learning)).items() if state]
    arrays = {
        f"{kind}/{name}": _plain(state[key])
        for kind, key in MOMENTS.items()
        for name, state in known
        if state.get(key) is not None
    }
    steps = [float(state["step"]) for _, state in known if "step" in state]
    return {**arrays, "steps": np.array(steps, np.float32)} if steps else arrays


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors by name; whole numbers among them are small enough to be stored in single precision."""
    return {key: value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")}


def _plain(value: torch.Tensor) -> np.ndarray:
    array: np.ndarray = value.detach().cpu().contiguous().float().numpy()
    return array


def load_state(
    folder: Path, trained: nn.Module, optimizer: torch.optim.Optimizer, described: dict[str, Any]
) -> TrainingPosition | None:
    """Load the stored state into network and optimiser and return the position, or None if there is no state.

    Raises MismatchError, which names every option that differs, and DamagedError for a damaged state.
    """
    if not (folder / STATE).exists():
        return None
    file = map_arrays(Folder(folder), STATE)
    file.verify()
    place = _place(file)
    _check_same(folder, from_stored(_json(file, "options")), described)
    tensors = {key.removeprefix("network/"): _tensor(file, key) for key in file.arrays if key.startswith("network/")}
    load_tensors(trained, from_stored(tensors), file.path, "the state was altered; remove it to start again")
    _load_moments(file, trained, optimizer)
    return place


def _json(file: ArrayFile, key: str) -> dict[str, Any]:
    try:
        if (file.metadata.get("kind"), file.metadata.get("format")) != (KIND, FORMAT):
            raise ValueError(f"it is {file.metadata.get('kind')} {file.metadata.get('format')}")
        return dict(json.loads(file.metadata[key]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"{file.path}: not the state of a training ({error}); remove it to start again") from None


def _place(file: ArrayFile) -> TrainingPosition:
    try:
        place = TrainingPosition(**_json(file, "place"))
    except TypeError as error:
        raise DamagedError(f"{file.path}: not the state of a training ({error}); remove it to start again") from None
    if "plan" in file.arrays:
        place.plan = np.array(file.take("plan", "<i8", None, None))
    if "losses" in file.arrays:
        place.losses = [float(loss) for loss in file.take("losses", "<f8", None)]
    return place


def _check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    now = json.loads(json.dumps(now))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if changed:
        listed = ", ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in changed)
        raise MismatchError(f"{folder}: started with other options: {listed}; give the same, or another folder")


def _tensor(file: ArrayFile, key: str) -> torch.Tensor:
    return torch.from_numpy(np.array(file.arrays[key], np.float32))


def _load_moments(file: ArrayFile, trained: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load the state of the optimiser, with the memory layout of its parameters, for results equal bit by bit."""
    named = list(to_stored(dict(_learning(trained, optimizer))).items())
    state: dict[int, dict[str, torch.Tensor]] = {}
    for number, (name, parameter) in enumerate(named):
        for kind, key in MOMENTS.items():
            if f"{kind}/{name}" in file.arrays:
                moment = torch.from_numpy(np.array(file.take(f"{kind}/{name}", "<f4", *parameter.shape)))
                state.setdefault(number, {})[key] = torch.empty_like(parameter).copy_(moment)
    if "steps" in file.arrays:
        for found, steps in zip(state.values(), file.take("steps", "<f4", len(state)), strict=True):
            found["step"] = torch.tensor(float(steps))
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
