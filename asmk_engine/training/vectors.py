"""The vectors of local networks from which losses are computed."""

from __future__ import annotations

import torch

from asmk_engine.networks.devices import automatic_precision
from asmk_engine.networks.local import LocalNetwork, unit_length
from asmk_engine.networks.pooling import NORM_FLOOR


def global_vector(network: LocalNetwork, pixels: torch.Tensor, precision: str = "fp32") -> torch.Tensor:
    """Return global descriptors [B, D] at one scale, before a reduction learned after training; sums are in float32.

    pixels     [B, 3, H, W], normalised
    precision  precision of the convolutions of backbone and attention

    Source: HOW §3.3, the sum of score times descriptor, with the constant of its code: v / (|v| + 1e-6).
    """
    locations, scores = _trained(network, pixels, precision)
    total = torch.einsum("bhwd,bhw->bd", locations, scores)
    return total / (total.norm(dim=1, keepdim=True) + NORM_FLOOR)


def pooled_vector(network: LocalNetwork, pixels: torch.Tensor, precision: str = "fp32") -> torch.Tensor:
    """Return the input of the classifier for each image, [B, D].

    Learned attention: the mean over the locations of attention times descriptor, normalised first if the reduction is
    learned after training (DELF, Noh et al., ICCV 2017). Norm attention: the mean weighted by the norms, because their
    scale is arbitrary.
    """
    locations, scores = _trained(network, pixels, precision)
    if network.options.is_reduced_afterwards:
        locations = unit_length(locations)
    total = torch.einsum("bhwd,bhw->bd", locations, scores)
    if network.options.attention == "learned":
        return total / scores[0].numel()
    return total / scores.sum((1, 2))[:, None]


def _trained(network: LocalNetwork, pixels: torch.Tensor, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return locations [B, h, w, D] before a reduction learned after training, and scores [B, h, w]."""
    with automatic_precision(pixels.device, precision):
        found, scores = network.maps(pixels)
    locations = found.float().movedim(1, -1)
    return locations if network.options.is_reduced_afterwards else network.reduce(locations), scores.float()
