"""DOLG: the local information that is orthogonal to the global vector, next to it (Yang et al., ICCV 2021).

    map 5 ─GeM─▶ ─linear─▶ g ───────────────────────────────┬─▶ [g, mean of l − (l·g / |g|²) g] ─linear─▶ vector
    map 4 ─(dilated convolutions)─▶ ─attention─▶ l at each location ┘

As the official code: no normalisation before the concatenation, and the dilated convolutions are off by default
(`pyramid`; the figure of the paper has them). The mean of the orthogonal parts is the orthogonal part of the mean, so
nothing is projected location by location.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.networks.composed.head import Head
from asmk_engine.networks.composed.layers import AtrousPyramid, GemPool, VectorLinear, pointwise
from asmk_engine.networks.composed.switches import HeadOptions, flag, number, numbers
from asmk_engine.networks.spatial_map import SpatialMap


@dataclass(frozen=True)
class DolgOptions(HeadOptions):
    """The switches of DOLG.

    pyramid           whether the local branch starts with the dilated convolutions
    dilations         of these
    pyramid_width     channels of each; 0: half as many as map 4 has, 512 in the paper
    learned_exponent  whether p of GeM is learned; in some versions of the official code it is fixed at 3
    dim               dimensions of the vector
    """

    pyramid: bool = flag(False)
    dilations: tuple[int, ...] = numbers((6, 12, 18), 1, 64)
    pyramid_width: int = number(0, 0, 8192)
    learned_exponent: bool = flag(True)
    dim: int = number(512, 1, 8192)


class LocalBranch(nn.Module):
    """Unit vectors of the locations times their attention: softplus of a 1×1 convolution of the rectified vectors."""

    def __init__(self, channels: int, options: DolgOptions) -> None:
        super().__init__()
        width = options.pyramid_width or channels // 2
        self.pyramid = AtrousPyramid(channels, width, channels, options.dilations, False) if options.pyramid else None
        self.convolution, self.norm = pointwise(channels, channels), nn.BatchNorm2d(channels)
        self.attention = pointwise(channels, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, C4, h, w] to local vectors of the same shape."""
        found = maps if self.pyramid is None else self.pyramid(maps)
        found = self.norm(self.convolution(found))
        scores = functional.softplus(self.attention(functional.relu(found)))
        return functional.normalize(found, dim=1) * scores


class DolgHead(Head):
    """The global vector and the orthogonal local one, concatenated, and a linear layer."""

    def __init__(self, channels: tuple[int, int], options: DolgOptions) -> None:
        super().__init__()
        self.pool = GemPool(options.learned_exponent)
        self.reduction = VectorLinear(channels[1], channels[0])
        self.local = LocalBranch(channels[0], options)
        self.dim = options.dim
        self.fusion = VectorLinear(2 * channels[0], options.dim)

    def attention_maps(self, early: torch.Tensor, map4: torch.Tensor, map5: torch.Tensor) -> list[SpatialMap]:
        """Return the attention, which is the length of the local vectors, and that of their orthogonal parts."""
        whole, local = self.reduction(self.pool(map5)), self.local(map4)
        flat = local.flatten(2).transpose(1, 2)
        parts = orthogonal(flat.flatten(0, 1), whole.repeat_interleave(flat.shape[1], 0)).norm(dim=1)
        return [
            SpatialMap("local attention", local.norm(dim=1), "weight of the local vector", 4),
            SpatialMap("orthogonal part", parts.view(len(local), *local.shape[2:]), "its length", 4),
        ]

    def forward(self, map4: torch.Tensor, map5: torch.Tensor) -> torch.Tensor:
        """Return vectors [B, dim] of both maps."""
        whole = self.reduction(self.pool(map5))
        found: torch.Tensor = self.fusion(torch.cat([whole, orthogonal(self.local(map4).mean((-2, -1)), whole)], 1))
        return found


def orthogonal(vectors: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return vectors [B, D] less their projection on others [B, D]; a zero vector takes nothing away."""
    squared = others.square().sum(1, keepdim=True).clamp(min=torch.finfo(others.dtype).tiny)
    return vectors - (vectors * others).sum(1, keepdim=True) / squared * others
