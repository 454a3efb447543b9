"""DPLG: the global vector asks the refined local map for what it lacks (Hu and Bors, ICIP 2022).

    map 5 ─GeM─▶ ─linear─▶ V′g ─┬───────────────────────────────────────────────── + ─linear─▶ vector
    map 4 ─receptive fields─▶ X′ ─ softmax(Q(V′g) K(X′)ᵀ / √D) V(X′) ─▶ Vl ────────┘

There is no official code, and the figure with the branches of the receptive field block is not in the text. Decided
here, and open to change: three branches, each a k×k convolution (1, 3, 5) and a 3×3 one of a dilation (1, 3, 5), as in
RFB (Liu, Huang and Wang, ECCV 2018), with a quarter of the channels of map 4, batch normalisation and ReLU; the branch
of GeM is reduced to a quarter by a linear layer; a 1×1 convolution with bias joins them; there is no shortcut, since
the paper has none; K, V and Q are 1×1. As in the paper p is 3 and fixed, and V′g has as many dimensions as map 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from asmk_engine.errors import InputError
from asmk_engine.networks.composed.head import Head
from asmk_engine.networks.composed.layers import (
    GemPool,
    VectorLinear,
    attended,
    dilated,
    pointwise,
    received,
    rectified,
    rows,
)
from asmk_engine.networks.composed.switches import HeadOptions, flag, number, numbers
from asmk_engine.networks.spatial_map import SpatialMap


@dataclass(frozen=True)
class DplgOptions(HeadOptions):
    """The switches of DPLG; those of Table 2 are `fields` and `dot_product`.

    fields                      whether map 4 passes the receptive field block; otherwise a 1×1 convolution
    dot_product                 whether V′g attends to the local map; otherwise GeM of the local map is added, and
                                without `fields` neither: it is GeM and a linear layer then, without V′g
    kernels, dilations, widths  of the branches of the block; a width of 0 is a quarter of the channels of map 4
    pooled_width                channels of its branch of GeM; 0: a quarter of those of map 4
    normalised                  whether the convolutions of the branches have batch normalisation and ReLU, or only ReLU
    local_kernel                side of the convolutions K and V
    dim                         dimensions of the vector
    """

    fields: bool = flag(True)
    dot_product: bool = flag(True)
    kernels: tuple[int, ...] = numbers((1, 3, 5), 1, 15)
    dilations: tuple[int, ...] = numbers((1, 3, 5), 1, 64)
    widths: tuple[int, ...] = numbers((0, 0, 0), 0, 8192)
    pooled_width: int = number(0, 0, 8192)
    normalised: bool = flag(True)
    local_kernel: int = number(1, 1, 15)
    dim: int = number(512, 1, 8192)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.kernels) == len(self.dilations) == len(self.widths):
            raise InputError("kernels, dilations and widths differ in number; expected one of each for every branch")
        if even := [kernel for kernel in (*self.kernels, self.local_kernel) if kernel % 2 == 0]:
            raise InputError(f"a kernel is {even[0]}; expected odd numbers")


class ReceptiveFields(nn.Module):
    """Branches with several kernels and dilations, and one with GeM of the whole map, joined by a 1×1 convolution."""

    def __init__(self, channels: int, options: DplgOptions) -> None:
        super().__init__()
        widths = [width or channels // 4 for width in options.widths]
        pooled_width = options.pooled_width or channels // 4
        plan = zip(options.kernels, options.dilations, widths, strict=True)
        self.branches = nn.ModuleList(
            nn.Sequential(
                self._layer(dilated(channels, width, kernel), options.normalised),
                self._layer(dilated(width, width, 3, dilation), options.normalised),
            )
            for kernel, dilation, width in plan
        )
        self.pool, self.pooled = GemPool(learned=False), VectorLinear(channels, pooled_width)
        self.joint = pointwise(sum(widths) + pooled_width, channels)

    @staticmethod
    def _layer(convolution: nn.Conv2d, normalised: bool) -> nn.Sequential:
        return rectified(convolution) if normalised else nn.Sequential(convolution, nn.ReLU(inplace=True))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, channels, h, w] to the same shape."""
        pooled = self.pooled(self.pool(maps))[:, :, None, None].expand(-1, -1, *maps.shape[-2:])
        found: torch.Tensor = self.joint(torch.cat([*(branch(maps) for branch in self.branches), pooled], 1))
        return found


class DotProduct(nn.Module):
    """softmax(Q(g) K(x)ᵀ / √D) V(x) for a vector g and the locations x of a map."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.query = VectorLinear(channels, channels)
        self.key, self.value = dilated(channels, channels, kernel), dilated(channels, channels, kernel)

    def forward(self, vectors: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """Return vectors [B, D] for vectors [B, D] and maps [B, D, h, w]."""
        queries = self.query(vectors).unsqueeze(1)
        return attended(queries, rows(self.key(maps)), rows(self.value(maps)), vectors.shape[1] ** -0.5).squeeze(1)

    def received(self, vectors: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """Return how much attention of vectors [B, D] each location of maps [B, D, h, w] gets, [B, h, w]."""
        queries = self.query(vectors).unsqueeze(1)
        return received(queries, rows(self.key(maps)), vectors.shape[1] ** -0.5).unflatten(1, maps.shape[-2:])


class DplgHead(Head):
    """The global vector plus what it found in the local map, and a linear layer."""

    def __init__(self, channels: tuple[int, int], options: DplgOptions) -> None:
        super().__init__()
        self.has_local = options.fields or options.dot_product
        width = channels[0] if self.has_local else channels[1]
        self.pool, self.dim = GemPool(learned=False), options.dim
        if self.has_local:
            self.reduction = VectorLinear(channels[1], width)
            self.fields = ReceptiveFields(width, options) if options.fields else pointwise(width, width)
        self.dot_product = DotProduct(width, options.local_kernel) if options.dot_product else None
        self.fusion = VectorLinear(width, options.dim)

    def attention_maps(self, early: torch.Tensor, map4: torch.Tensor, map5: torch.Tensor) -> list[SpatialMap]:
        """Return how much attention of the global vector each location gets; nothing without dot product."""
        if self.dot_product is None:
            return []
        whole = self.pool(map5)
        whole = self.reduction(whole) if self.has_local else whole
        values = self.dot_product.received(whole, self.fields(map4))
        return [SpatialMap("attention of the global vector", values, "attention received, 1 on average", 4)]

    def forward(self, map4: torch.Tensor, map5: torch.Tensor) -> torch.Tensor:
        """Return vectors [B, dim] of both maps."""
        whole = self.pool(map5)
        if self.has_local:
            whole = self.reduction(whole)
            whole = whole + self._local(map4, whole)
        found: torch.Tensor = self.fusion(whole)
        return found

    def _local(self, map4: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """Return what map 4 adds to the global vectors [B, D]."""
        refined = self.fields(map4)
        found: torch.Tensor = self.pool(refined) if self.dot_product is None else self.dot_product(whole, refined)
        return found
