"""What a network attends to at each location of one of its maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class SpatialMap:
    """One map of attention of a batch of images.

    title       what it is the attention of, in few words
    values      [B, h, w]
    meaning     what a value is
    level       4 or 5: the map of the backbone that has the same locations
    thresholds  where the network itself compares the values with thresholds, these; else none
    """

    title: str
    values: torch.Tensor
    meaning: str
    level: int = 5
    thresholds: tuple[float, ...] = ()
