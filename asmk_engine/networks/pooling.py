"""Global poolings: MAC, SPoC, GeM, R-MAC and CroW, as functions of feature maps [B, C, h, w].

The maps must be non-negative, as every backbone makes them. Results do not have unit length unless stated.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from asmk_engine.regions.grid import regions as regions

NORM_FLOOR = 1e-6  # added to a norm before dividing by it, as in the code of the GeM family
VALUE_FLOOR = 1e-6  # least value that GeM raises to its power

Pool = Callable[[torch.Tensor], torch.Tensor]
"""A function from maps [B, C, h, w] to vectors [B, C]."""


def over_norm(vectors: torch.Tensor) -> torch.Tensor:
    """Divide vectors [..., D] by their norm plus 1e-6; a zero vector stays zero."""
    return vectors / (vectors.norm(dim=-1, keepdim=True) + NORM_FLOOR)


def mac(maps: torch.Tensor) -> torch.Tensor:
    """Return the maximum of each channel, [B, C]. Source: Tolias, Sicre and Jégou, ICLR 2016, §3.1."""
    return maps.amax((-2, -1))


def spoc(maps: torch.Tensor) -> torch.Tensor:
    """Return the average of each channel, [B, C], without the centre prior.

    Source: Babenko and Lempitsky, ICCV 2015, whose sum is the same after normalisation.
    """
    return maps.mean((-2, -1))


def gem(maps: torch.Tensor, exponent: torch.Tensor | float = 3.0) -> torch.Tensor:
    """Return the generalised mean (mean of max(x, 1e-6)^p)^(1/p) of each channel, [B, C]; p = 1 is SPoC, p → ∞ is MAC.

    exponent  p, greater than 0: a number, or a tensor [1] or [C], which receives gradients

    Source: Radenović, Tolias and Chum, TPAMI 2018, eq. 3.
    """
    power = torch.as_tensor(exponent, dtype=maps.dtype, device=maps.device)
    values = maps.clamp(min=VALUE_FLOOR)
    greatest = values.detach().amax((-2, -1), keepdim=True)  # factored out, since the power would overflow
    mean = ((values / greatest) ** power.reshape(-1, 1, 1)).mean((-2, -1)) ** (1 / power)
    return mean * greatest[..., 0, 0]


def crow(maps: torch.Tensor) -> torch.Tensor:
    """Return the sum of each channel over all locations, weighted by location and by channel, [B, C].

    The weight of a location is sqrt(S / |S|), where S is the sum of its channels; the weight of a channel is
    log(Σ q / q), where q is the share of locations with a value above 0, and 0 if q is 0.

    Source: Kalantidis, Mellina and Osindero, ECCV 2016 workshops, §3, with a = b = 2.
    """
    places = place_weights(maps).unsqueeze(1)
    shares = (maps > 0).to(maps.dtype).mean((-2, -1))
    ratios = shares.sum(1, keepdim=True) / shares.clamp(min=torch.finfo(maps.dtype).tiny)
    weights = torch.where(shares > 0, ratios.clamp(min=1).log(), 0.0)
    return (maps * places).sum((-2, -1)) * weights


def place_weights(maps: torch.Tensor) -> torch.Tensor:
    """Return the weights of the locations in `crow`, [B, h, w]."""
    scores = maps.sum(1)
    norms = scores.square().sum((-2, -1), keepdim=True).sqrt()
    return (scores / norms.clamp(min=torch.finfo(maps.dtype).tiny)).sqrt()


def regional_vectors(maps: torch.Tensor, pool: Pool = mac) -> torch.Tensor:
    """Pool the whole map and every square of `regions`, and normalise each: [B, 1 + R, C]."""
    height, width = maps.shape[-2:]
    parts = [maps, *(maps[..., y : y + side, x : x + side] for y, x, side in regions(height, width))]
    return over_norm(torch.stack([pool(part) for part in parts], 1))


def rmac(maps: torch.Tensor) -> torch.Tensor:
    """Return the sum of the normalised maxima of the whole map and its squares, [B, C]; see `regions`."""
    return regional_vectors(maps).sum(1)
