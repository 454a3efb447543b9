"""What every backbone is: a convolutional network without its classifier, cut where the options say."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Backbone(nn.Module):
    """A fully convolutional network from pixels to a non-negative map.

    channels    of the map, C
    stride      pixels from one location of the map to the next
    offset      pixel, from the centre of the first one, at which the receptive field of the first location is centred
    least_side  shorter side of the smallest image that has a location
    """

    channels: int
    stride: int
    offset: float
    least_side: int = 1

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """The map [B, C, h, w] of normalised pixels [B, 3, H, W]."""
        result: torch.Tensor = super().__call__(pixels)
        return result


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, **options: Any) -> nn.Conv2d:
    """A convolution that keeps the size but for its stride, without bias, as residual networks have them."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False, **options)
