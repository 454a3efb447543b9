"""How the learning rates change over a training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from asmk_engine.errors import InputError

SCHEDULES = ("exponential", "constant", "cosine", "polynomial", "linear")
WARM_UP_BEGIN = 0.1


@dataclass(frozen=True)
class Schedule:
    """The factor of the learning rates at each moment; raises InputError for values out of range.

    name     exponential: decay^e in epoch e, counted from 0; constant: 1; with x, the part of the training that is
             done: cosine: (1 + cos πx) / 2; polynomial: (1 − x)^power; linear: 1 − x
    epochs   length of the training
    decay    of `exponential`
    power    of `polynomial`
    warm_up  number of first epochs over which another factor rises from 0.1 to 1
    """

    name: str = "exponential"
    epochs: int = 1
    decay: float = 0.99
    power: float = 0.9
    warm_up: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise InputError(f"schedule is {self.name!r}; choose one of {', '.join(SCHEDULES)}")
        if not (0 < self.decay <= 1 and self.power > 0 and self.warm_up >= 0):
            raise InputError(
                f"decay is {self.decay}, power {self.power}, warm_up {self.warm_up}; expected a decay greater than 0, "
                "at most 1, a power greater than 0, and a warm_up of at least 0 epochs"
            )

    @property
    def depends_on_length(self) -> bool:
        """Whether the factors change if the training is prolonged."""
        return self.name not in ("exponential", "constant")

    def factor(self, at: float) -> float:
        """Return the factor after `at` epochs, 0 to `epochs`."""
        left = 1 - at / self.epochs
        found = {
            "exponential": self.decay ** math.floor(at),
            "constant": 1.0,
            "cosine": (1 + math.cos(math.pi * (1 - left))) / 2,
            "polynomial": max(left, 0.0) ** self.power,
            "linear": left,
        }[self.name]
        if at >= self.warm_up:
            return found
        return found * (WARM_UP_BEGIN + (1 - WARM_UP_BEGIN) * at / self.warm_up)
