"""The cross-entropy of a positive and a negative pair, each in both orders (Lee et al., CVPR 2022, eq. 5 and 6)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

Levels = list[torch.Tensor]


def symmetric_pairs(logits: Callable[[Levels, Levels], torch.Tensor], levels: Levels) -> torch.Tensor:
    """Return the mean of the losses of (query, positive), (positive, query), (query, negative), (negative, query).

    logits  returns [B, 2], of no match and of a match, for the levels of B queries and of B keys
    levels  [3, D, h, w] each: of query, positive and negative
    """
    device = levels[0].device
    one, other = torch.tensor([0, 1, 0, 2], device=device), torch.tensor([1, 0, 2, 0], device=device)
    found = logits([level[one] for level in levels], [level[other] for level in levels])
    return functional.cross_entropy(found.float(), torch.tensor([1, 1, 0, 0], device=device))
