"""HOW's global descriptor, with which it is trained: the sum of its local descriptors, weighted by their scores."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch

from asmk_engine.errors import MismatchError
from asmk_engine.extractors.global_descriptors import WholeImageExtractor
from asmk_engine.extractors.options import apart, choice, numbers, option
from asmk_engine.networks.checkpoints import open_checkpoint
from asmk_engine.networks.devices import choose_device, use_full_precision
from asmk_engine.networks.global_network import how_descriptor
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.locations import SCALES
from asmk_engine.networks.multiscale import normalise_pixels


@dataclass(frozen=True)
class HowGlobal(WholeImageExtractor):
    """HOW's global descriptor (Tolias, Jenicek and Chum, ECCV 2020, §3.3); options and network files as in `How`.

    Local descriptors are summed over all scales before the vector is normalised to unit length.
    """

    name = "how-global"

    weights: str = apart("", "a network file")
    max_side: int = option(1024, 16, 16384)
    scales: tuple[float, ...] = numbers(SCALES, 0.01, 8.0)
    precision: str = choice("fp32", ("fp32", "bf16", "fp16"))
    device: str = apart("auto", "auto, cpu, cuda or cuda:0")

    @functools.cached_property
    def network(self) -> LocalNetwork:
        """The network on its device; raises MismatchError for learned attention, and as `open_checkpoint`."""
        device = choose_device(self.device)
        use_full_precision(device)
        network = open_checkpoint(self.weights)[0].requires_grad_(False)
        if network.options.attention != "norm":
            raise MismatchError(
                f"{self.weights}: a network with {network.options.attention} attention, how-global needs norm; give a "
                "network of HOW"
            )
        moved: Any = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return moved

    def _vectors(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return unit vectors [B, D] float32 of pixels [B, H, W, 3] uint8."""
        normalised = normalise_pixels(pixels, self.network.options)
        return how_descriptor(self.network, normalised, self.scales, self.precision)
