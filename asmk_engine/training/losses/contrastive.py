"""The contrastive loss of a tuple of an anchor, images that match it and images that do not."""

from __future__ import annotations

import torch

DIFFERENCE_FLOOR = 1e-6  # added to every difference, as in the published code, to keep the root differentiable


def contrastive(anchor: torch.Tensor, others: torch.Tensor, matches: torch.Tensor, margin: float) -> torch.Tensor:
    """Return the contrastive loss, ½ y D² + ½ (1 − y) max(0, µ − D)² summed over the pairs of a tuple.

    anchor   a, [D]
    others   b, [n, D]; D² = Σ (a − b + 1e-6)²
    matches  [n] bool: y is 1 for those that match the anchor
    margin   µ

    Source: the code of Radenović et al. (PAMI 2018), which HOW uses; the papers have no ½.
    """
    distances = euclidean(anchor, others)
    pulled = distances.square()
    pushed = (margin - distances).clamp(min=0).square()
    return 0.5 * torch.where(matches, pulled, pushed).sum()


def euclidean(anchor: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the distances [n] between a vector [D] and others [n, D], differentiable where they are equal."""
    return (anchor - others + DIFFERENCE_FLOOR).square().sum(1).sqrt()
