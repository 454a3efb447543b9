"""What the losses by classification have in common: a weight vector for each class, and the margin of an angle."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

Gather = Callable[[torch.Tensor], torch.Tensor]
"""Joins the values of all processes of a training, [b, …] to [B, …], without gradients; None where there is one."""

SINE_FLOOR = 1e-12  # of 1 − cos²: the derivative of the sine is infinite at an angle of 0


class ClassHead(nn.Module):
    """A loss by classification; `forward(vectors, labels, gather)` returns the loss of each vector.

    weight     [C, D]
    smoothing  of the labels
    separable  whether the loss of a vector is independent of the others in its step
    """

    separable = True

    def __init__(self, dim: int, classes: int, smoothing: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, dim))
        self.smoothing = smoothing
        nn.init.normal_(self.weight, std=0.01)

    def cosines(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the cosines [B, C] of vectors [B, D] and classes."""
        return functional.linear(functional.normalize(vectors), functional.normalize(self.weight)).clamp(-1, 1)


def with_margin(cosines: torch.Tensor, margin: float) -> torch.Tensor:
    """Return cos(θ + m) of cosines cos θ.

    Beyond θ = π − m, where that would rise again: cos θ − m sin m, as in the code of ArcFace; DELG's has cos θ there.
    """
    return torch.where(cosines > -math.cos(margin), turned(cosines, margin), cosines - margin * math.sin(margin))


def turned(cosines: torch.Tensor, margin: float) -> torch.Tensor:
    """Return cos θ cos m − sin θ sin m of cosines cos θ."""
    sines = (1 - cosines.square()).clamp(min=SINE_FLOOR).sqrt()
    return cosines * math.cos(margin) - sines * math.sin(margin)
