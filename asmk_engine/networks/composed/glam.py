"""GLAM: attention to channels and places, each local and global (Song, Han and Avrithis, WACV 2022).

    map 5 ─┬─ local channels ─ local places ──┐
           ├──────────────────────────────────┼─ weighted mean ─GeM─▶ ─linear─▶ vector
           └─ global channels ─ global places ┘

There is no official code, and only the outline of the paper is at hand: the weights of the mean are a softmax of three
learned numbers, at first equal; the local attentions and the global places add their input, the global channels do not.
Decided here: the convolutions along channels see 3 and have no bias, those over places have a quarter of the channels
and a bias, and none is followed by batch normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from asmk_engine.errors import InputError
from asmk_engine.networks.composed.head import Head
from asmk_engine.networks.composed.layers import (
    ChannelConvolution,
    GemPool,
    VectorLinear,
    as_maps,
    attended,
    dilated,
    pointwise,
    received,
    rows,
)
from asmk_engine.networks.composed.switches import HeadOptions, flag, number
from asmk_engine.networks.spatial_map import SpatialMap


@dataclass(frozen=True)
class GlamOptions(HeadOptions):
    """The switches of GLAM.

    use_local, use_global  whether there are the local, the global attentions; without both it is GeM + FC
    kernel                 channels that a convolution along channels sees
    width                  channels within the attentions to places; 0: a quarter of those of map 5
    dim                    dimensions of the vector
    """

    use_local: bool = flag(True)
    use_global: bool = flag(True)
    kernel: int = number(3, 1, 63)
    width: int = number(0, 0, 8192)
    dim: int = number(512, 1, 8192)


class LocalAttention(nn.Module):
    """A weight for each channel from its average, then one for each location from its surroundings.

    The surroundings are three 3×3 convolutions of dilations 1, 2 and 3 of a narrower map, next to that map itself.
    """

    def __init__(self, channels: int, width: int, kernel: int) -> None:
        super().__init__()
        self.channels = ChannelConvolution(kernel)
        self.narrow = pointwise(channels, width)
        self.around = nn.ModuleList(dilated(width, width, 3, rate) for rate in (1, 2, 3))
        self.places = pointwise(4 * width, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, channels, h, w] to the same shape."""
        weights = self.channels(maps.mean((-2, -1))).sigmoid()
        found = maps * weights[:, :, None, None] + maps
        return found * self.place_weights(maps) + found

    def place_weights(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the weight of each location, of either sign, [B, 1, h, w]."""
        narrow = self.narrow(maps)
        places: torch.Tensor = self.places(torch.cat([narrow, *(layer(narrow) for layer in self.around)], 1))
        return places


class GlobalAttention(nn.Module):
    """Every channel weighted by a mixture of all channels, then every location by a mixture of all locations.

    The mixture of channels: softmax of the products of two weights of each channel, so that its parts sum to 1.
    """

    def __init__(self, channels: int, width: int, kernel: int) -> None:
        super().__init__()
        self.channel_query, self.channel_key = ChannelConvolution(kernel), ChannelConvolution(kernel)
        self.query, self.key = pointwise(channels, width), pointwise(channels, width)
        self.value, self.output = pointwise(channels, width), pointwise(width, channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, channels, h, w] to the same shape."""
        averages = maps.mean((-2, -1))
        queries, keys = self.channel_query(averages).sigmoid(), self.channel_key(averages).sigmoid()
        mixed = attended(queries[:, :, None], keys[:, :, None], maps.flatten(2), 1.0)
        found = maps * mixed.unflatten(2, maps.shape[-2:])
        places = attended(rows(self.query(maps)), rows(self.key(maps)), rows(self.value(maps)), 1.0)
        weights: torch.Tensor = self.output(as_maps(places, maps))
        return found * weights + found

    def received(self, maps: torch.Tensor) -> torch.Tensor:
        """Return how much attention each location of maps [B, channels, h, w] gets from all, [B, h, w]."""
        return received(rows(self.query(maps)), rows(self.key(maps)), 1.0).unflatten(1, maps.shape[-2:])


class GlamHead(Head):
    """The attentions, their weighted mean, GeM with learned p, and a linear layer."""

    def __init__(self, channels: tuple[int, int], options: GlamOptions) -> None:
        super().__init__()
        if options.kernel % 2 == 0:
            raise InputError(f"kernel is {options.kernel}; expected an odd number")
        sizes = channels[1], options.width or channels[1] // 4, options.kernel
        self.local = LocalAttention(*sizes) if options.use_local else None
        self.whole = GlobalAttention(*sizes) if options.use_global else None
        self.weights = nn.Parameter(torch.zeros(1 + options.use_local + options.use_global))
        self.pool, self.dim = GemPool(), options.dim
        self.reduction = VectorLinear(channels[1], options.dim)

    def attention_maps(self, early: torch.Tensor, map4: torch.Tensor, map5: torch.Tensor) -> list[SpatialMap]:
        """Return the weights of the local attention, and how much of the global attention each location gets."""
        found = []
        if self.local is not None:
            weights = self.local.place_weights(map5).squeeze(1)
            found.append(SpatialMap("local attention", weights, "weight of the location, of either sign"))
        if self.whole is not None:
            values = self.whole.received(map5)
            found.append(SpatialMap("global attention", values, "attention received, 1 on average"))
        return found

    def forward(self, map4: torch.Tensor, map5: torch.Tensor) -> torch.Tensor:
        """Return vectors [B, dim] of map 5."""
        maps = [map5, *(part(map5) for part in (self.local, self.whole) if part is not None)]
        shares = self.weights.softmax(0)
        mean = sum(share * one for share, one in zip(shares, maps, strict=True))
        found: torch.Tensor = self.reduction(self.pool(mean))
        return found
