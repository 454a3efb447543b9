"""Enhancements of a feature map that do not change its shape: ECA, SE, gather-excite, non-local, selective kernels."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.networks.composed.layers import (
    ChannelConvolution,
    as_maps,
    attended,
    dilated,
    pointwise,
    rectified,
    rows,
)

SQUEEZED = 16  # channels divided by those within, in SE and in selective kernels
LEAST_SQUEEZED = 32  # the least number within selective kernels
GROUPS = 32  # of the convolutions of selective kernels


class EfficientChannelAttention(nn.Module):
    """Each channel weighted by the sigmoid of a convolution along the channels' averages (Wang et al., CVPR 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = ChannelConvolution(efficient_kernel(channels))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, channels, h, w] to the same shape."""
        return maps * self.channels(maps.mean((-2, -1))).sigmoid()[:, :, None, None]


def efficient_kernel(channels: int) -> int:
    """Return the kernel of efficient channel attention: |(log₂ C + 1) / 2|, if even the next odd number."""
    return int(abs((math.log2(channels) + 1) / 2)) | 1


class SqueezeExcitation(nn.Module):
    """Each channel weighted by a perceptron with a sigmoid on the channels' averages (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        within = max(1, channels // SQUEEZED)
        self.squeeze, self.excitation = nn.Linear(channels, within), nn.Linear(within, channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, channels, h, w] to the same shape."""
        weights = self.excitation(functional.relu(self.squeeze(maps.mean((-2, -1))))).sigmoid()
        return maps * weights[:, :, None, None]


class GatherExcite(nn.Module):
    """Each channel weighted by the sigmoid of its average, without parameters (Hu et al., NeurIPS 2018, GE-θ⁻)."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, channels, h, w] to the same shape."""
        return maps * maps.mean((-2, -1), keepdim=True).sigmoid()


class NonLocalBlock(nn.Module):
    """x + W(softmax(θ(x)ᵀ φ(x)) g(x)), with half the channels within (Wang et al., CVPR 2018, embedded Gaussian).

    W is a 1×1 convolution with batch normalisation, whose factor starts at zero: an untrained block changes nothing.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        within = channels // 2
        self.query, self.key, self.value = (pointwise(channels, within) for _ in range(3))
        norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(norm.weight)
        self.output = nn.Sequential(pointwise(within, channels), norm)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, channels, h, w] to the same shape."""
        queries, keys, values = (rows(part(maps)) for part in (self.query, self.key, self.value))
        found: torch.Tensor = maps + self.output(as_maps(attended(queries, keys, values, 1.0), maps))
        return found


class SelectiveKernels(nn.Module):
    """Two grouped 3×3 convolutions of dilations 1 and 2, mixed channel by channel (Li et al., CVPR 2019).

    The shares come from the average of their sum: a linear layer with batch normalisation and ReLU, one linear layer
    for each convolution, softmax between the two.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        groups, within = math.gcd(GROUPS, channels), max(channels // SQUEEZED, LEAST_SQUEEZED)
        convolutions = (dilated(channels, channels, 3, rate, groups, bias=False) for rate in (1, 2))
        self.branches = nn.ModuleList(rectified(convolution) for convolution in convolutions)
        self.squeeze = rectified(nn.Conv2d(channels, within, 1, bias=False))
        self.shares = nn.ModuleList(pointwise(within, channels) for _ in range(2))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, channels, h, w] to the same shape."""
        found = torch.stack([branch(maps) for branch in self.branches])
        squeezed = self.squeeze(found.sum(0).mean((-2, -1), keepdim=True))
        shares = torch.stack([layer(squeezed) for layer in self.shares]).softmax(0)
        return (found * shares).sum(0)
