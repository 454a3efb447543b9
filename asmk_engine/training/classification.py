"""Training of DELF in one stage: cross-entropy over the instances, on descriptors pooled by the attention.

Source: Noh et al., ICCV 2017, and the ablation of HOW (Tolias et al., ECCV 2020, §5.3), which trains backbone and
attention together, with batches of 64 images over 10 epochs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from asmk_engine.errors import InputError
from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Display
from asmk_engine.networks.backbones import load_backbone
from asmk_engine.networks.checkpoints import is_checkpoint, open_checkpoint
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.storage.user_files import file_sha256
from asmk_engine.training.augmented_pairs import random_view
from asmk_engine.training.instances import NONE, Instances
from asmk_engine.training.local_trainee import LocalTrainee
from asmk_engine.training.photographs import load_pixels, to_network
from asmk_engine.training.task import EpochPlan, ParameterGroup, StepBatch, StepPart, item_parts
from asmk_engine.training.vectors import pooled_vector

BATCH_SIZE = 64


@dataclass(frozen=True)
class ClassOptions:
    """The options of the classification training; raises InputError for values out of range.

    max_side         larger images are shrunk until their longer side is this many pixels
    learning_rate    learning rate of the backbone in the first epoch
    head_rate        learning rate of the attention and the classifier, which start from random weights
    freeze_backbone  whether only the attention and the classifier are trained
    augment          whether to train on a random view of each image, another one in each epoch
    precision        precision of the convolutions
    seed             seed of all random choices
    """

    max_side: int = 1024
    learning_rate: float = 1e-5
    head_rate: float = 1e-3
    freeze_backbone: bool = False
    augment: bool = False
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_side < 1 or self.seed < 0 or min(self.learning_rate, self.head_rate) <= 0:
            raise InputError("max_side must be at least 1, seed at least 0, learning_rate and head_rate greater than 0")


def delf_network(
    weights: Path,
    backbone: str | None,
    skip: int,
    dim: int,
    seed: int,
    smoothing: int = 1,
    reduction: str = "post",
) -> tuple[LocalNetwork, dict[str, Any]]:
    """Return an asmk-engine network from its file, or DELF on a backbone with ImageNet weights, and its origin.

    Attention and reduction of the latter are drawn at random from the seed. Raises InputError if `backbone` is missing
    or has fewer channels than `dim`, and what `open_checkpoint` and `load_backbone` raise.
    """
    if is_checkpoint(weights):
        return open_checkpoint(weights)
    if backbone is None:
        raise InputError(
            f"{weights}: not a network of asmk-engine; if it contains backbone weights, give their name with --backbone"
        )
    return random_network(LocalOptions(backbone, skip, "learned", smoothing, reduction, dim), weights, seed)


def random_network(options: LocalOptions, weights: Path, seed: int) -> tuple[LocalNetwork, dict[str, Any]]:
    """Return a network with ImageNet weights, and attention and reduction drawn at random from the seed; its origin.

    Raises InputError if the backbone has fewer channels than the reduction, and what `load_backbone` raises.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LocalNetwork(options)
    if options.dim > network.backbone.channels:
        raise InputError(
            f"a map of {network.backbone.channels} channels cannot be reduced to {options.dim}; give a lower --dim"
        )
    network.backbone = load_backbone(weights, options.backbone, options.skip)
    return network, {**asdict(network.options), "backbone_sha256": file_sha256(weights)}


class ClassTask:
    """Classification of images by instance; see `task.TrainingTask`. Images without an instance are left out."""

    noun = "images"

    def __init__(self, trainee: LocalTrainee, data: Instances, options: ClassOptions) -> None:
        if data.count < 2:
            raise InputError(f"{data.count} instances; a classifier needs at least two: give more labelled images")
        self.trainee = trainee
        network = trainee.network
        network.backbone.requires_grad_(not options.freeze_backbone)
        self._classifier = make_classifier(network, data.count, options.seed)
        self.trained: nn.Module = nn.ModuleDict({"network": network, "classifier": self._classifier})
        self._labels = np.unique(data.instances, return_inverse=True)[1] - int((data.instances == NONE).any())
        self._data, self._options = data, options
        self.images: Sequence[ImageFile] = data.images
        self.max_side = options.max_side

    @property
    def least_side(self) -> int:
        """Shorter side of the smallest image that can be used: what the network needs."""
        return self.trainee.least_side

    def groups(self) -> list[ParameterGroup]:
        """Return the parameters of backbone and head, each with its learning rate."""
        network = self.trainee.network
        attention = list(network.attention.parameters()) if network.attention is not None else []
        backbone = [one for one in network.backbone.parameters() if one.requires_grad]
        groups = [(backbone, self._options.learning_rate), (attention, self._options.head_rate)]
        groups.append((list(self._classifier.parameters()), self._options.head_rate))
        return [ParameterGroup(parameters, rate) for parameters, rate in groups if parameters]

    def described(self) -> dict[str, Any]:
        """Return the options and the fingerprint of the data."""
        return {"training": "delf", **asdict(self._options), "data": self._data.fingerprint}

    def plan(self, epoch: int, reporter: Display) -> EpochPlan:
        """Return every image of an instance once, in random order; [n, 1]."""
        rng = np.random.default_rng([self._options.seed, epoch])
        numbers = np.flatnonzero(self._data.instances != NONE).astype(np.int64)
        return EpochPlan(rng.permutation(numbers)[:, None], {})

    def load(self, epoch: int, number: int, item: np.ndarray) -> list[np.ndarray]:
        """Return the pixels of the image, or of a random view of it."""
        pixels = load_pixels(self.images[int(item[0])], self.max_side)
        if self._options.augment:
            pixels = random_view(pixels, np.random.default_rng([self._options.seed, epoch, number]))
        return [pixels]

    def loss(self, item: np.ndarray, photographs: list[np.ndarray]) -> torch.Tensor:
        """Return the cross-entropy of one image."""
        network = self.trainee.network
        pooled = pooled_vector(network, to_network(photographs[0], network), self._options.precision)
        label = torch.tensor([int(self._labels[item[0]])], device=pooled.device)
        return functional.cross_entropy(self._classifier(pooled), label)

    def parts(self, batch: StepBatch) -> Iterator[StepPart]:
        """Yield the loss of each image; the gradient of a step is that of their mean."""
        return item_parts(self.loss, batch, batch.total)

    def end_step(self) -> None:
        """Do nothing."""


def make_classifier(network: LocalNetwork, classes: int, seed: int) -> nn.Linear:
    """Return a linear classifier of pooled vectors with random weights from the seed, on the network's device."""
    dim = network.backbone.channels if network.options.is_reduced_afterwards else network.dim
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = nn.Linear(dim, classes)
    return classifier.to(next(network.parameters()).device)
