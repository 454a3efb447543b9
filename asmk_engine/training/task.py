"""The protocols between the training loop and a training task: the items of an epoch and the loss of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Display
from asmk_engine.networks.local import LocalNetwork


@dataclass(frozen=True)
class EpochPlan:
    """The plan of an epoch.

    items  [n, k] int64: numbers of the images of each item, in training order
    facts  numbers for the log, by name
    """

    items: np.ndarray
    facts: dict[str, float]


class TrainingTask(Protocol):
    """A training task, as the loop uses it. Random choices must depend only on seed, epoch and item number.

    network   the network that is trained and written
    trained   all trained modules: the network and heads used only in training
    noun      name of the items, in the plural
    averages  whether the gradient of a step is the mean over its items, or the sum
    images    the images, from which a reduction is learned after training
    max_side  larger images are shrunk until their longer side is this many pixels
    """

    network: LocalNetwork
    trained: nn.Module
    noun: str
    averages: bool
    images: Sequence[ImageFile]
    max_side: int

    def rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return the trainable parameters with their learning rates in the first epoch."""
        ...

    def plan(self, epoch: int, reporter: Display) -> EpochPlan:
        """Return the items of an epoch, counted from 1; they may depend on the current network."""
        ...

    def load(self, epoch: int, number: int, item: np.ndarray) -> list[np.ndarray]:
        """Return the pixels of the images of an item, [h, w, 3] uint8 each; called by other threads."""
        ...

    def loss(self, item: np.ndarray, photographs: list[np.ndarray]) -> torch.Tensor:
        """Return the loss of an item, a differentiable scalar."""
        ...

    def described(self) -> dict[str, Any]:
        """Return options and data as JSON values; a run is resumed only if they are the same."""
        ...
