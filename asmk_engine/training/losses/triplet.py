"""The triplet loss of a tuple of an anchor, a positive and negatives."""

from __future__ import annotations

import torch

from asmk_engine.training.losses.contrastive import euclidean


def triplet(
    anchor: torch.Tensor, positive: torch.Tensor, negatives: torch.Tensor, margin: float, *, squared: bool
) -> torch.Tensor:
    """Return Σ max(0, d(a, p) − d(a, n) + µ) over the negatives.

    anchor, positive  a and p, [D]
    negatives         n, [m, D]
    margin            µ
    squared           whether d is the squared distance, as in the code of Radenović et al. and in SOLAR, or the
                      distance, with 1e-6 added to every difference
    """
    if squared:
        near, far = (anchor - positive).square().sum(), (anchor - negatives).square().sum(1)
    else:
        near, far = euclidean(anchor, positive[None]), euclidean(anchor, negatives)
    return (near - far + margin).clamp(min=0).sum()
