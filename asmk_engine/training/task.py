"""The protocols between the training loop and what it trains: items of an epoch, losses of a step, the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from asmk_engine.evaluation.protocol import Report
from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Display


@dataclass(frozen=True)
class EpochPlan:
    """The plan of an epoch.

    items  [n, k] int64: numbers of the images of each item, in training order
    facts  numbers for the log, by name
    """

    items: np.ndarray
    facts: dict[str, float]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters, their learning rate at the beginning, and whether weight decay applies to them."""

    parameters: list[nn.Parameter]
    rate: float
    decays: bool = True


@dataclass(frozen=True)
class StepBatch:
    """The items of a step that one process trains on.

    epoch        current epoch, from 1
    number       number of the first item of the step in the epoch
    total        number of items of the step in all processes
    items        [k] int64 each
    photographs  pixels of the images of each item, [h, w, 3] uint8 each
    """

    epoch: int
    number: int
    total: int
    items: list[np.ndarray]
    photographs: list[list[np.ndarray]]


@dataclass(frozen=True)
class StepPart:
    """A part of a step that is back-propagated at a time.

    loss    differentiable scalar; the gradients of all parts and processes add up to that of the step
    values  [n] losses of the items of the part, for the log
    """

    loss: torch.Tensor
    values: torch.Tensor


class Trainee(Protocol):
    """The network that is trained, and what the loop has to know of it.

    network     the network
    extractor   name of the extractor of its files
    least_side  shorter side of the smallest image that it accepts, in pixels
    """

    extractor: str

    @property
    def network(self) -> nn.Module:
        """The network."""
        ...

    @property
    def least_side(self) -> int:
        """Shorter side of the smallest image that the network accepts, in pixels."""
        ...

    def described(self) -> dict[str, Any]:
        """Return what of the network determines a run, as JSON values."""
        ...

    def groups(self, rate: float) -> list[ParameterGroup]:
        """Return the parameters that learn, for a learning rate."""
        ...

    def begin_epoch(self, epoch: int) -> None:
        """Prepare the network for training in an epoch, counted from 1."""
        ...

    def vector(self, pixels: np.ndarray, precision: str) -> torch.Tensor:
        """Return the differentiable vector [D] of one image, [h, w, 3] uint8."""
        ...

    def finish(self, images: Sequence[ImageFile], max_side: int, reporter: Display) -> None:
        """Learn from images whatever is learned after training."""
        ...

    def write(self, path: Path, origin: dict[str, Any]) -> None:
        """Write the network to a file, with the origin of its weights."""
        ...


class TrainingTask(Protocol):
    """A training task, as the loop uses it. Random choices must depend only on seed, epoch and item number.

    trained   all trained modules: the network, heads used only in training, and what else a resumed run needs
    noun      name of the items, in the plural
    images    the images, from which a reduction is learned after training
    max_side  larger images are shrunk until their longer side is this many pixels
    """

    trained: nn.Module
    noun: str
    images: Sequence[ImageFile]
    max_side: int

    @property
    def least_side(self) -> int:
        """Shorter side of the smallest image that can be used, in pixels, after it was shrunk."""
        ...

    @property
    def trainee(self) -> Trainee:
        """The network and its file."""
        ...

    def groups(self) -> list[ParameterGroup]:
        """Return all parameters that learn at some time, with their learning rates at the beginning."""
        ...

    def plan(self, epoch: int, reporter: Display) -> EpochPlan:
        """Return the items of an epoch, counted from 1; they may depend on the current network."""
        ...

    def load(self, epoch: int, number: int, item: np.ndarray) -> list[np.ndarray]:
        """Return the pixels of the images of an item, [h, w, 3] uint8 each; called by other threads."""
        ...

    def parts(self, batch: StepBatch) -> Iterator[StepPart]:
        """Yield the parts of a step; each is back-propagated before the next one is computed."""
        ...

    def end_step(self) -> None:
        """Do what follows a step of the optimiser."""
        ...

    def described(self) -> dict[str, Any]:
        """Return options and data as JSON values; a run is resumed only if they are the same."""
        ...


class EpochValidation(Protocol):
    """Measures the network of an epoch on a ground truth."""

    def described(self) -> dict[str, Any]:
        """Return what determines the scores, as JSON values."""
        ...

    def report(self, weights: Path, name: str, reporter: Display) -> Report:
        """Evaluate the network of a file, as extractor `name`."""
        ...

    def global_score(self, weights: Path, reporter: Display) -> float | None:
        """Return the mAP of global descriptors, to be told beside; None if it is not measured."""
        ...


def item_parts(
    loss: Callable[[np.ndarray, list[np.ndarray]], torch.Tensor], batch: StepBatch, divisor: int
) -> Iterator[StepPart]:
    """Yield the loss of each item, divided by `divisor` for the gradient, so that one item is in memory at a time."""
    for item, photographs in zip(batch.items, batch.photographs, strict=True):
        found = loss(item, photographs)
        yield StepPart(found / divisor, found.detach()[None])
