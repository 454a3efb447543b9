"""Training of CVNet-Rerank on a query, a positive and a negative, which become harder from epoch to epoch.

Source: Lee et al., CVPR 2022, sections 4.3, 4.4 and 5.1. Its training code was not published.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from asmk_engine.errors import InputError
from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Display
from asmk_engine.networks.devices import automatic_precision
from asmk_engine.training.crops import CropOptions, random_crop
from asmk_engine.training.instances import Instances
from asmk_engine.training.kept_descriptors import ImageDescriber, KeptDescriptors
from asmk_engine.training.losses.symmetric_pairs import symmetric_pairs
from asmk_engine.training.photographs import load_pixels
from asmk_engine.training.processes import Processes
from asmk_engine.training.rerank_trainee import RerankTrainee
from asmk_engine.training.task import EpochPlan, ParameterGroup, StepBatch, StepPart
from asmk_engine.training.tuples import check_tuples, draw_pairs

ROWS = 256  # queries whose similarities are in memory at a time


@dataclass(frozen=True)
class RerankTaskOptions:
    """The options of the training, by default those of the paper; raises InputError for values out of range.

    epochs         epochs over which the negatives become harder and more is hidden
    pairs          number of pairs of query and positive in an epoch; 0 for as many as there are images
    hard           fraction of hard negatives in the first epoch and in the last, between which it rises linearly
    hidden         probability that a place of a local map is hidden, likewise
    hardest        number of most similar images of other groups among which a hard negative is drawn
    crop           how crops are drawn
    max_side       larger images are shrunk until their longer side is this many pixels
    learning_rate  learning rate in the first epoch
    precision      precision of the convolutions
    seed           seed of all random choices
    """

    epochs: int = 200
    pairs: int = 0
    hard: tuple[float, float] = (0.2, 1.0)
    hidden: tuple[float, float] = (0.0, 0.2)
    hardest: int = 10
    crop: CropOptions = field(default_factory=CropOptions)
    max_side: int = 1024
    learning_rate: float = 0.00375
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.hardest, self.max_side) < 1 or min(self.pairs, self.seed) < 0:
            raise InputError("epochs, hardest and max_side must be at least 1, pairs and seed at least 0")
        if not (all(0 <= one <= 1 for one in self.hard) and all(0 <= one < 1 for one in self.hidden)):
            raise InputError(
                f"hard is {self.hard}, hidden {self.hidden}; expected fractions from 0 to 1, hidden ones below 1"
            )
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate is {self.learning_rate}; expected a number greater than 0")

    def at(self, ends: tuple[float, float], epoch: int) -> float:
        """Return what rises linearly from the first epoch to the last, in an epoch counted from 1."""
        share = (epoch - 1) / (self.epochs - 1) if self.epochs > 1 else 1.0
        return ends[0] + (ends[1] - ends[0]) * min(1.0, share)


class RerankTask:
    """Training of a re-ranking network; see `task.TrainingTask`. An item is query, positive and negative.

    processes  of the training
    kept       where descriptors of all images are kept until the training is over; None keeps none
    """

    noun = "triplets"

    def __init__(
        self,
        trainee: RerankTrainee,
        data: Instances,
        options: RerankTaskOptions,
        processes: Processes | None = None,
        kept: KeptDescriptors | None = None,
    ) -> None:
        check_tuples(data, 1, 0.0, len(data))
        if options.crop.side < trainee.least_side:
            raise InputError(f"crops of {options.crop.side} pixels; the network needs {trainee.least_side}")
        self.trainee, self._data, self._options = trainee, data, options
        self._processes, self._kept = processes or Processes(), kept
        self.trained: nn.Module = trainee.learning
        self.images: Sequence[ImageFile] = data.images
        self.max_side = options.max_side
        self._vectors: np.ndarray | None = None

    @property
    def least_side(self) -> int:
        """Shorter side of the smallest image that can be used: what the network needs to describe it."""
        return self.trainee.least_side

    def groups(self) -> list[ParameterGroup]:
        """Return the parameters that learn, with their learning rate."""
        return self.trainee.groups(self._options.learning_rate)

    def described(self) -> dict[str, Any]:
        """Return the options and the fingerprint of the data."""
        options = {key: list(one) if isinstance(one, tuple) else one for key, one in asdict(self._options).items()}
        return {**self.trainee.described(), **options, "data": self._data.fingerprint}

    def plan(self, epoch: int, reporter: Display) -> EpochPlan:
        """Draw queries and positives, and a negative for each, hard ones with the probability of this epoch."""
        options, rng = self._options, np.random.default_rng([self._options.seed, epoch])
        pairs = draw_pairs(self._data, options.pairs or len(self._data), 0.0, rng)
        is_hard = rng.random(len(pairs)) < options.at(options.hard, epoch)
        negatives = np.array([self._other(int(query), rng) for query in pairs[:, 0]], np.int64)
        places = np.flatnonzero(is_hard)
        if len(places):
            nearest = self._nearest(pairs[places, 0], reporter)
            negatives[places] = [rng.choice(some) for some in nearest]
        facts = {"hard_negatives": float(is_hard.mean()), "hidden": options.at(options.hidden, epoch)}
        return EpochPlan(np.column_stack([pairs, negatives]), facts)

    def _other(self, query: int, rng: np.random.Generator) -> int:
        """Draw an image of another group."""
        groups = self._data.groups
        while True:  # there are several groups, as was checked
            number = int(rng.integers(len(groups)))
            if groups[number] != groups[query]:
                return number

    def _nearest(self, queries: np.ndarray, reporter: Display) -> list[np.ndarray]:
        """Return for each query the images of other groups that are most similar to it by global descriptors."""
        if self._vectors is None:
            self._vectors = self._described(reporter)
        found, groups, vectors = [], self._data.groups, self._vectors
        for begin in range(0, len(queries), ROWS):
            rows = queries[begin : begin + ROWS]
            similar = vectors[rows] @ vectors.T
            similar[groups[rows][:, None] == groups[None]] = -np.inf
            order = np.argsort(-similar, axis=1, kind="stable")[:, : self._options.hardest]
            found += [some[np.isfinite(row[some])] for row, some in zip(similar, order, strict=True)]
        return found

    def _described(self, reporter: Display) -> np.ndarray:
        """Return the global descriptors [n, D] float32 of all images."""
        options, trainee = self._options, self.trainee
        images = ImageDescriber(
            lambda one: trainee.vector(one, options.precision), self.images, options.max_side, trainee.device
        )
        opened = self._kept.pieces(self.described(), self._processes) if self._kept else nullcontext()
        with reporter.bar("describe for hard negatives", "images") as progress, opened as pieces:
            return images.described(self._processes, pieces, progress)

    def load(self, epoch: int, number: int, item: np.ndarray) -> list[np.ndarray]:
        """Return random crops of query, positive and negative."""
        options = self._options
        return [
            random_crop(
                load_pixels(self.images[int(image)], options.max_side),
                np.random.default_rng([options.seed, epoch, number, which]),
                options.crop,
            )
            for which, image in enumerate(item)
        ]

    def parts(self, batch: StepBatch) -> Iterator[StepPart]:
        """Yield the loss of each triplet, divided by their number."""
        for place, crops in enumerate(batch.photographs):
            found = self.loss(batch.epoch, batch.number + place, crops)
            yield StepPart(found / batch.total, found.detach()[None])

    def loss(self, epoch: int, number: int, crops: Sequence[np.ndarray]) -> torch.Tensor:
        """Return the loss of a triplet, with hidden places in its local maps."""
        precision, network = self._options.precision, self.trainee.network
        maps = self._hidden(self.trainee.local_maps(crops, precision), epoch, number)
        with automatic_precision(maps.device, precision):
            return symmetric_pairs(network, network.pyramid(maps))

    def _hidden(self, maps: torch.Tensor, epoch: int, number: int) -> torch.Tensor:
        """Return maps [B, C, h, w] of which some places are zero, each with the probability of this epoch."""
        rng = np.random.default_rng([self._options.seed, epoch, number, len(maps)])
        shown = rng.random((len(maps), 1, *maps.shape[2:])) >= self._options.at(self._options.hidden, epoch)
        return maps * torch.from_numpy(shown).to(maps.device)

    def end_step(self) -> None:
        """Do nothing."""
