"""Training of a re-ranking transformer on features: binary cross-entropy over an anchor with its positive and negative.

    loss = mean over anchors of (log(1 + exp(-logit(a, p))) + log(1 + exp(logit(a, n)))) / 2

By default as its code: AdamW with a constant learning rate of 1e-4 and a weight decay of 5e-4, 12 triplets a step, 15
epochs (Tan et al., ICCV 2021, section 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from asmk_engine.errors import InputError, MismatchError, NotFoundError
from asmk_engine.escape import list_names
from asmk_engine.evaluation.names import match_names
from asmk_engine.features import FeatureSet
from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Display
from asmk_engine.networks.reranking.image_tokens import ImageTokens, ScaleUnit, image_tokens
from asmk_engine.networks.reranking.transformer import RerankingTransformer
from asmk_engine.networks.reranking.transformer_files import save_transformer
from asmk_engine.networks.reranking.transformer_options import TransformerOptions
from asmk_engine.networks.reranking.transformer_pairs import token_batch
from asmk_engine.training.instances import Instances
from asmk_engine.training.loop_options import LoopOptions
from asmk_engine.training.neighbour_triplets import NeighbourOptions, near_triplets
from asmk_engine.training.task import EpochPlan, ParameterGroup, StepBatch, StepPart


@dataclass(frozen=True)
class TransformerTraining:
    """The options of the training; raises InputError for values out of range.

    near           where triplets come from
    unit           how scales of features in pixels become scale numbers
    learning_rate  learning rate at the beginning
    micro_batch    number of triplets that pass through the network at a time
    seed           seed of all random choices
    """

    near: NeighbourOptions = field(default_factory=NeighbourOptions)
    unit: ScaleUnit = field(default_factory=ScaleUnit)
    learning_rate: float = 1e-4
    micro_batch: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.micro_batch < 1 or self.seed < 0:
            raise InputError(
                f"learning_rate is {self.learning_rate}, micro_batch {self.micro_batch}, seed {self.seed}; expected a "
                "learning rate greater than 0, a micro_batch of at least 1, and a seed of at least 0"
            )


def transformer_loop(epochs: int = 15, **others: Any) -> LoopOptions:
    """Return the options of the loop that the code of the paper has; others as `LoopOptions`."""
    usual = {"batch_size": 12, "optimizer": "adamw", "weight_decay": 5e-4, "schedule": "constant"}
    return LoopOptions(epochs=epochs, **{**usual, **others})


def new_transformer(options: TransformerOptions, seed: int) -> RerankingTransformer:
    """Return a network with random weights from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RerankingTransformer(options)


class PairedFeatures:
    """The local features and global descriptors of the images of a training.

    local, whole  feature sets of local features and of global descriptors
    data          the images, by names that the sets have, perhaps with other folders and extensions

    Raises NotFoundError if a set lacks images, MismatchError if a set is of the other sort.
    """

    def __init__(self, local: FeatureSet, whole: FeatureSet, data: Instances) -> None:
        for features, is_global in ((local, False), (whole, True)):
            if features.recipe.is_global != is_global:
                wanted = "global descriptors" if is_global else "local features"
                raise MismatchError(f"{features.path}: features of [{features.recipe}]; expected {wanted}")
        self.local, self.whole = local, whole
        names = [image.name for image in data.images]
        self._local_names, self._whole_names = (_names_in(features, names) for features in (local, whole))

    def vectors(self) -> np.ndarray:
        """Return the global descriptors [n, G] float32, in the order of the images."""
        return np.stack([self.whole.read(name).descriptors[0].astype(np.float32) for name in self._whole_names])

    def tokens(self, number: int, unit: ScaleUnit, most: int) -> ImageTokens:
        """Return what the network is told of an image, see `image_tokens`."""
        whole, local = self.whole.read(self._whole_names[number]), self.local.read(self._local_names[number])
        return image_tokens(whole, local, unit, most)

    def described(self) -> dict[str, Any]:
        """Return the recipes of both sets as JSON values."""
        return {"local": self.local.recipe.to_json(), "global": self.whole.recipe.to_json()}


def _names_in(features: FeatureSet, names: Sequence[str]) -> list[str]:
    found = match_names(names, features.names)
    if missing := [name for name in names if name not in found]:
        raise NotFoundError(
            f"{features.path}: lacks {len(missing)} of {len(names)} training images: {list_names(missing)}; extract "
            "their features first"
        )
    return [found[name] for name in names]


class TransformerTrainee:
    """A re-ranking transformer in training; see `task.Trainee`."""

    extractor = "rrt"
    least_side = 1

    def __init__(self, network: RerankingTransformer) -> None:
        self.network = network

    def described(self) -> dict[str, Any]:
        """Return the sizes of the network."""
        return {"training": self.extractor, **asdict(self.network.options)}

    def groups(self, rate: float) -> list[ParameterGroup]:
        """Return all parameters as one group."""
        return [ParameterGroup(list(self.network.parameters()), rate)]

    def begin_epoch(self, epoch: int) -> None:
        """Put the network into training mode."""
        self.network.train()

    def vector(self, pixels: np.ndarray, precision: str) -> torch.Tensor:
        """Raise InputError: the network compares two images and has no vector of one."""
        raise InputError("a re-ranking transformer compares two images and has no vector of one; train it on triplets")

    def finish(self, images: Sequence[ImageFile], max_side: int, reporter: Display) -> None:
        """Do nothing: nothing is learned after training."""

    def write(self, path: Path, origin: dict[str, Any]) -> None:
        """Write the network to a file, with the origin of its weights."""
        save_transformer(path, self.network, origin)


class TransformerTask:
    """Training of a re-ranking transformer on triplets; see `task.TrainingTask`."""

    noun = "triplets"
    max_side = 0
    least_side = 1

    def __init__(
        self, trainee: TransformerTrainee, features: PairedFeatures, data: Instances, options: TransformerTraining
    ) -> None:
        self.trainee, self._features, self._data, self._options = trainee, features, data, options
        self.trained: nn.Module = trainee.network
        self.images: Sequence[ImageFile] = data.images
        self._near = near_triplets(features.vectors(), data, options.near)

    @property
    def anchors(self) -> int:
        """Number of anchors, which is that of the triplets of an epoch."""
        return len(self._near.anchors)

    def groups(self) -> list[ParameterGroup]:
        """Return the parameters of the network."""
        return self.trainee.groups(self._options.learning_rate)

    def described(self) -> dict[str, Any]:
        """Return options, features and the fingerprint of the data."""
        described = {**self.trainee.described(), **asdict(self._options), **self._features.described()}
        described.pop("micro_batch")  # which changes only what is in memory
        return {**described, "data": self._data.fingerprint}

    def plan(self, epoch: int, reporter: Display) -> EpochPlan:
        """Return every anchor once, in random order, with a positive and a negative; [n, 3]."""
        rng = np.random.default_rng([self._options.seed, epoch])
        return EpochPlan(self._near.drawn(rng), {"anchors": float(self.anchors)})

    def load(self, epoch: int, number: int, item: np.ndarray) -> list[np.ndarray]:
        """Return no pixels: the images are known by their features."""
        return []

    def parts(self, batch: StepBatch) -> Iterator[StepPart]:
        """Yield the losses of a few triplets at a time; the gradient of a step is that of the mean of all."""
        for begin in range(0, len(batch.items), self._options.micro_batch):
            losses = self.losses(np.stack(batch.items[begin : begin + self._options.micro_batch]))
            yield StepPart(losses.sum() / batch.total, losses.detach())

    def losses(self, triplets: np.ndarray) -> torch.Tensor:
        """Return the loss of each triplet, [k] float32, of numbers of images [k, 3]."""
        network = self.trainee.network
        device, sizes = network.classifier.weight.device, network.options
        columns = [
            [self._features.tokens(int(number), self._options.unit, sizes.features) for number in column]
            for column in triplets.T
        ]
        anchors, positives, negatives = (token_batch(column, sizes.dim, device) for column in columns)
        ones, others = network(anchors, positives), network(anchors, negatives)
        return (functional.softplus(-ones) + functional.softplus(others)) / 2

    def end_step(self) -> None:
        """Do nothing."""
