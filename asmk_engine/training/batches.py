"""Training of global networks on batches of crops: by classification, or by the average precision within a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from asmk_engine.errors import InputError
from asmk_engine.images.listing import ImageFile
from asmk_engine.iteration import Display
from asmk_engine.training.batch_options import BatchOptions
from asmk_engine.training.class_sampling import by_class, every_image
from asmk_engine.training.crops import random_crop
from asmk_engine.training.global_trainee import GlobalTrainee
from asmk_engine.training.instances import NONE, Instances
from asmk_engine.training.losses.arcface import ArcFace
from asmk_engine.training.losses.average_precision import average_precision_loss
from asmk_engine.training.losses.cross_entropy import SoftmaxHead
from asmk_engine.training.losses.curricularface import CurricularFace
from asmk_engine.training.losses.heads import ClassHead
from asmk_engine.training.photographs import load_pixels
from asmk_engine.training.processes import Processes
from asmk_engine.training.task import EpochPlan, ParameterGroup, StepBatch, StepPart


class BatchTask:
    """Training on batches of crops; see `task.TrainingTask`. Images without a class are left out.

    The gradient of a step is that of the mean loss of its images. If they do not pass through the network at once, a
    loss that needs all of them is computed from vectors without their graphs, and its gradient is then propagated
    through the network in a second pass, which costs half as much again and changes nothing else.
    """

    noun = "images"

    def __init__(
        self, trainee: GlobalTrainee, data: Instances, options: BatchOptions, processes: Processes | None = None
    ) -> None:
        check_classes(data, options)
        if options.crop.side < trainee.least_side:
            raise InputError(f"crops of {options.crop.side} pixels; the network needs {trainee.least_side} or more")
        self.trainee, self._data, self._options = trainee, data, options
        self._processes = processes or Processes()
        self._members = dict(enumerate(data.members().values()))
        self._labels = np.full(len(data), NONE)
        for label, images in self._members.items():
            self._labels[images] = label
        self._head = make_head(vector_dim(trainee), len(self._members), options)
        device = next(trainee.network.parameters()).device
        modules = {"network": trainee.network, **({"classes": self._head} if self._head else {})}
        self.trained: nn.Module = nn.ModuleDict(modules).to(device)
        self.images: Sequence[ImageFile] = data.images
        self.max_side = options.max_side

    @property
    def least_side(self) -> int:
        """Shorter side of the smallest image that can be used: 1, since crops of it are enlarged."""
        return 1

    def groups(self) -> list[ParameterGroup]:
        """Return the parameters of network and classifier, each with its learning rate."""
        options = self._options
        found = self.trainee.groups(options.learning_rate)
        if self._head is not None:
            found.append(ParameterGroup(list(self._head.parameters()), options.learning_rate * options.class_factor))
        return found

    def described(self) -> dict[str, Any]:
        """Return the options and the fingerprint of the data; nothing of how a step is divided."""
        options = asdict(self._options)
        del options["micro_batch"]
        return {**self.trainee.described(), **options, "data": self._data.fingerprint}

    def plan(self, epoch: int, reporter: Display) -> EpochPlan:
        """Return the images of an epoch in whole steps, [n, 1]."""
        items = self._drawn(epoch)
        return EpochPlan(items[:, None], {"classes": len(np.unique(self._labels[items]))})

    def _drawn(self, epoch: int) -> np.ndarray:
        options, rng = self._options, np.random.default_rng([self._options.seed, epoch])
        if options.sampling == "images":
            items = every_image(self._members, rng)
        else:
            count = options.images or int((self._labels != NONE).sum())
            items = by_class(self._members, max(count, options.batch_size), options.per_class, rng)
        return items[: len(items) // options.batch_size * options.batch_size]

    def load(self, epoch: int, number: int, item: np.ndarray) -> list[np.ndarray]:
        """Return a random crop of each image of the item."""
        seeds = [[self._options.seed, epoch, number, which] for which in range(len(item))]
        return [self._crop(int(image), seed) for image, seed in zip(item, seeds, strict=True)]

    def _crop(self, image: int, seed: list[int]) -> np.ndarray:
        pixels = load_pixels(self.images[image], self.max_side)
        return random_crop(pixels, np.random.default_rng(seed), self._options.crop)

    def parts(self, batch: StepBatch) -> Iterator[StepPart]:
        """Yield the loss of the images, in parts that pass through the network together."""
        labels = self._labels_of(batch)
        pieces = self._pieces(len(batch.items))
        if len(pieces) > 1 and not self._is_separable:
            yield from self._in_two_passes(batch, labels, pieces)
            return
        for piece in pieces:
            losses, own = self._losses(self._vectors(batch, piece), labels[piece])
            yield StepPart(losses.sum() / batch.total, own)

    def _in_two_passes(self, batch: StepBatch, labels: torch.Tensor, pieces: list[slice]) -> Iterator[StepPart]:
        with torch.no_grad():
            vectors = torch.cat([self._vectors(batch, piece) for piece in pieces])
        losses, own = self._losses(vectors.requires_grad_(), labels)
        mean = losses.sum() / batch.total
        [gradient] = torch.autograd.grad(mean, vectors, retain_graph=True)
        yield StepPart(mean, own)  # for the parameters of the loss
        for piece in pieces:
            again = self._vectors(batch, piece)
            yield StepPart((again * gradient[piece]).sum(), own[:0])

    def _pieces(self, count: int) -> list[slice]:
        size = self._options.micro_batch or count
        return [slice(begin, min(begin + size, count)) for begin in range(0, count, size)]

    @property
    def _is_separable(self) -> bool:
        return self._head is not None and self._head.separable

    def _labels_of(self, batch: StepBatch) -> torch.Tensor:
        device = next(self.trained.parameters()).device
        return torch.tensor([int(self._labels[item[0]]) for item in batch.items], device=device)

    def _vectors(self, batch: StepBatch, piece: slice) -> torch.Tensor:
        """Return the vectors of some images of a step; what a network draws at random is the same in both passes."""
        with self._seeded(batch, piece):
            return self.trainee.vectors(self._pixels(batch, piece), self._options.precision)

    def _pixels(self, batch: StepBatch, piece: slice) -> torch.Tensor:
        return torch.from_numpy(np.stack([loaded[0] for loaded in batch.photographs[piece]]))

    @contextmanager
    def _seeded(self, batch: StepBatch, piece: slice) -> Iterator[None]:
        """Let torch draw the same numbers whenever these images are described."""
        device = next(self.trained.parameters()).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            seeds = [self._options.seed, batch.epoch, batch.number + piece.start]
            torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
            yield

    def _losses(self, vectors: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return losses whose sum has the gradient for this process, and those of its own images for the log."""
        if self._head is not None:
            found: torch.Tensor = self._head(vectors, labels, self._processes.gather)
            return found, found.detach()
        joint, begin = self._joined(vectors)
        losses = average_precision_loss(joint, self._processes.gather(labels), self._options.bins)
        return losses, losses.detach()[begin : begin + len(vectors)]

    def _joined(self, vectors: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Return the vectors of all processes, those of this one differentiable, and where they begin."""
        everyone, begin = self._processes.gather(vectors), self._processes.rank * len(vectors)
        return torch.cat([everyone[:begin], vectors, everyone[begin + len(vectors) :]]), begin

    def end_step(self) -> None:
        """Do nothing."""


def vector_dim(trainee: GlobalTrainee) -> int:
    """Return the number of dimensions of the vectors of a network, which has no projection."""
    return int(trainee.network.dim)


def make_head(dim: int, classes: int, options: BatchOptions) -> ClassHead | None:
    """Return the classifier of a loss, drawn at random from the seed; None for the loss `ap`."""
    if options.loss == "ap":
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        if options.loss == "cross-entropy":
            return SoftmaxHead(dim, classes, options.scale, options.smoothing)
        kind = ArcFace if options.loss == "arcface" else CurricularFace  # also of `momentum`
        return kind(dim, classes, options.scale, options.margin, options.smoothing)


def check_classes(data: Instances, options: BatchOptions) -> None:
    """Raise InputError if the data have too few classes or images for a step."""
    labelled = int((data.instances != NONE).sum())
    if data.count < 2:
        raise InputError(f"{data.count} classes; training needs at least two: give more labelled images")
    if options.sampling == "images" and labelled < options.batch_size:
        raise InputError(
            f"{labelled} images of a class, fewer than the {options.batch_size} of a step; lower --batch, or take "
            "--sampling classes"
        )
