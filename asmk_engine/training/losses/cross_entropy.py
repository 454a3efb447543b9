"""Cross-entropy over classes, with label smoothing, of a linear classifier."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.training.losses.heads import ClassHead, Gather


def smoothed_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Return −Σ q(c) log p(c) of each row, [B]; p is the softmax of the logits.

    logits     [B, C]
    labels     [B] int64
    smoothing  ε: q is (1 − ε) for the label, plus ε / C for every class (Szegedy et al., CVPR 2016, §7)
    """
    return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


class SoftmaxHead(ClassHead):
    """Cross-entropy of a linear classifier; vectors of unit length are multiplied by `scale` first.

    scale  γ; without it the softmax over unit vectors could hardly become certain
    """

    def __init__(self, dim: int, classes: int, scale: float = 1.0, smoothing: float = 0.0) -> None:
        super().__init__(dim, classes, smoothing)
        self.bias = nn.Parameter(torch.zeros(classes))
        self.scale = scale

    def forward(self, vectors: torch.Tensor, labels: torch.Tensor, gather: Gather | None = None) -> torch.Tensor:
        """Return the loss of each vector, [B]."""
        logits = functional.linear(self.scale * vectors, self.weight, self.bias)
        return smoothed_cross_entropy(logits, labels, self.smoothing)
