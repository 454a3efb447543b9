"""GeM-AP: GeM and a linear layer, trained with a loss that is the average precision (Revaud et al., ICCV 2019).

    map 5 ─GeM─▶ ─linear─▶ vector

Unlike the GeM family with whitening, nothing is normalised between pooling and the linear layer. The official code
describes images at one scale; several would be joined by a mean with a signed power of 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from asmk_engine.networks.composed.head import Head
from asmk_engine.networks.composed.layers import GemPool, VectorLinear
from asmk_engine.networks.composed.switches import HeadOptions, flag, number


@dataclass(frozen=True)
class GemApOptions(HeadOptions):
    """The switches of GeM-AP.

    learned_exponent  whether p of GeM is learned
    dim               dimensions of the vector; 0: as many as map 5 has channels, 2048 in the paper
    """

    learned_exponent: bool = flag(True)
    dim: int = number(0, 0, 8192)


class GemApHead(Head):
    """GeM and a linear layer."""

    def __init__(self, channels: tuple[int, int], options: GemApOptions) -> None:
        super().__init__()
        self.dim = options.dim or channels[1]
        self.pool = GemPool(options.learned_exponent)
        self.whitening = VectorLinear(channels[1], self.dim)

    def forward(self, map4: torch.Tensor, map5: torch.Tensor) -> torch.Tensor:
        """Return vectors [B, dim] of map 5."""
        found: torch.Tensor = self.whitening(self.pool(map5))
        return found
