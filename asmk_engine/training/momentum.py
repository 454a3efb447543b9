"""Training of CVNet's global network: classification, and contrast with a queue of a momentum network's descriptors.

Source: Lee et al., CVPR 2022, §3, after He et al., MoCo, CVPR 2020: batches are shuffled over the processes, or the
parts of a step, before the momentum network sees them, so that statistics of batch normalisation do not tell which
images belong together.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from asmk_engine.iteration import Display
from asmk_engine.training.batch_options import BatchOptions
from asmk_engine.training.batches import BatchTask, vector_dim
from asmk_engine.training.class_sampling import with_positives
from asmk_engine.training.global_trainee import GlobalTrainee
from asmk_engine.training.instances import Instances
from asmk_engine.training.losses.momentum import DescriptorQueue, MomentumContrast
from asmk_engine.training.processes import Processes
from asmk_engine.training.task import EpochPlan, StepBatch, StepPart

SHUFFLE = 1  # tells the seed of the shuffle from those of the epochs


class MomentumTask(BatchTask):
    """Training with a momentum network; see `task.TrainingTask`. An item is an image and another one of its class."""

    def __init__(
        self, trainee: GlobalTrainee, data: Instances, options: BatchOptions, processes: Processes | None = None
    ) -> None:
        super().__init__(trainee, data, options, processes)
        device = next(trainee.network.parameters()).device
        self._network = copy.deepcopy(trainee.network).requires_grad_(False)
        self._queue = DescriptorQueue(options.contrast.queue, vector_dim(trainee)).to(device)
        self._contrast = MomentumContrast(options.scale, options.margin).to(device)
        added = {"momentum": self._network, "queue": self._queue, "contrast": self._contrast}
        self.trained = nn.ModuleDict({**dict(self.trained.named_children()), **added})

    @property
    def _is_separable(self) -> bool:
        return False

    def plan(self, epoch: int, reporter: Display) -> EpochPlan:
        """Return the images of an epoch, each with another one of its class, [n, 2]."""
        items = self._drawn(epoch)
        pairs = with_positives(items, self._members, self._labels, [self._options.seed, epoch, SHUFFLE])
        return EpochPlan(pairs, {"classes": len(np.unique(self._labels[items]))})

    def parts(self, batch: StepBatch) -> Iterator[StepPart]:
        """Push the positives into the queue, then yield the losses of the images."""
        keys = self._keys(batch)
        self._queue.push(keys, self._processes.gather(self._labels_of(batch)))
        return super().parts(batch)

    @torch.no_grad()
    def _keys(self, batch: StepBatch) -> torch.Tensor:
        """Return the descriptors [B, D] of the positives of all processes by the momentum network, in their order."""
        device = self._queue.labels.device
        pixels = torch.from_numpy(np.stack([loaded[1] for loaded in batch.photographs])).to(device)
        everyone = self._processes.gather(pixels)
        first = batch.number - self._processes.rank * len(batch.items)  # the same in all processes
        order = np.random.default_rng([self._options.seed, batch.epoch, first, SHUFFLE]).permutation(len(everyone))
        own = self._processes.share(range(len(everyone)))
        shuffled = everyone[torch.from_numpy(order[own.start : own.stop]).to(device)]
        self.trainee.set_mode(self._network, True)
        precision = self._options.precision
        found = [self.trainee.vectors(shuffled[one], precision, self._network) for one in self._pieces(len(shuffled))]
        keys = self._processes.gather(torch.cat(found))
        return torch.empty_like(keys).index_copy_(0, torch.from_numpy(order).to(device), keys)

    def _losses(self, vectors: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights = self._options.contrast
        classes, _ = super()._losses(vectors, labels)
        contrast = self._contrast(vectors, labels, self._queue, self._processes.gather)
        found = weights.classes * classes + weights.contrast * contrast
        return found, found.detach()

    @torch.no_grad()
    def end_step(self) -> None:
        """Move the momentum network towards the trained one."""
        rate = self._options.contrast.rate
        pairs = zip(self._network.parameters(), self.trainee.network.parameters(), strict=True)
        for kept, learned in pairs:
            kept.lerp_(learned, 1 - rate)
