"""A local network in training: HOW or DELF, of which the statistics of batch normalisation are frozen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Display
from asmk_engine.networks.checkpoints import save_checkpoint
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.training.finishing import finish_reduction
from asmk_engine.training.photographs import to_network
from asmk_engine.training.task import ParameterGroup
from asmk_engine.training.vectors import global_vector

EXTRACTOR_OF = {"norm": "how", "learned": "delf"}


class LocalTrainee:
    """A local network in training; see `task.Trainee`.

    learn_reduction  train the reduction, too, which HOW learns by PCA and keeps
    """

    def __init__(self, network: LocalNetwork, *, learn_reduction: bool = False) -> None:
        self.network = freeze(network)
        self.extractor = EXTRACTOR_OF[network.options.attention]
        if learn_reduction and network.reduction is not None and not network.options.is_reduced_afterwards:
            network.reduction.requires_grad_(True)

    @property
    def least_side(self) -> int:
        """Shorter side of the smallest image that the network accepts, in pixels."""
        return self.network.backbone.least_side

    def described(self) -> dict[str, Any]:
        """Return nothing: the tasks describe all that there is to choose."""
        return {}

    def groups(self, rate: float) -> list[ParameterGroup]:
        """Return all trainable parameters with one learning rate."""
        return [ParameterGroup([one for one in self.network.parameters() if one.requires_grad], rate)]

    def begin_epoch(self, epoch: int) -> None:
        """Do nothing: all epochs are alike."""

    def vector(self, pixels: np.ndarray, precision: str) -> torch.Tensor:
        """Return the global descriptor [D] of one image, [h, w, 3] uint8, at one scale."""
        return global_vector(self.network, to_network(pixels, self.network), precision)[0]

    def finish(self, images: Sequence[ImageFile], max_side: int, reporter: Display) -> None:
        """Learn the reduction from images, if it is one that is learned after training."""
        if self.network.options.is_reduced_afterwards:
            with reporter.bar("learn the reduction", "images") as progress:
                finish_reduction(self.network, images, max_side, progress)

    def write(self, path: Path, origin: dict[str, Any]) -> None:
        """Write the network to a file, with the origin of its weights."""
        save_checkpoint(path, self.network, origin)


def freeze(network: LocalNetwork) -> LocalNetwork:
    """Freeze what HOW does not train, the statistics of batch normalisation and the reduction; return the network."""
    network.eval().requires_grad_(True)
    if network.reduction is not None:
        network.reduction.requires_grad_(False)
    return network
