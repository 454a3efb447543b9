"""AGeM: GeM of maps that an attention has strengthened (Gu, Li and Xie, arXiv 1811.00202).

    map 4 ─(1 + mask) ⊙─▶ map 4 ─late layers─▶ map 5 ─(1 + mask) ⊙─▶ map 5 ─GeM─▶ vector

There is no official code, and only the outline of the paper is at hand: GeM of maps that are multiplied by 1 + mask, as
in residual attention learning (Wang et al., CVPR 2017). Decided here: a mask is the sigmoid of three convolutions, 1×1,
3×3 and 1×1, the first two with a quarter of the channels, batch normalisation and ReLU; there is one after map 5, and
one after map 4 if asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from asmk_engine.networks.composed.head import Head
from asmk_engine.networks.composed.layers import GemPool, dilated, pointwise, rectified
from asmk_engine.networks.composed.switches import HeadOptions, choice, flag, number
from asmk_engine.networks.spatial_map import SpatialMap


@dataclass(frozen=True)
class AgemOptions(HeadOptions):
    """The switches of AGeM.

    attention4, attention5  whether map 4, map 5 is strengthened; without both it is GeM
    mask                    `channels`: one value for each channel of a location; `places`: one for each location
    divisor                 channels of the map divided by those within its attention
    """

    attention4: bool = flag(False)
    attention5: bool = flag(True)
    mask: str = choice("channels", ("channels", "places"))
    divisor: int = number(4, 1, 64)


class ResidualAttention(nn.Module):
    """(1 + mask) ⊙ x, where the mask of values from 0 to 1 is computed from x."""

    def __init__(self, channels: int, options: AgemOptions) -> None:
        super().__init__()
        within, outputs = channels // options.divisor, channels if options.mask == "channels" else 1
        first = nn.Conv2d(channels, within, 1, bias=False)
        second = dilated(within, within, 3, bias=False)
        self.mask = nn.Sequential(rectified(first), rectified(second), pointwise(within, outputs), nn.Sigmoid())

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, channels, h, w] to the same shape."""
        found: torch.Tensor = maps * (1 + self.mask(maps))
        return found


class AgemHead(Head):
    """The attentions and GeM with learned p."""

    def __init__(self, channels: tuple[int, int], options: AgemOptions) -> None:
        super().__init__()
        self.attention4 = ResidualAttention(channels[0], options) if options.attention4 else nn.Identity()
        self.attention5 = ResidualAttention(channels[1], options) if options.attention5 else nn.Identity()
        self.pool = GemPool()
        self.dim = channels[1]

    def middle(self, map4: torch.Tensor) -> torch.Tensor:
        """Return map 4 after its attention."""
        found: torch.Tensor = self.attention4(map4)
        return found

    def attention_maps(self, early: torch.Tensor, map4: torch.Tensor, map5: torch.Tensor) -> list[SpatialMap]:
        """Return the masks, which multiply each location by 1 + mask, as means over their channels."""
        found = []
        for level, attention, maps in ((5, self.attention5, map5), (4, self.attention4, early)):
            if isinstance(attention, ResidualAttention):
                mask = attention.mask(maps).mean(1)
                found.append(SpatialMap(f"mask of map {level}", mask, "mean of the mask over channels", level))
        return found

    def forward(self, map4: torch.Tensor, map5: torch.Tensor) -> torch.Tensor:
        """Return vectors [B, C5] of map 5."""
        found: torch.Tensor = self.pool(self.attention5(map5))
        return found
