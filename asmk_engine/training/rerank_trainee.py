"""A re-ranking network in training: its backbone stays as it was trained for global descriptors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Display
from asmk_engine.networks.devices import automatic_precision
from asmk_engine.networks.pooling import gem
from asmk_engine.networks.reranking.checkpoints import save_rerank_checkpoint
from asmk_engine.networks.reranking.network import RerankNetwork
from asmk_engine.training.global_describer import GlobalDescriber
from asmk_engine.training.task import ParameterGroup

GEM_EXPONENT = 3.0


class RerankTrainee:
    """A re-ranking network in training; see `task.Trainee`.

    describer  the trained global network by which hard negatives are chosen; None for GeM of the local map
    """

    extractor = "cvnet-rerank"

    def __init__(self, network: RerankNetwork, describer: GlobalDescriber | None = None) -> None:
        self.network, self._describer = network, describer
        network.requires_grad_(True)
        network.backbone.requires_grad_(False)
        self.learning = nn.ModuleDict({"pyramid": network.pyramid, "encoder": network.encoder})

    @property
    def least_side(self) -> int:
        """Shorter side of the smallest image that the network accepts, in pixels."""
        return self.network.least_side

    def described(self) -> dict[str, Any]:
        """Return the name of the training, the options of the network, and what chooses hard negatives."""
        chosen = {"negatives": self._describer.described()} if self._describer else {}
        return {"training": self.extractor, "network": json_values(self.network.options), **chosen}

    def groups(self, rate: float) -> list[ParameterGroup]:
        """Return all parameters but those of the backbone."""
        return [ParameterGroup(list(self.learning.parameters()), rate)]

    def begin_epoch(self, epoch: int) -> None:
        """Set the training mode, which the backbone does not take."""
        self.network.train()

    def vector(self, pixels: np.ndarray, precision: str) -> torch.Tensor:
        """Return the unit vector [D] of an image, [h, w, 3] uint8, by which hard negatives are chosen.

        It is the descriptor of the global network; without one GeM of the rectified local map.
        """
        if self._describer:
            return self._describer.vector(pixels, precision)
        with torch.no_grad(), automatic_precision(self.device, precision):
            maps = self.network.local_maps(torch.from_numpy(pixels)[None]).clamp(min=0)
        return nn.functional.normalize(gem(maps.float(), torch.tensor(GEM_EXPONENT, device=maps.device))[0], dim=0)

    def local_maps(self, pixels: Sequence[np.ndarray], precision: str) -> torch.Tensor:
        """Return the local maps [B, C, h, w] of images of one size, [h, w, 3] uint8 each."""
        with automatic_precision(self.device, precision):
            return self.network.local_maps(torch.from_numpy(np.stack(pixels)))

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.network.parameters()).device

    def finish(self, images: Sequence[ImageFile], max_side: int, reporter: Display) -> None:
        """Do nothing: nothing is learned after training."""

    def write(self, path: Path, origin: dict[str, Any]) -> None:
        """Write the network to a file, with the origin of its weights, as a trained one."""
        options = self.network.options
        self.network.options = dataclasses.replace(options, untrained_seed=None)
        try:
            save_rerank_checkpoint(path, self.network, origin)
        finally:
            self.network.options = options


def json_values(options: Any) -> dict[str, Any]:
    """Return the options of a network as JSON values."""
    found = dataclasses.asdict(options)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}
