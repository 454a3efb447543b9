"""The second-order similarity loss: anchor and positive are to be equally far from every negative."""

from __future__ import annotations

import torch

SQUARE_FLOOR = 1e-12  # below it the root of the sum has no useful derivative


def second_order(anchor: torch.Tensor, positive: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """Return √Σ (d²(a, n) − d²(p, n))² over the negatives, with squared distances d².

    anchor, positive  a and p, [D]
    negatives         n, [m, D]

    Source: Ng et al., SOLAR, ECCV 2020, §3.3, after Tian et al., SOSNet, CVPR 2019; 0, and no gradient, below 1e-6.
    """
    differences = (anchor - negatives).square().sum(1) - (positive - negatives).square().sum(1)
    total = differences.square().sum()
    return torch.where(total > SQUARE_FLOOR, total.clamp(min=SQUARE_FLOOR).sqrt(), torch.zeros_like(total))
