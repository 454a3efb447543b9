"""Training on tuples of an anchor, a positive and hard negatives, as that of HOW, with the contrastive loss or others.

Source: Tolias, Jenicek and Chum, ECCV 2020, §4.2 and §5.2, and their code for what the paper leaves open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from asmk_engine.errors import InputError
from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Display, Progress
from asmk_engine.training.augmented_pairs import random_view
from asmk_engine.training.instances import Instances
from asmk_engine.training.losses.contrastive import contrastive
from asmk_engine.training.losses.second_order import second_order
from asmk_engine.training.losses.triplet import triplet
from asmk_engine.training.mining import mine
from asmk_engine.training.photographs import Load, describe, load_pixels
from asmk_engine.training.processes import Processes
from asmk_engine.training.task import EpochPlan, ParameterGroup, StepBatch, StepPart, Trainee, item_parts
from asmk_engine.training.tuples import check_tuples, draw_pairs, draw_pool

TUPLE_LOSSES = ("contrastive", "triplet", "triplet-squared")
SLOW_BACKBONES = ("resnet50", "resnet101", "resnet50v2")


def default_rate(backbone: str) -> float:
    """Return the learning rate of HOW's code: 5e-6 for ResNet-18, 1e-6 for ResNet-50 (1e-5 in the paper)."""
    return 1e-6 if backbone in SLOW_BACKBONES else 5e-6


@dataclass(frozen=True)
class TupleOptions:
    """The options of the tuple training, by default HOW's; raises InputError for values out of range.

    pairs            number of anchor-positive pairs drawn in each epoch
    pool             number of images drawn in each epoch among which negatives are mined
    negatives        number of negatives per tuple
    margin           margin µ of the loss
    max_side         larger images are shrunk until their longer side is this many pixels
    augmented_pairs  fraction of the pairs, 0 to 1, that are two random views of one image
    skip             number of nearest instances not used as negatives, since in unlabelled data they may match
    learning_rate    learning rate of Adam in the first epoch
    precision        precision of the convolutions
    seed             seed of all random choices
    learn_reduction  train the reduction, too, which HOW learns by PCA and keeps
    loss             name in `TUPLE_LOSSES`
    second_order     weight of the second-order similarity loss that is added
    """

    pairs: int = 2000
    pool: int = 20000
    negatives: int = 5
    margin: float = 0.8
    max_side: int = 1024
    augmented_pairs: float = 0.0
    skip: int = 0
    learning_rate: float = 5e-6
    precision: str = "fp32"
    seed: int = 0
    learn_reduction: bool = False
    loss: str = "contrastive"
    second_order: float = 0.0

    def __post_init__(self) -> None:
        if min(self.pairs, self.negatives, self.max_side) < 1 or min(self.skip, self.seed) < 0:
            raise InputError("pairs, negatives and max_side must be at least 1, skip and seed at least 0")
        if self.loss not in TUPLE_LOSSES or self.second_order < 0:
            raise InputError(
                f"loss is {self.loss!r}, second_order {self.second_order}; choose one of {', '.join(TUPLE_LOSSES)}, "
                "and a weight of at least 0"
            )
        if not 0 <= self.augmented_pairs <= 1:
            raise InputError(f"augmented_pairs is {self.augmented_pairs}; expected a fraction of the pairs, 0 to 1")
        if not (0 < self.margin < 2 and self.learning_rate > 0):
            raise InputError(
                f"margin is {self.margin}, learning_rate {self.learning_rate}; expected a margin between 0 and 2, and "
                "a learning_rate greater than 0"
            )


class TupleTask:
    """Training on tuples; see `task.TrainingTask`.

    An item is anchor, positive and negatives; if anchor and positive are the same image, they are two views of it.
    """

    noun = "tuples"

    def __init__(
        self, trainee: Trainee, data: Instances, options: TupleOptions, processes: Processes | None = None
    ) -> None:
        check_tuples(data, options.negatives, options.augmented_pairs, options.pool, options.skip)
        self.trainee = trainee
        self.trained: nn.Module = trainee.network
        self._data, self._options = data, options
        self._processes = processes or Processes()
        self.images: Sequence[ImageFile] = data.images
        self.max_side = options.max_side

    @property
    def least_side(self) -> int:
        """Shorter side of the smallest image that can be used: what the network needs."""
        return self.trainee.least_side

    def groups(self) -> list[ParameterGroup]:
        """Return the parameters of the network with their learning rates."""
        return self.trainee.groups(self._options.learning_rate)

    def described(self) -> dict[str, Any]:
        """Return the options and the fingerprint of the data."""
        options = asdict(self._options)
        for name in ("learn_reduction", "loss", "second_order"):
            if options[name] == getattr(TupleOptions, name):
                del options[name]  # as runs from before there was a choice describe themselves
        return {"training": "how", **self.trainee.described(), **options, "data": self._data.fingerprint}

    def plan(self, epoch: int, reporter: Display) -> EpochPlan:
        """Draw pairs and pool, describe them with the current network, and mine negatives; see `mining`."""
        options, groups = self._options, self._data.groups
        rng = np.random.default_rng([options.seed, epoch])
        pairs = draw_pairs(self._data, options.pairs, options.augmented_pairs, rng)
        pool = draw_pool(self._data, options.pool, rng)
        anchors, pooled = self._vectors(epoch, pairs, pool, reporter)
        chosen = mine(anchors, groups[pairs[:, 0]], pooled, groups[pool], options.negatives, options.skip)
        distances = np.linalg.norm(anchors[:, None] - pooled[chosen], axis=2)
        return EpochPlan(np.concatenate([pairs, pool[chosen]], 1), {"negative_distance": float(distances.mean())})

    def _vectors(
        self, epoch: int, pairs: np.ndarray, pool: np.ndarray, reporter: Display
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors of anchors and pool; an image in both passes through the network once."""
        viewed = np.flatnonzero(pairs[:, 0] == pairs[:, 1])
        whole = np.unique(np.concatenate([pool, np.delete(pairs[:, 0], viewed)]))
        loads: list[Load] = [partial(self._photograph, int(number)) for number in whole]
        loads += [partial(self._view, epoch, int(place), int(pairs[place, 0]), 0) for place in viewed]
        with reporter.bar(f"epoch {epoch}: mine negatives", "images") as progress:
            vectors = self._described(loads, progress)
        rows = np.searchsorted(whole, pairs[:, 0])
        rows[viewed] = len(whole) + np.arange(len(viewed))
        return vectors[rows], vectors[np.searchsorted(whole, pool)]

    def _described(self, loads: Sequence[Load], progress: Progress) -> np.ndarray:
        """Return the vectors of all images; each process describes an equal share, the last ones some a second time."""
        mine = [loads[place] for place in self._processes.split(len(loads))]
        precision = self._options.precision
        vectors = describe(lambda pixels: self.trainee.vector(pixels, precision), mine, len(mine), progress)
        return self._processes.joined(vectors, len(loads), next(self.trained.parameters()).device)

    def _photograph(self, number: int) -> np.ndarray:
        return load_pixels(self.images[number], self.max_side)

    def _view(self, epoch: int, item: int, number: int, which: int) -> np.ndarray:
        rng = np.random.default_rng([self._options.seed, epoch, item, which])
        return random_view(self._photograph(number), rng)

    def load(self, epoch: int, number: int, item: np.ndarray) -> list[np.ndarray]:
        """Return the pixels of anchor, positive and negatives; two views if anchor and positive are the same image."""
        first, second, *others = (int(photograph) for photograph in item)
        if first == second:
            pair = [self._view(epoch, number, first, 0), self._view(epoch, number, first, 1)]
        else:
            pair = [self._photograph(first), self._photograph(second)]
        return pair + [self._photograph(other) for other in others]

    def loss(self, item: np.ndarray, photographs: list[np.ndarray]) -> torch.Tensor:
        """Return the loss of a tuple; images pass through the network one by one, because their sizes differ."""
        anchor, *rest = (self.trainee.vector(one, self._options.precision) for one in photographs)
        others = torch.stack(rest)
        found = self._loss(anchor, others)
        if self._options.second_order:
            found = found + self._options.second_order * second_order(anchor, others[0], others[1:])
        return found

    def _loss(self, anchor: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        margin = self._options.margin
        if self._options.loss == "contrastive":
            return contrastive(anchor, others, torch.arange(len(others), device=others.device) == 0, margin)
        squared = self._options.loss == "triplet-squared"
        return triplet(anchor, others[0], others[1:], margin, squared=squared)

    def parts(self, batch: StepBatch) -> Iterator[StepPart]:
        """Yield the loss of each tuple; their gradients are summed, as in the code of HOW."""
        return item_parts(self.loss, batch, 1)

    def end_step(self) -> None:
        """Do nothing."""
