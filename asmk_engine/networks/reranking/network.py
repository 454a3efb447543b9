"""A re-ranking network: a backbone, the pyramid of its local map, and the encoder of correlations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from asmk_engine.errors import DamagedError, InputError
from asmk_engine.networks.backbone import Backbone
from asmk_engine.networks.backbones import build_backbone
from asmk_engine.networks.local_options import IMAGENET, check_rgb
from asmk_engine.networks.multiscale import normalise_pixels
from asmk_engine.networks.reranking.correlation import unit_levels
from asmk_engine.networks.reranking.encoder import CorrelationEncoder
from asmk_engine.networks.reranking.pyramid import FeaturePyramid
from asmk_engine.networks.resnet import DEPTHS

SKIPS = {**dict.fromkeys(DEPTHS, 1), "squeezenet1_1": 0}
"""The backbones that can be used, and how many of their last parts are left out, so that the stride is 16."""
MOST_WIDTH, MOST_LEVELS, MOST_SEED = 4096, 5, 2**31 - 1
Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class RerankOptions:
    """The options of a re-ranking network, by default those of the paper; raises InputError for invalid values.

    backbone        a ResNet, of which the last stage is left out, or squeezenet1_1
    width           number of channels of a level
    levels          levels of the pyramid, each a factor √2 larger than the one before; 1 compares at one scale only
    mean, std       mean and standard deviation of the pixels, RGB
    untrained_seed  the seed from which layers that were never trained were drawn; None for trained ones
    """

    backbone: str = "resnet50"
    width: int = 256
    levels: int = 3
    mean: Rgb = IMAGENET[0]
    std: Rgb = IMAGENET[1]
    untrained_seed: int | None = None

    def __post_init__(self) -> None:
        if self.backbone not in SKIPS:
            raise InputError(f"backbone is {self.backbone!r}; re-ranking networks have one of {', '.join(SKIPS)}")
        for name, value, most in (("width", self.width, MOST_WIDTH), ("levels", self.levels, MOST_LEVELS)):
            if type(value) is not int or not 1 <= value <= most:
                raise InputError(f"{name} is {value!r}; expected a whole number, 1 to {most}")
        for key in ("mean", "std"):
            check_rgb(key, getattr(self, key))
        seed = self.untrained_seed
        if seed is not None and (type(seed) is not int or not 0 <= seed <= MOST_SEED):
            raise InputError(f"untrained_seed is {seed!r}; expected a whole number, 0 to {MOST_SEED}, or none")

    @property
    def skip(self) -> int:
        """Number of last parts of the backbone that are left out."""
        return SKIPS[self.backbone]

    def to_json(self) -> str:
        """Return the options as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: object) -> RerankOptions:
        """Read the options from a line of JSON; raises DamagedError, in which `where` names the file."""
        try:
            content: dict[str, Any] = json.loads(text)
            pixels = {key: tuple(float(value) for value in content.pop(key)) for key in ("mean", "std")}
            if any(len(value) != 3 for value in pixels.values()):
                raise ValueError("mean and std do not have three values each")
            return cls(**content, **pixels)  # type: ignore[arg-type]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError) as error:
            raise DamagedError(f"{where}: its network options are not readable ({error}); get it again") from None


class RerankNetwork(nn.Module):
    """A backbone, a pyramid and an encoder; see `RerankOptions`. A new network has random weights.

    The backbone stays as it was trained for global descriptors: it is never in training mode.
    """

    def __init__(self, options: RerankOptions, backbone: Backbone | None = None) -> None:
        super().__init__()
        self.options = options
        self.backbone = build_backbone(options.backbone, options.skip) if backbone is None else backbone
        self.pyramid = FeaturePyramid(self.backbone.channels, options.width, options.levels)
        self.encoder = CorrelationEncoder(options.levels)

    def train(self, mode: bool = True) -> RerankNetwork:
        """Set the mode of all layers but the backbone."""
        super().train(mode)
        self.backbone.eval()
        return self

    @property
    def least_side(self) -> int:
        """Shorter side of the smallest image that the network accepts, in pixels."""
        return self.backbone.least_side

    @torch.no_grad()
    def local_maps(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the maps [B, C, h, w] before the last ReLU of pixels [B, H, W, 3] uint8."""
        device = next(self.parameters()).device
        return self.backbone.unrectified(normalise_pixels(pixels.to(device), self.options))  # type: ignore[arg-type]

    def forward(self, query: Sequence[torch.Tensor], key: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits [B, 2], of no match and of a match, of two images by the levels of their pyramids.

        query, key  levels [B, width, h, w] each, smallest first; either B may be 1
        """
        found: torch.Tensor = self.encoder(unit_levels(query), unit_levels(key))
        return found


def seeded_rerank_network(options: RerankOptions, backbone: Backbone | None = None) -> RerankNetwork:
    """Return a network whose random weights are drawn from its `untrained_seed`, 0 if it has none.

    backbone  used instead of a random one
    """
    backbone = build_backbone(options.backbone, options.skip) if backbone is None else backbone
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.untrained_seed or 0)
        return RerankNetwork(options, backbone)
