"""The listwise loss: one minus the average precision of every image of a step among all of them."""

from __future__ import annotations

import torch

BINS = 25
POSITIVES_FLOOR = 1e-16


def average_precision_loss(vectors: torch.Tensor, labels: torch.Tensor, bins: int = BINS) -> torch.Tensor:
    """Return 1 − AP of each image among all images of the step, itself included, [B].

    vectors  [B, D] of unit length
    labels   [B]
    bins     M, the number of values to which similarities are quantised, from 1 down to 0 at distances Δ = 1 / (M − 1)

    An image counts in bin b with max(0, 1 − |s − b| / Δ); similarities below 0 count as 0. AP = Σ P(b) · r(b), with the
    precision P(b) of all bins down to b and the part r(b) of the positives in b. Source: Revaud et al., ICCV 2019; its
    code, unlike the paper, has bins from 0.
    """
    similarities = (vectors @ vectors.T).clamp(0, 1)
    matches = (labels[:, None] == labels[None]).to(vectors.dtype)
    centres = torch.linspace(1, 0, bins, dtype=vectors.dtype, device=vectors.device)
    shares = (1 - (similarities[:, None] - centres[:, None]).abs() * (bins - 1)).clamp(min=0)  # [B, M, B]
    found, positives = shares.sum(2), (shares * matches[:, None]).sum(2)
    precisions = positives.cumsum(1) / found.cumsum(1).clamp(min=POSITIVES_FLOOR)
    return 1 - (precisions * positives).sum(1) / positives.sum(1)
