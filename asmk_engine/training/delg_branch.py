"""Training of DELG: classification by the global vector, and of the local branch, whose reconstruction is compared.

Source: Cao, Araujo and Sim, ECCV 2020, §3.3, and the weights of its code.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.training.batch_options import BatchOptions
from asmk_engine.training.batches import BatchTask
from asmk_engine.training.global_trainee import GlobalTrainee
from asmk_engine.training.instances import Instances
from asmk_engine.training.losses.cross_entropy import SoftmaxHead
from asmk_engine.training.processes import Processes
from asmk_engine.training.task import ParameterGroup, StepBatch, StepPart

ATTENTION_WEIGHT, RECONSTRUCTION_WEIGHT = 1.0, 10.0


class DelgTask(BatchTask):
    """Training by classification that adds the two losses of the local branch; see `task.TrainingTask`.

    Cross-entropy of the attended vector has weight 1, the mean squared error of the reconstructed map 4 weight 10.
    """

    def __init__(
        self, trainee: GlobalTrainee, data: Instances, options: BatchOptions, processes: Processes | None = None
    ) -> None:
        super().__init__(trainee, data, options, processes)
        device = next(trainee.network.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            channels = trainee.network.backbone.early_channels
            self._attention = SoftmaxHead(channels, len(self._members)).to(device)
        self.trained = nn.ModuleDict({**dict(self.trained.named_children()), "attention": self._attention})

    def groups(self) -> list[ParameterGroup]:
        """Return the parameters of network and both classifiers, each with its learning rate."""
        options = self._options
        rate = options.learning_rate * options.class_factor
        return [*super().groups(), ParameterGroup(list(self._attention.parameters()), rate)]

    def parts(self, batch: StepBatch) -> Iterator[StepPart]:
        """Yield the sum of the three losses of the images, in parts that pass through the network together."""
        labels = self._labels_of(batch)
        for piece in self._pieces(len(batch.items)):
            with self._seeded(batch, piece):
                vectors, map4 = self.trainee.vectors_and_map(self._pixels(batch, piece), self._options.precision)
            losses = self._losses(vectors, labels[piece])[0] + self._branch_losses(map4, labels[piece])
            yield StepPart(losses.sum() / batch.total, losses.detach())

    def _branch_losses(self, map4: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        local = self.trainee.network.head.local(map4)  # type: ignore[union-attr, operator]
        errors = functional.mse_loss(local.reconstruction, map4.detach(), reduction="none").mean((1, 2, 3))
        return ATTENTION_WEIGHT * self._attention(local.attended, labels) + RECONSTRUCTION_WEIGHT * errors
