"""The momentum-contrastive loss of CVNet's global network: images against a queue of earlier descriptors.

Source: Lee et al., CVPR 2022, §3.2, after He et al., MoCo, CVPR 2020.
"""

from __future__ import annotations

import torch
from torch import nn

from asmk_engine.training.losses.curricularface import Curriculum
from asmk_engine.training.losses.heads import Gather

NO_LABEL = -1


class DescriptorQueue(nn.Module):
    """The last descriptors of the momentum network with their labels, oldest replaced first.

    vectors  [K, D]
    labels   [K] int64, -1 where there is none yet; MoCo begins with random vectors instead
    """

    vectors: torch.Tensor
    labels: torch.Tensor
    place: torch.Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(size, dim))
        self.register_buffer("labels", torch.full((size,), NO_LABEL))
        self.register_buffer("place", torch.zeros(1, dtype=torch.int64))

    @torch.no_grad()
    def push(self, vectors: torch.Tensor, labels: torch.Tensor) -> None:
        """Replace the oldest descriptors by vectors [b, D] with labels [b], of which the last K are kept."""
        size = len(self.labels)
        vectors, labels = vectors[-size:], labels[-size:]
        places = (self.place + torch.arange(len(labels), device=self.labels.device)) % size
        self.vectors[places], self.labels[places] = vectors.to(self.vectors.dtype), labels
        self.place.copy_((self.place + len(labels)) % size)


class MomentumContrast(nn.Module):
    """The contrastive loss of vectors against a queue, with the margin of a `Curriculum` of its own.

    The loss of q is the mean over its positives p in the queue of −log e(p) / (e(p) + Σ e(n)), with the negatives n of
    the queue and e(x) = exp(γ C(q · x)). It is 0 for a vector without positives.

    scale   γ = 1 / τ
    margin  m, in radians
    """

    def __init__(self, scale: float, margin: float) -> None:
        super().__init__()
        self.scale = scale
        self.curriculum = Curriculum(margin)

    def forward(
        self, vectors: torch.Tensor, labels: torch.Tensor, queue: DescriptorQueue, gather: Gather | None = None
    ) -> torch.Tensor:
        """Return the loss of each vector, [B], of unit vectors [B, D]; moves t while training."""
        cosines = (vectors @ queue.vectors.to(vectors.dtype).T).clamp(-1, 1)
        same = labels[:, None] == queue.labels[None]
        rows, places = same.nonzero(as_tuple=True)
        targets, others = self.curriculum(cosines[rows, places][:, None], cosines[rows], gather)
        negatives = ~same[rows] & (queue.labels != NO_LABEL)
        logits = torch.cat([targets, others.masked_fill(~negatives, -torch.inf)], 1) * self.scale
        losses = torch.logsumexp(logits, 1) - logits[:, 0]
        counts = same.sum(1).clamp(min=1)
        return torch.zeros_like(vectors[:, 0]).index_add(0, rows, losses / counts[rows])
