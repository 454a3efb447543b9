"""Local descriptors from a backbone: HOW, DELF and combinations of them, as options of one network.

    pixels ──backbone──▶ map U ──smoothing──▶ Ū ──reduction──▶ descriptors
                        └──attention──▶ scores

HOW (Tolias, Jenicek and Chum, ECCV 2020, §4.1) uses the L2 norm of U as attention, smooths, and reduces in the
network. DELF (Noh et al., ICCV 2017) learns its attention, does not smooth, and reduces unit vectors after training.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.networks.backbones import build_backbone
from asmk_engine.networks.local_options import NORM_SQUARED_FLOOR, LocalOptions
from asmk_engine.networks.locations import scaled_sides

HIDDEN = 512  # channels between the two convolutions of a learned attention


class LearnedAttention(nn.Sequential):
    """DELF's attention: 1×1 to 512, ReLU, 1×1 to 1, softplus; maps [B, C, h, w] to [B, 1, h, w]."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Conv2d(channels, HIDDEN, 1), nn.ReLU(inplace=True), nn.Conv2d(HIDDEN, 1, 1), nn.Softplus())


class LocalNetwork(nn.Module):
    """A backbone with attention, smoothing and reduction; see `LocalOptions`."""

    def __init__(self, options: LocalOptions) -> None:
        super().__init__()
        self.options = options
        self.backbone = build_backbone(options.backbone, options.skip)
        self.attention = LearnedAttention(self.backbone.channels) if options.attention == "learned" else None
        reduced = options.reduction != "none"
        self.reduction = nn.Conv2d(self.backbone.channels, options.dim, 1) if reduced else None

    @property
    def dim(self) -> int:
        """Number of dimensions of a descriptor."""
        return self.backbone.channels if self.reduction is None else self.options.dim

    def maps(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the smoothed map [B, C, h, w] and the scores [B, h, w] of the map before smoothing."""
        found = self.backbone(pixels)
        scores = norm_attention(found) if self.attention is None else self.attention(found).squeeze(1)
        return smooth(found, self.options.smoothing), scores

    def reduce(self, locations: torch.Tensor) -> torch.Tensor:
        """Return descriptors [..., D] of locations [..., C] of the smoothed map: P c + b.

        With a reduction of unit vectors, locations are normalised before, and descriptors after.
        """
        if self.reduction is None:
            return locations
        weight, bias = self.reduction.weight.flatten(1), self.reduction.bias
        if self.options.reduction == "network":
            return functional.linear(locations, weight, bias)
        reduced = functional.linear(unit_length(locations), weight, bias)
        return unit_length(reduced)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return descriptors [B, D, h, w] and scores [B, h, w] of all locations, at one scale."""
        found, scores = self.maps(pixels)
        return self.reduce(found.movedim(1, -1)).movedim(-1, 1), scores


def norm_attention(found: torch.Tensor) -> torch.Tensor:
    """Return sqrt(Σ_c u_c² + 1e-10) at each location of maps [B, C, h, w]: [B, h, w]. Source: HOW §4.1 and its code."""
    return (found.float().square().sum(1) + NORM_SQUARED_FLOOR).sqrt()


def smooth(found: torch.Tensor, side: int) -> torch.Tensor:
    """Return the average of the side × side locations around each one, without padding at edges. Source: HOW §4.1."""
    if side == 1:
        return found
    return functional.avg_pool2d(found, side, 1, side // 2, count_include_pad=False)


def unit_length(vectors: torch.Tensor) -> torch.Tensor:
    """Divide vectors [..., D] by their length; a zero vector stays zero."""
    return functional.normalize(vectors, dim=-1)


def rescale(pixels: torch.Tensor, scale: float, multiple: int = 1) -> torch.Tensor:
    """Resample pixels [B, 3, H, W] to the sides of `scaled_sides`: bilinear, corners not aligned, no antialiasing.

    Source: the HOW code.
    """
    size = scaled_sides(pixels.shape[-2:], scale, multiple)
    if size == tuple(pixels.shape[-2:]):
        return pixels
    return functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
