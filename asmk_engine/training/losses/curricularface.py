"""CurricularFace: ArcFace whose hard classes count more as the training proceeds.

Source: Huang et al., CVPR 2020, and its code for what happens at large angles.
"""

from __future__ import annotations

import torch
from torch import nn

from asmk_engine.training.losses.cross_entropy import smoothed_cross_entropy
from asmk_engine.training.losses.heads import ClassHead, Gather, turned, with_margin

RATE = 0.01


class Curriculum(nn.Module):
    """The moving average t of the cosines of the right class, and the cosines that follow from it.

    A class is hard if its cosine exceeds cos(θ + m) of the right one; it then becomes cos θ (t + cos θ).

    margin  m, in radians
    rate    weight of a step in the average; the paper calls 1 − rate α
    """

    t: torch.Tensor

    def __init__(self, margin: float, rate: float = RATE) -> None:
        super().__init__()
        self.margin, self.rate = margin, rate
        self.register_buffer("t", torch.zeros(1))

    def forward(
        self, targets: torch.Tensor, others: torch.Tensor, gather: Gather | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the cosines of the right class with margin, [B, 1], and those of all others, [B, C].

        While training, t moves first, by the mean of the targets of all processes, as in the code.
        """
        if self.training:
            self._move(targets.detach(), gather)
        hard = others > turned(targets, self.margin)
        return with_margin(targets, self.margin), torch.where(hard, others * (self.t + others), others)

    def _move(self, targets: torch.Tensor, gather: Gather | None) -> None:
        seen = torch.stack([targets.sum(), targets.new_tensor(float(len(targets)))])[None]
        total, count = (seen if gather is None else gather(seen)).sum(0)
        if count > 0:
            self.t.lerp_((total / count).to(self.t.dtype), self.rate)


class CurricularFace(ClassHead):
    """Cross-entropy of γ times the cosines of a `Curriculum`.

    scale   γ; DOLG and CVNet have 30
    margin  m, in radians
    """

    separable = False  # t depends on the whole step

    def __init__(self, dim: int, classes: int, scale: float, margin: float, smoothing: float = 0.0) -> None:
        super().__init__(dim, classes, smoothing)
        self.scale = scale
        self.curriculum = Curriculum(margin)

    def forward(self, vectors: torch.Tensor, labels: torch.Tensor, gather: Gather | None = None) -> torch.Tensor:
        """Return the loss of each vector, [B]; moves t while training."""
        cosines = self.cosines(vectors)
        targets, others = self.curriculum(cosines.gather(1, labels[:, None]), cosines, gather)
        return smoothed_cross_entropy(self.scale * others.scatter(1, labels[:, None], targets), labels, self.smoothing)
