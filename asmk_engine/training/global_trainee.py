"""A global network in training: which of its parameters learn, at which rates, and with which statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from asmk_engine.errors import InputError
from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Display
from asmk_engine.networks.multiscale import normalise_pixels
from asmk_engine.training.freezing import Freeze
from asmk_engine.training.global_networks import TrainedNetwork, save_network, unit_vectors
from asmk_engine.training.task import ParameterGroup

NORMALISATIONS = ("frozen", "batch")
EXPONENT = "exponent"


@dataclass(frozen=True)
class TraineeOptions:
    """How a network learns; raises InputError for values out of range.

    head_factor      learning rate of everything but the backbone, as a factor
    exponent_factor  learning rate of the exponents of GeM, as a factor; they have no weight decay, as in its code
    batch_norm       `frozen`: the statistics of the weights at the beginning; `batch`: those of the images of a step,
                     which move the stored ones
    freezes          parts that do not learn in some epochs
    """

    head_factor: float = 1.0
    exponent_factor: float = 1.0
    batch_norm: str = "frozen"
    freezes: tuple[Freeze, ...] = ()

    def __post_init__(self) -> None:
        if self.batch_norm not in NORMALISATIONS or min(self.head_factor, self.exponent_factor) <= 0:
            raise InputError(
                f"batch_norm is {self.batch_norm!r}, the factors {self.head_factor} and {self.exponent_factor}; choose "
                f"one of {', '.join(NORMALISATIONS)}, and factors greater than 0"
            )


class GlobalTrainee:
    """A global network in training; see `task.Trainee`.

    name  name of the network, and of the extractor of its files
    """

    def __init__(self, network: TrainedNetwork, name: str, options: TraineeOptions) -> None:
        self.network, self.extractor, self.options = network, name, options
        network.requires_grad_(True)

    @property
    def least_side(self) -> int:
        """Shorter side of the smallest image that the network accepts, in pixels."""
        return self.network.backbone.least_side

    def described(self) -> dict[str, Any]:
        """Return the name of the network and the options."""
        return {"training": self.extractor, **asdict(self.options)}

    def groups(self, rate: float) -> list[ParameterGroup]:
        """Return backbone, head and exponents with their learning rates."""
        found: dict[str, list[nn.Parameter]] = {"backbone": [], "head": [], EXPONENT: []}
        for name, parameter in self.network.named_parameters():
            part = "backbone" if name.startswith("backbone.") else "head"
            found[EXPONENT if name.split(".")[-1] == EXPONENT else part].append(parameter)
        options = self.options
        factors = {"backbone": 1.0, "head": options.head_factor, EXPONENT: options.exponent_factor}
        return [
            ParameterGroup(parameters, rate * factors[part], decays=part != EXPONENT)
            for part, parameters in found.items()
            if parameters
        ]

    def begin_epoch(self, epoch: int) -> None:
        """Freeze what is frozen in this epoch, and set the statistics of batch normalisation."""
        frozen = {one.part for one in self.options.freezes if one.holds(epoch)}
        for name, module in self.network.named_children():
            learns = ("backbone" if name == "backbone" else "head") not in frozen
            self.set_mode(module, learns)
            module.requires_grad_(learns)
        for _, parameter in self.network.named_parameters(recurse=False):
            parameter.requires_grad_("head" not in frozen)

    def set_mode(self, module: nn.Module, learns: bool) -> None:
        """Put a module into training mode if it learns, but its batch normalisation only if that is not frozen."""
        module.train(learns)
        if self.options.batch_norm == "frozen":
            for part in module.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()

    def vector(self, pixels: np.ndarray, precision: str) -> torch.Tensor:
        """Return the unit vector [D] of one image, [h, w, 3] uint8."""
        return self.vectors(torch.from_numpy(pixels)[None], precision)[0]

    def vectors(self, pixels: torch.Tensor, precision: str, network: TrainedNetwork | None = None) -> torch.Tensor:
        """Return unit vectors [B, D] float32 of pixels [B, H, W, 3] uint8.

        network  another one of the same kind, such as the momentum network
        """
        return self.vectors_and_map(pixels, precision, network)[0]

    def vectors_and_map(
        self, pixels: torch.Tensor, precision: str, network: TrainedNetwork | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return unit vectors as `vectors` does, and the first map that they were made of, see `unit_vectors`."""
        chosen = network or self.network
        device = next(chosen.parameters()).device
        normalised = normalise_pixels(pixels.to(device, non_blocking=True), chosen.options)  # type: ignore[arg-type]
        return unit_vectors(chosen, normalised, precision)

    def finish(self, images: Sequence[ImageFile], max_side: int, reporter: Display) -> None:
        """Do nothing: a projection is learned separately, by `whiten-global`."""

    def write(self, path: Path, origin: dict[str, Any]) -> None:
        """Write the network to a file, with the origin of its weights."""
        save_network(path, self.network, origin)
