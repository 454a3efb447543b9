"""SOLAR: second-order attention between the locations of the last two maps (Ng et al., ECCV 2020).

    map 4 ─attention─▶ map 4 ─late layers─▶ map 5 ─attention─▶ map 5 ─GeM─▶ unit vector ─linear─▶ vector

As the official code: the last convolution of an attention starts at zero, so that an untrained one changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.networks.composed.head import Head
from asmk_engine.networks.composed.layers import GemPool, VectorLinear, as_maps, attended, pointwise, received, rows
from asmk_engine.networks.composed.switches import HeadOptions, flag, number
from asmk_engine.networks.pooling import over_norm
from asmk_engine.networks.spatial_map import SpatialMap


@dataclass(frozen=True)
class SolarOptions(HeadOptions):
    """The switches of SOLAR.

    attention4, attention5  whether there is an attention after map 4, after map 5; without both it is GeM + FC
    divisor4, divisor5      channels of the map divided by those within its attention
    dim                     dimensions of the vector; 0: as many as map 5 has channels, 2048 in the paper
    """

    attention4: bool = flag(True)
    attention5: bool = flag(True)
    divisor4: int = number(4, 1, 64)
    divisor5: int = number(2, 1, 64)
    dim: int = number(0, 0, 8192)


class SecondOrderAttention(nn.Module):
    """x + v(softmax(f(x)ᵀ g(x) / √m) h(x)): every location gets a mixture of all, weighted by their similarity.

    f and g are 1×1 convolutions to m channels with batch normalisation and ReLU, h one to m channels, v one back.
    """

    def __init__(self, channels: int, within: int) -> None:
        super().__init__()
        self.query = nn.Sequential(pointwise(channels, within), nn.BatchNorm2d(within))
        self.key = nn.Sequential(pointwise(channels, within), nn.BatchNorm2d(within))
        self.value, self.output = pointwise(channels, within), pointwise(within, channels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, channels, h, w] to the same shape."""
        queries, keys = self._compared(maps)
        mixed = attended(queries, keys, rows(self.value(maps)), queries.shape[-1] ** -0.5)
        found: torch.Tensor = maps + self.output(as_maps(mixed, maps))
        return found

    def received(self, maps: torch.Tensor) -> torch.Tensor:
        """Return how much attention each location of maps [B, channels, h, w] gets from all, [B, h, w]."""
        queries, keys = self._compared(maps)
        return received(queries, keys, queries.shape[-1] ** -0.5).unflatten(1, maps.shape[-2:])

    def _compared(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the queries and keys [B, h · w, m] of all locations."""
        queries, keys = (rows(functional.relu(part(maps))) for part in (self.query, self.key))
        return queries, keys


class SolarHead(Head):
    """Attention after map 4 and map 5, GeM with learned p, unit length, a linear layer."""

    def __init__(self, channels: tuple[int, int], options: SolarOptions) -> None:
        super().__init__()
        within4, within5 = channels[0] // options.divisor4, channels[1] // options.divisor5
        self.attention4 = SecondOrderAttention(channels[0], within4) if options.attention4 else nn.Identity()
        self.attention5 = SecondOrderAttention(channels[1], within5) if options.attention5 else nn.Identity()
        self.pool = GemPool()
        self.dim = options.dim or channels[1]
        self.whitening = VectorLinear(channels[1], self.dim)

    def middle(self, map4: torch.Tensor) -> torch.Tensor:
        """Return map 4 after its attention."""
        found: torch.Tensor = self.attention4(map4)
        return found

    def attention_maps(self, early: torch.Tensor, map4: torch.Tensor, map5: torch.Tensor) -> list[SpatialMap]:
        """Return how much second-order attention each location gets; that of a single query is not shown."""
        found = []
        for level, attention, maps in ((5, self.attention5, map5), (4, self.attention4, early)):
            if isinstance(attention, SecondOrderAttention):
                values, meaning = attention.received(maps), "attention received, 1 on average"
                found.append(SpatialMap(f"second-order attention of map {level}", values, meaning, level))
        return found

    def forward(self, map4: torch.Tensor, map5: torch.Tensor) -> torch.Tensor:
        """Return vectors [B, dim] of map 5; map 4 has had its effect on it."""
        found: torch.Tensor = self.whitening(over_norm(self.pool(self.attention5(map5))))
        return found
