"""The cosine correlations between all levels of two pyramids, brought to the sides of the largest levels.

    C[s, t](p, q) = max(0, interpolated cosine of level s of the query at p and of level t of the key at q)

The official code interpolates the cosines of each pair of levels on both sides, and then drops the negative ones; the
paper drops them first. Interpolation is linear on each side, so that the cosines of interpolated unit vectors are the
same numbers. Here the unit vectors are interpolated, once for each image: every part of the correlation is then one
product of matrices, and the whole of it, 600 MB at 1024 pixels, is never needed at once.
Source: Lee et al., CVPR 2022, section 4.1, equation 4, and the official code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from asmk_engine.networks.reranking.pyramid import resized

SMALLEST_NORM = 1e-8


def unit_levels(levels: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the unit vectors of each level, interpolated to the sides of the last one, [B, S, D, H, W].

    levels  [B, D, h, w] each, the last one the largest; zero vectors remain zero
    """
    sides = (levels[-1].shape[-2], levels[-1].shape[-1])
    units = [one / (one.norm(dim=1, keepdim=True) + SMALLEST_NORM) for one in levels]
    return torch.stack([resized(one, sides) for one in units], 1)


def correlated(places: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Return the correlations of some places of one image with all places of the other, as maps of the other.

    places  unit vectors [B, S, D, n] of n places
    whole   unit vectors [B, T, D, H, W] of the other image

    Returns [B n, S T, H, W], the levels of `places` major. Either B may be 1 and is then that of the other image.
    """
    levels, dim, count = places.shape[1:]
    others, _, height, width = whole.shape[1:]
    left = places.permute(0, 3, 1, 2).reshape(-1, count * levels, dim)
    right = whole.permute(0, 2, 1, 3, 4).reshape(-1, dim, others * height * width)
    found = torch.matmul(left, right)
    clamped = found.clamp(min=0) if found.requires_grad else found.clamp_(min=0)
    return clamped.reshape(-1, levels * others, height, width)
