"""What a training loop needs to know of a training: what an epoch consists of, and the loss of each part of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Progress
from asmk_engine.networks.local import LocalNetwork


class Reporter(Protocol):
    """Who is told how a training goes."""

    def say(self, message: str) -> None:
        """One line."""
        ...

    def bar(self, what: str, unit: str) -> AbstractContextManager[Progress]:
        """A callback (done, total) for something that takes long."""
        ...


class Silent:
    """A reporter that keeps everything to itself."""

    def say(self, message: str) -> None:
        """Nothing."""

    @contextlib.contextmanager
    def bar(self, what: str, unit: str) -> Iterator[Progress]:
        """A callback that does nothing."""
        yield lambda done, total: None


@dataclass(frozen=True)
class EpochPlan:
    """An epoch before it begins.

    items  [n, k] int64: numbers of the photographs of each item, in the order in which the items are trained on
    facts  what is worth noting of it, by name
    """

    items: np.ndarray
    facts: dict[str, float]


class TrainingTask(Protocol):
    """A training, as the loop sees it. Everything random in it follows from seed, epoch and number of the item.

    network     the network that is trained and written
    trained     all that learns: the network, and what stands on it in training only
    noun        what an item is called
    averages    whether the gradient of a step is the mean over its items, or the sum
    images      the photographs, of which the reduction is learned where it comes after training
    max_side    of a photograph as it is looked at
    """

    network: LocalNetwork
    trained: nn.Module
    noun: str
    averages: bool
    images: Sequence[ImageFile]
    max_side: int

    def rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """What learns, and how fast in the first epoch."""
        ...

    def plan(self, epoch: int, reporter: Reporter) -> EpochPlan:
        """The items of an epoch, counted from 1; may depend on the network as it is."""
        ...

    def load(self, epoch: int, number: int, item: np.ndarray) -> list[np.ndarray]:
        """The pixels of the photographs of an item, [h, w, 3] uint8 each; called by other threads."""
        ...

    def loss(self, item: np.ndarray, photographs: list[np.ndarray]) -> torch.Tensor:
        """The loss of an item, a scalar that can be differentiated."""
        ...

    def described(self) -> dict[str, Any]:
        """Options and data, JSON values; a run is only continued where they are the same."""
        ...
