"""The encoder of correlations: four blocks of 4-D convolutions, the mean over all places, two linear layers.

    block   kernel, channels, stride
    1       5, levels² → 16, 2
    2       3, 16 → 16, 1      3, 16 → 32, 2
    3       3, 32 → 32, 1      3, 32 → 32, 1      3, 32 → 64, 2
    4       3, 64 → 64, 1      3, 64 → 64, 1      3, 64 → 128, 1

Each convolution is followed by a group normalisation in 4 groups and ReLU.
Source: Lee et al., CVPR 2022, section 4.2 and figure 4, and the official code.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.networks.reranking.centre_pivot import CentrePivotConvolution

GROUPS = 4
BLOCKS = (
    ((5, 16, 2),),
    ((3, 16, 1), (3, 32, 2)),
    ((3, 32, 1), (3, 32, 1), (3, 64, 2)),
    ((3, 64, 1), (3, 64, 1), (3, 128, 1)),
)
"""The units of each block: kernel, channels, stride."""


class EncoderUnit(nn.Module):
    """A centre-pivot convolution, group normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.convolution = CentrePivotConvolution(inputs, outputs, kernel, stride)
        self.norm = nn.GroupNorm(GROUPS, outputs)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, C, h, w, H, W] to [B, outputs, h', w', H', W']."""
        return self.finished(self.convolution(maps))

    def finished(self, maps: torch.Tensor) -> torch.Tensor:
        """Normalise and rectify the result of the convolution."""
        sides = maps.shape[2:]
        flat = self.norm(maps.flatten(4, 5).flatten(2, 3))
        return functional.relu(flat, inplace=True).unflatten(2, sides[:2]).unflatten(4, sides[2:])


class CorrelationEncoder(nn.Module):
    """Four blocks, the mean over all places, and a classifier with a hidden layer."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        channels = levels * levels
        for block in BLOCKS:
            units = nn.ModuleList()
            for kernel, outputs, stride in block:
                units.append(EncoderUnit(channels, outputs, kernel, stride))
                channels = outputs
            self.blocks.append(units)
        self.classifier = nn.Sequential(nn.Linear(channels, 128), nn.ReLU(inplace=True), nn.Linear(128, 2))

    def forward(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Return logits [B, 2], of no match and of a match, of two images by their `unit_levels`.

        query, key  [B, S, D, h, w] and [B, S, D, H, W]; either B may be 1
        """
        first, *others = (cast(EncoderUnit, unit) for block in self.blocks for unit in block.children())
        maps = first.finished(first.convolution.of_correlations(query, key))
        for unit in others:
            maps = unit(maps)
        found: torch.Tensor = self.classifier(maps.mean(dim=(2, 3, 4, 5)))
        return found
