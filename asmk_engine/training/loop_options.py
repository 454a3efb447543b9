"""The options of the training loop, and the optimiser that follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from asmk_engine.errors import InputError
from asmk_engine.networks.devices import check_precision
from asmk_engine.training.schedule import Schedule
from asmk_engine.training.task import ParameterGroup

OPTIMIZERS = ("adam", "adamw", "sgd")
_FIRST = ("batch_size", "decay", "weight_decay", "every", "precision")


@dataclass(frozen=True)
class LoopOptions:
    """The options of the training loop, by default HOW's; raises InputError for values out of range.

    epochs        total number of epochs; a finished run resumes if this is raised
    batch_size    number of items per step, of all processes together
    decay         factor by which the learning rate changes from one epoch to the next, of the exponential schedule
    weight_decay  weight decay of the optimiser
    every         number of epochs between validations; the last epoch is always validated
    precision     precision of the convolutions; with fp16 gradients are scaled
    optimizer     `adam`, `adamw`, whose weight decay is no part of the gradient, or `sgd`
    momentum      of `sgd`
    nesterov      whether `sgd` has Nesterov's momentum
    schedule      name in `SCHEDULES`
    power         of the polynomial schedule
    warm_up       number of first epochs over which the learning rate rises
    clip          largest norm of the gradient of all parameters; 0 for no limit
    """

    epochs: int = 20
    batch_size: int = 5
    decay: float = 0.99
    weight_decay: float = 1e-4
    every: int = 5
    precision: str = "fp32"
    optimizer: str = "adam"
    momentum: float = 0.9
    nesterov: bool = False
    schedule: str = "exponential"
    power: float = 0.9
    warm_up: float = 0.0
    clip: float = 0.0

    def __post_init__(self) -> None:
        check_precision(self.precision)
        if min(self.epochs, self.batch_size, self.every) < 1:
            raise InputError(
                f"epochs is {self.epochs}, batch_size {self.batch_size}, every {self.every}; expected at least 1 each"
            )
        if min(self.weight_decay, self.clip) < 0 or not 0 <= self.momentum < 1:
            raise InputError(
                f"weight_decay is {self.weight_decay}, clip {self.clip}, momentum {self.momentum}; expected at least 0 "
                "each, and a momentum below 1"
            )
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"optimizer is {self.optimizer!r}; choose one of {', '.join(OPTIMIZERS)}")
        if self.nesterov and not (self.optimizer == "sgd" and self.momentum):
            raise InputError("nesterov needs the optimizer sgd with a momentum; leave it out, or choose sgd")
        _ = self.rates_over_time  # which checks its own options

    @property
    def rates_over_time(self) -> Schedule:
        """The schedule of the learning rates."""
        return Schedule(self.schedule, self.epochs, self.decay, self.power, self.warm_up)

    def described(self) -> dict[str, Any]:
        """Return what determines a run, as JSON values.

        That is everything but a number of epochs that may be raised. Options that runs of the first versions did not
        have are left out where they have the value of those runs.
        """
        options = asdict(self)
        added = [one for one in fields(self) if one.name not in (*_FIRST, "epochs")]
        unset = {one.name for one in added if options[one.name] == one.default}
        if not self.rates_over_time.depends_on_length:
            unset.add("epochs")
        return {key: value for key, value in options.items() if key not in unset}


def make_optimizer(groups: Sequence[ParameterGroup], options: LoopOptions) -> torch.optim.Optimizer:
    """Return the optimiser of parameters in groups, each with the learning rate at the beginning."""
    listed: list[dict[str, Any]] = [
        {"params": group.parameters, "lr": group.rate, "weight_decay": options.weight_decay if group.decays else 0.0}
        for group in groups
    ]
    if options.optimizer == "adam":
        return torch.optim.Adam(listed)
    if options.optimizer == "adamw":
        return torch.optim.AdamW(listed)
    return torch.optim.SGD(listed, momentum=options.momentum, nesterov=options.nesterov)
