"""ArcFace: cross-entropy of scaled cosines, with a margin added to the angle of the right class."""

from __future__ import annotations

import torch

from asmk_engine.training.losses.cross_entropy import smoothed_cross_entropy
from asmk_engine.training.losses.heads import ClassHead, Gather, with_margin


class ArcFace(ClassHead):
    """Cross-entropy of γ cos θ, of the right class γ cos(θ + m).

    scale   γ; DELG has √D, S003 30
    margin  m, in radians

    Source: Deng et al., CVPR 2019; see `with_margin` for large angles.
    """

    def __init__(self, dim: int, classes: int, scale: float, margin: float, smoothing: float = 0.0) -> None:
        super().__init__(dim, classes, smoothing)
        self.scale, self.margin = scale, margin

    def forward(self, vectors: torch.Tensor, labels: torch.Tensor, gather: Gather | None = None) -> torch.Tensor:
        """Return the loss of each vector, [B]."""
        cosines = self.cosines(vectors)
        targets = with_margin(cosines.gather(1, labels[:, None]), self.margin)
        return smoothed_cross_entropy(self.scale * cosines.scatter(1, labels[:, None], targets), labels, self.smoothing)
