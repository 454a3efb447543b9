"""The base class of all heads: from the maps of a backbone to one vector for each image."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from asmk_engine.networks.spatial_map import SpatialMap


class Head(nn.Module, ABC):
    """What follows a backbone; a subclass has the layers of one paper, and the switches that its options name.

    dim  number of dimensions of the vector
    """

    dim: int

    def middle(self, map4: torch.Tensor) -> torch.Tensor:
        """Return what the late layers of the backbone and the head get instead of map 4 [B, C4, h4, w4]; the same."""
        return map4

    def attention_maps(self, early: torch.Tensor, map4: torch.Tensor, map5: torch.Tensor) -> list[SpatialMap]:
        """Return what the layers attend to at each location, the main map first; none if they have no such attention.

        early  map 4 before `middle`
        """
        return []

    @abstractmethod
    def forward(self, map4: torch.Tensor, map5: torch.Tensor) -> torch.Tensor:
        """Return vectors [B, dim], before their normalisation to unit length, of both maps of a backbone."""

    def __call__(self, map4: torch.Tensor, map5: torch.Tensor) -> torch.Tensor:
        """Return vectors [B, dim] of map 4 [B, C4, h4, w4] and map 5 [B, C5, h5, w5]."""
        result: torch.Tensor = super().__call__(map4, map5)
        return result
