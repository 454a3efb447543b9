"""The training of HOW: tuples of an anchor, a positive and hard negatives, under the contrastive loss.

Source: Tolias, Jenicek and Chum, ECCV 2020, §4.2 and §5.2, and their code where the paper is silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from asmk_engine.errors import InputError
from asmk_engine.images.listing import ImageFile
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.training.augmented_pairs import random_view
from asmk_engine.training.instances import Instances
from asmk_engine.training.losses import contrastive, global_vector
from asmk_engine.training.mining import mine
from asmk_engine.training.photographs import describe, load_pixels, to_network
from asmk_engine.training.task import EpochPlan, Reporter
from asmk_engine.training.tuples import check_tuples, draw_pairs, draw_pool

SLOW_BACKBONES = ("resnet50", "resnet101", "resnet50v2")


def default_rate(backbone: str) -> float:
    """The learning rate of HOW's code: 5e-6 for ResNet-18, 1e-6 for ResNet-50 (where the paper says 1e-5)."""
    return 1e-6 if backbone in SLOW_BACKBONES else 5e-6


@dataclass(frozen=True)
class TupleOptions:
    """What tuples are made of; the defaults are HOW's. Raises InputError where options contradict each other.

    pairs          anchors and positives drawn in each epoch
    pool           photographs among which negatives are looked for, drawn in each epoch
    negatives      in a tuple
    margin         µ of the loss
    max_side       larger photographs are shrunk until their longer side is this many pixels
    augmented_pairs      the part of the pairs, 0 to 1, that are two random views of one photograph
    skip           nearest instances that are no negatives of an anchor: where nothing is labelled they may show it
    learning_rate  of Adam in the first epoch
    precision      of the convolutions
    seed           of everything random
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

    def __post_init__(self) -> None:
        if min(self.pairs, self.negatives, self.max_side) < 1 or min(self.skip, self.seed) < 0:
            raise InputError("pairs, negatives and max_side must be 1 or more, skip and seed 0 or more")
        if not 0 <= self.augmented_pairs <= 1:
            raise InputError(f"augmented_pairs is {self.augmented_pairs}; give the part of the pairs, 0 to 1")
        if not (0 < self.margin < 2 and self.learning_rate > 0):
            raise InputError(f"margin is {self.margin}, learning_rate {self.learning_rate}; give 0 to 2, and above 0")


class TupleTask:
    """Tuples of photographs; see `task.Task`. The reduction does not learn, batch normalisation keeps its statistics.

    An item is anchor, positive and negatives; where anchor and positive are one photograph, they are views of it.
    """

    noun = "tuples"
    averages = False

    def __init__(self, network: LocalNetwork, data: Instances, options: TupleOptions) -> None:
        check_tuples(data, options.negatives, options.augmented_pairs, options.pool, options.skip)
        self.network = freeze(network)
        self.trained: nn.Module = self.network
        self._data, self._options = data, options
        self.images: Sequence[ImageFile] = data.images
        self.max_side = options.max_side

    def rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """All parameters that learn, at one rate."""
        return [([one for one in self.network.parameters() if one.requires_grad], self._options.learning_rate)]

    def described(self) -> dict[str, Any]:
        """The options and the fingerprint of the data."""
        return {"training": "how", **asdict(self._options), "data": self._data.fingerprint}

    def plan(self, epoch: int, reporter: Reporter) -> EpochPlan:
        """Pairs and pool are drawn, described by the network as it is, and negatives mined; see `mining`."""
        options, groups = self._options, self._data.groups
        rng = np.random.default_rng([options.seed, epoch])
        pairs = draw_pairs(self._data, options.pairs, options.augmented_pairs, rng)
        pool = draw_pool(self._data, options.pool, rng)
        anchors, pooled = self._vectors(epoch, pairs, pool, reporter)
        chosen = mine(anchors, groups[pairs[:, 0]], pooled, groups[pool], options.negatives, options.skip)
        distances = np.linalg.norm(anchors[:, None] - pooled[chosen], axis=2)
        return EpochPlan(np.concatenate([pairs, pool[chosen]], 1), {"negative_distance": float(distances.mean())})

    def _vectors(
        self, epoch: int, pairs: np.ndarray, pool: np.ndarray, reporter: Reporter
    ) -> tuple[np.ndarray, np.ndarray]:
        """The vectors of the anchors and of the pool; a photograph that is in both passes through the network once."""
        viewed = np.flatnonzero(pairs[:, 0] == pairs[:, 1])
        whole = np.unique(np.concatenate([pool, np.delete(pairs[:, 0], viewed)]))
        loads = [partial(self._photograph, int(number)) for number in whole]
        loads += [partial(self._view, epoch, int(place), int(pairs[place, 0]), 0) for place in viewed]
        with reporter.bar(f"epoch {epoch}: look for negatives", "images") as progress:
            vectors = describe(self.network, loads, len(loads), self._options.precision, progress)
        rows = np.searchsorted(whole, pairs[:, 0])
        rows[viewed] = len(whole) + np.arange(len(viewed))
        return vectors[rows], vectors[np.searchsorted(whole, pool)]

    def _photograph(self, number: int) -> np.ndarray:
        return load_pixels(self.images[number], self.max_side)

    def _view(self, epoch: int, item: int, number: int, which: int) -> np.ndarray:
        rng = np.random.default_rng([self._options.seed, epoch, item, which])
        return random_view(self._photograph(number), rng)

    def load(self, epoch: int, number: int, item: np.ndarray) -> list[np.ndarray]:
        """Anchor, positive and negatives; two views where anchor and positive are the same."""
        first, second, *others = (int(photograph) for photograph in item)
        if first == second:
            pair = [self._view(epoch, number, first, 0), self._view(epoch, number, first, 1)]
        else:
            pair = [self._photograph(first), self._photograph(second)]
        return pair + [self._photograph(other) for other in others]

    def loss(self, item: np.ndarray, photographs: list[np.ndarray]) -> torch.Tensor:
        """The contrastive loss; the photographs pass through the network one by one, as they differ in size."""
        precision = self._options.precision
        vectors = [global_vector(self.network, to_network(one, self.network), precision) for one in photographs]
        others = torch.cat(vectors[1:])
        matches = torch.arange(len(others), device=others.device) == 0
        return contrastive(vectors[0][0], others, matches, self._options.margin)


def freeze(network: LocalNetwork) -> LocalNetwork:
    """The network as HOW trains it: statistics of batch normalisation as they are, a reduction that does not learn."""
    network.eval().requires_grad_(True)
    if network.reduction is not None:
        network.reduction.requires_grad_(False)
    return network
