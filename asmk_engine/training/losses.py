"""Losses, and the vectors they are computed from."""

from __future__ import annotations

import torch

from asmk_engine.networks.devices import automatic_precision
from asmk_engine.networks.local import LocalNetwork, unit_length
from asmk_engine.networks.pooling import NORM_FLOOR

DIFFERENCE_FLOOR = 1e-6  # added to every difference, as in the published code, which keeps the root differentiable


def contrastive(anchor: torch.Tensor, others: torch.Tensor, matches: torch.Tensor, margin: float) -> torch.Tensor:
    """½ y D² + ½ (1 − y) max(0, µ − D)², summed over the pairs of a tuple; D² = Σ (a − b + 1e-6)².

    anchor   [D]
    others   [n, D], and for each whether it matches, [n] bool: y is 1 there
    margin   µ
    Source: the code of Radenović et al. (PAMI 2018), which HOW trains with; the papers have no ½.
    """
    distances = (anchor - others + DIFFERENCE_FLOOR).square().sum(1).sqrt()
    pulled = distances.square()
    pushed = (margin - distances).clamp(min=0).square()
    return 0.5 * torch.where(matches, pulled, pushed).sum()


def global_vector(network: LocalNetwork, pixels: torch.Tensor, precision: str = "fp32") -> torch.Tensor:
    """The global descriptor [B, D] at one scale, before a reduction that comes after training; its sums are in float32.

    Source: HOW §3.3, the sum of score times descriptor, with the constant of its code: v / (|v| + 1e-6).

    pixels     [B, 3, H, W], normalised
    precision  of the convolutions of the backbone and the attention
    """
    locations, scores = _trained(network, pixels, precision)
    total = torch.einsum("bhwd,bhw->bd", locations, scores)
    return total / (total.norm(dim=1, keepdim=True) + NORM_FLOOR)


def pooled_vector(network: LocalNetwork, pixels: torch.Tensor, precision: str = "fp32") -> torch.Tensor:
    """What a classifier sees of each image, [B, D].

    Learned attention: the mean over the positions of attention times descriptor, of unit length where the reduction
    comes afterwards (DELF, Noh et al., ICCV 2017). Attention by the norm: the mean weighted by it, since norms have no
    scale of their own.
    """
    locations, scores = _trained(network, pixels, precision)
    if network.options.reduction == "post":
        locations = unit_length(locations)
    total = torch.einsum("bhwd,bhw->bd", locations, scores)
    if network.options.attention == "learned":
        return total / scores[0].numel()
    return total / scores.sum((1, 2))[:, None]


def _trained(network: LocalNetwork, pixels: torch.Tensor, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Locations [B, h, w, D] before a reduction that comes after training, and scores [B, h, w]."""
    with automatic_precision(pixels.device, precision):
        found, scores = network.maps(pixels)
    locations = found.float().movedim(1, -1)
    return locations if network.options.reduction == "post" else network.reduce(locations), scores.float()
