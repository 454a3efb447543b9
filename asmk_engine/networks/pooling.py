"""From a map to one vector: MAC, SPoC, GeM, R-MAC and CroW, as functions of maps [B, C, h, w].

The maps are non-negative, as every backbone leaves them. What is returned is not of unit length, unless that is said.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import torch

NORM_FLOOR = 1e-6  # added to a norm before dividing by it, as in the code of the GeM family
VALUE_FLOOR = 1e-6  # least value that GeM raises to its power
LEVELS = 3  # of regions
OVERLAP = Fraction(2, 5)  # wished between neighbouring regions
STEPS = range(2, 8)  # how many regions along the longer side may come in question

Region = tuple[int, int, int]
"""First row, first column, and side of a square of locations."""
Pool = Callable[[torch.Tensor], torch.Tensor]
"""From maps [B, C, h, w] to vectors [B, C]."""


def over_norm(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors [..., D] over their norm plus 1e-6; one of zeros stays zero."""
    return vectors / (vectors.norm(dim=-1, keepdim=True) + NORM_FLOOR)


def mac(maps: torch.Tensor) -> torch.Tensor:
    """The greatest value of each channel, [B, C]. Source: Tolias, Sicre and Jégou, ICLR 2016, §3.1."""
    return maps.amax((-2, -1))


def spoc(maps: torch.Tensor) -> torch.Tensor:
    """The average of each channel, [B, C], without the prior for the centre.

    Source: Babenko and Lempitsky, ICCV 2015, whose sum is the same at unit length.
    """
    return maps.mean((-2, -1))


def gem(maps: torch.Tensor, exponent: torch.Tensor | float = 3.0) -> torch.Tensor:
    """Generalised mean (mean of max(x, 1e-6)^p)^(1/p) of each channel, [B, C]; p = 1 is SPoC, p → ∞ is MAC.

    exponent  p, greater than 0: a number, or a tensor [1] or [C]; gradients flow to it
    Source: Radenović, Tolias and Chum, TPAMI 2018, eq. 3.
    """
    power = torch.as_tensor(exponent, dtype=maps.dtype, device=maps.device)
    values = maps.clamp(min=VALUE_FLOOR)
    greatest = values.detach().amax((-2, -1), keepdim=True)  # taken out before the power, which would overflow
    mean = ((values / greatest) ** power.reshape(-1, 1, 1)).mean((-2, -1)) ** (1 / power)
    return mean * greatest[..., 0, 0]


def crow(maps: torch.Tensor) -> torch.Tensor:
    """Sum over positions of each channel, weighted by position and by channel, [B, C].

    A position weighs sqrt(S / |S|), S being the sum of its channels; a channel weighs log(Σ q / q), q being the share
    of positions where it is above 0, and nothing where q is 0.
    Source: Kalantidis, Mellina and Osindero, ECCV 2016 workshops, §3, with a = b = 2.
    """
    scores = maps.sum(1, keepdim=True)
    norms = scores.square().sum((-2, -1), keepdim=True).sqrt()
    places = (scores / norms.clamp(min=torch.finfo(maps.dtype).tiny)).sqrt()
    shares = (maps > 0).to(maps.dtype).mean((-2, -1))
    ratios = shares.sum(1, keepdim=True) / shares.clamp(min=torch.finfo(maps.dtype).tiny)
    weights = torch.where(shares > 0, ratios.clamp(min=1).log(), 0.0)
    return (maps * places).sum((-2, -1)) * weights


def regions(height: int, width: int) -> list[Region]:
    """The squares of R-MAC in a map, without the whole map: levels 1 to 3, row by row; squares may repeat.

    At level l a side is floor(2 · shorter / (l + 1)) locations; l of them lie along the shorter side, some more along the
    longer one, evenly apart. Where two numbers of squares come equally near to an overlap of 40 %, the smaller counts.
    Source: Tolias, Sicre and Jégou, ICLR 2016, §3.2, as in the code of the GeM family; places are floors of exact
    fractions.
    """
    shorter = min(height, width)
    more_rows, more_columns = _more_along(height, width), _more_along(width, height)
    found: list[Region] = []
    for level in range(1, LEVELS + 1):
        side = 2 * shorter // (level + 1)
        if side:
            rows, columns = _starts(height, side, level + more_rows), _starts(width, side, level + more_columns)
            found += [(row, column, side) for row in rows for column in columns]
    return found


def _more_along(this: int, other: int) -> int:
    """How many squares more lie along this side than the level says: 0 unless it is the longer one."""
    if this <= other:
        return 0
    overlaps = [1 - Fraction(this - other, other * (steps - 1)) for steps in STEPS]
    distances = [abs(overlap - OVERLAP) for overlap in overlaps]
    return distances.index(min(distances)) + 1


def _starts(length: int, side: int, count: int) -> list[int]:
    return [0] if count == 1 else [number * (length - side) // (count - 1) for number in range(count)]


def regional_vectors(maps: torch.Tensor, pool: Pool = mac) -> torch.Tensor:
    """The pooled whole map and every square of `regions`, each over its norm: [B, 1 + R, C]."""
    height, width = maps.shape[-2:]
    parts = [maps, *(maps[..., y : y + side, x : x + side] for y, x, side in regions(height, width))]
    return over_norm(torch.stack([pool(part) for part in parts], 1))


def rmac(maps: torch.Tensor) -> torch.Tensor:
    """The sum of the maxima of the whole map and of its squares, each over its norm, [B, C]; see `regions`."""
    return regional_vectors(maps).sum(1)
