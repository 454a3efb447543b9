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

    Source: HOW §3.3, the sum of strength times descriptor, with the constant of its code: v / (|v| + 1e-6).

    pixels     [B, 3, H, W], normalised
    precision  of the convolutions of the trunk and the attention
    """
    cells, strengths = _trained(network, pixels, precision)
    total = torch.einsum("bhwd,bhw->bd", cells, strengths)
    return total / (total.norm(dim=1, keepdim=True) + NORM_FLOOR)


def pooled_vector(network: LocalNetwork, pixels: torch.Tensor, precision: str = "fp32") -> torch.Tensor:
    """What a classifier sees of each image, [B, D].

    Learned attention: the mean over the positions of attention times descriptor, of unit length where the reduction
    comes afterwards (DELF, Noh et al., ICCV 2017). Attention by the norm: the mean weighted by it, since norms have no
    scale of their own.
    """
    cells, strengths = _trained(network, pixels, precision)
    if network.options.reduction == "post":
        cells = unit_length(cells)
    total = torch.einsum("bhwd,bhw->bd", cells, strengths)
    if network.options.attention == "learned":
        return total / strengths[0].numel()
    return total / strengths.sum((1, 2))[:, None]


def _trained(network: LocalNetwork, pixels: torch.Tensor, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells [B, h, w, D] before a reduction that comes after training, and strengths [B, h, w]."""
    with automatic_precision(pixels.device, precision):
        found, strengths = network.maps(pixels)
    cells = found.float().movedim(1, -1)
    return cells if network.options.reduction == "post" else network.reduce(cells), strengths.float()
