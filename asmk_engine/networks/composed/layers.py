"""Layers that several heads share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.networks.pooling import gem

EXPONENT = 3.0
"""The GeM exponent p that every paper begins with."""


class GemPool(nn.Module):
    """GeM: the generalised mean of each channel of maps [B, C, h, w], as [B, C]; p = 3, learned or fixed."""

    def __init__(self, learned: bool = True) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.full((1,), EXPONENT)) if learned else None

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return vectors [B, C], at least float32; values below 1e-6 count as 1e-6."""
        exact = maps.to(torch.promote_types(maps.dtype, torch.float32))  # powers overflow in halves
        return gem(exact, EXPONENT if self.exponent is None else self.exponent)


class VectorLinear(nn.Linear):
    """A linear layer of vectors after a pooling, in full precision even where the convolutions before it are not."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Map [B, inputs] to [B, outputs]."""
        device = vectors.device.type
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return super().forward(vectors)
        with torch.autocast(device, enabled=False):
            return super().forward(vectors.to(self.weight.dtype))


def pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 1×1 convolution with bias."""
    return nn.Conv2d(inputs, outputs, 1)


def dilated(inputs: int, outputs: int, kernel: int, dilation: int = 1, groups: int = 1, bias: bool = True) -> nn.Conv2d:
    """Return a convolution that keeps the size of the map: zeros are padded around it."""
    padding = dilation * (kernel - 1) // 2
    return nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, groups=groups, bias=bias)


def rectified(convolution: nn.Conv2d) -> nn.Sequential:
    """Return the convolution, batch normalisation and ReLU."""
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))


def attended(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    """Return softmax(scale · queries keysᵀ) values: [B, n, c] for queries [B, n, d], keys [B, m, d], values [B, m, c].

    The n × m weights are not kept where torch can do without, so that large maps fit.
    """
    query, key, value = (part.unsqueeze(1) for part in (queries, keys, values))
    return functional.scaled_dot_product_attention(query, key, value, scale=scale).squeeze(1)


QUERY_BLOCK = 256
"""Queries whose weights of all keys are in memory together, where the weights themselves are wanted."""


def received(queries: torch.Tensor, keys: torch.Tensor, scale: float) -> torch.Tensor:
    """Return how much attention each key gets: m times the mean over queries of softmax(scale · queries keysᵀ), [B, m].

    It is 1 for every key where attention is even. queries [B, n, d], keys [B, m, d].
    """
    total = torch.zeros(keys.shape[:2], dtype=keys.dtype, device=keys.device)
    for some in queries.split(QUERY_BLOCK, 1):
        total = total + (scale * some @ keys.transpose(1, 2)).softmax(2).sum(1)
    return total * (keys.shape[1] / queries.shape[1])


def rows(maps: torch.Tensor) -> torch.Tensor:
    """Return the locations of maps [B, C, h, w] as rows, [B, h · w, C], row by row."""
    return maps.flatten(2).transpose(1, 2)


def as_maps(locations: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return locations [B, h · w, C] as maps [B, C, h, w] of the height and width of another map."""
    return locations.transpose(1, 2).unflatten(2, like.shape[-2:])


class ChannelConvolution(nn.Conv1d):
    """A convolution along the channels of vectors [B, C], without bias, as efficient channel attention has it."""

    def __init__(self, kernel: int) -> None:
        super().__init__(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Map [B, C] to [B, C]; zeros are padded before the first and after the last channel."""
        return super().forward(vectors.unsqueeze(1)).squeeze(1)


class AtrousPyramid(nn.Module):
    """ASPP: parallel convolutions of several dilations and the average of the map, concatenated and reduced by a 1×1.

    channels    of the input
    width       channels of each branch
    outputs     channels of the result
    dilations   of the 3×3 convolutions; a 1×1 convolution precedes them
    normalised  batch normalisation and ReLU after every convolution, as Chen et al. (arXiv 1706.05587) have it;
                otherwise, as in the code of DOLG, ReLU only after the average's branch and the last convolution
    """

    def __init__(self, channels: int, width: int, outputs: int, dilations: Sequence[int], normalised: bool) -> None:
        super().__init__()
        kernels = [pointwise(channels, width), *(dilated(channels, width, 3, rate) for rate in dilations)]
        self.branches = nn.ModuleList(rectified(one) if normalised else one for one in kernels)
        average = pointwise(channels, width)
        self.average = rectified(average) if normalised else nn.Sequential(average, nn.ReLU())
        joint = pointwise(width * (len(kernels) + 1), outputs)
        self.joint = rectified(joint) if normalised else nn.Sequential(joint, nn.ReLU())

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, channels, h, w] to [B, outputs, h, w]."""
        average = self.average(maps.mean((-2, -1), keepdim=True)).expand(-1, -1, *maps.shape[-2:])
        found: torch.Tensor = self.joint(torch.cat([average, *(branch(maps) for branch in self.branches)], 1))
        return found
