"""The feature pyramid of a local map: resized copies, each through a 3×3 convolution of its own.

Source: Lee et al., CVPR 2022, section 4.1, and the official code for the rounding of sides.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

Sides = tuple[int, int]


def level_sides(sides: Sides, levels: int) -> list[Sides]:
    """Return the sides of each level, smallest first: of 3 those of the map times 1/2, 1/√2 and 1, rounded."""
    factors = [0.5 ** ((levels - 1 - level) / 2) for level in range(levels)]
    return [(max(1, round(sides[0] * one)), max(1, round(sides[1] * one))) for one in factors]


def resized(maps: torch.Tensor, sides: Sides) -> torch.Tensor:
    """Resize maps [B, C, h, w] by bilinear interpolation with aligned corners; the same maps if nothing changes."""
    if maps.shape[-2:] == sides:
        return maps
    return functional.interpolate(maps, size=sides, mode="bilinear", align_corners=True)


class FeaturePyramid(nn.Module):
    """Resizes a local map to several levels and reduces the channels of each, without bias or activation.

    channels, width  number of channels of the map and of each level
    levels           number of levels
    """

    def __init__(self, channels: int, width: int, levels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(channels, width, 3, padding=1, bias=False) for _ in range(levels))

    def forward(self, maps: torch.Tensor) -> list[torch.Tensor]:
        """Return the levels [B, width, h, w] of maps [B, C, H, W], smallest first."""
        sides = level_sides((maps.shape[-2], maps.shape[-1]), len(self.levels))
        return [convolution(resized(maps, size)) for convolution, size in zip(self.levels, sides, strict=True)]
