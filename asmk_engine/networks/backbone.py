"""The base class of all backbones: convolutional networks without classifier, truncated as the options say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn

from asmk_engine.errors import InputError


class Backbone(nn.Module, ABC):
    """A fully convolutional network from pixels to a non-negative feature map.

    channels    number of channels of the feature map, C
    stride      distance in pixels between neighbouring locations of the feature map
    offset      centre of the receptive field of the first location, in pixels from the centre of the first pixel; where
                it depends on the size of the image, `offset_of` is right and this is that of a side of one stride
    least_side  shorter side of the smallest image that yields a location

    `early` and `late` are the two parts of a backbone, before and after the last halving of the resolution; between
    them is "map 4", as the papers call the output of the fourth of five stages, with `early_channels` channels.
    """

    channels: int
    early_channels: int
    stride: int
    offset: float
    least_side: int = 1

    def offset_of(self, side: int) -> float:
        """Return the offset along a side of this many pixels."""
        return self.offset

    def early_offset_of(self, side: int) -> float:
        """Return the offset of map 4, whose stride is half of `stride`, along a side of this many pixels."""
        return self.offset_of(side)

    @abstractmethod
    def early(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return map 4, [B, C4, h4, w4], of normalised pixels [B, 3, H, W]."""

    @abstractmethod
    def late(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the feature map [B, C, h, w] of map 4."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the feature map [B, C, h, w] of normalised pixels [B, 3, H, W]."""
        return self.late(self.early(pixels))

    def unrectified(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the feature map [B, C, h, w] before its last ReLU; raises InputError if this backbone cannot."""
        raise InputError(
            f"{type(self).__name__} gives no map before its last ReLU, which re-ranking needs; take a ResNet or "
            "SqueezeNet"
        )

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the feature map [B, C, h, w] of normalised pixels [B, 3, H, W]."""
        result: torch.Tensor = super().__call__(pixels)
        return result


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, **options: Any) -> nn.Conv2d:
    """Return a convolution with "same" padding and no bias, as residual networks use them."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False, **options)
