"""The options of trainings on batches of crops: by classes, listwise, or against a momentum network."""

from __future__ import annotations

from dataclasses import dataclass, field

from asmk_engine.errors import InputError
from asmk_engine.networks.devices import check_precision
from asmk_engine.training.crops import CropOptions
from asmk_engine.training.losses.average_precision import BINS

CLASS_LOSSES = ("arcface", "curricularface", "cross-entropy")
BATCH_LOSSES = (*CLASS_LOSSES, "ap", "momentum")
SAMPLINGS = ("images", "classes")


@dataclass(frozen=True)
class MomentumOptions:
    """The options of the loss `momentum`, by default CVNet's; raises InputError for values out of range.

    queue     number of descriptors that are kept
    rate      η, by which the momentum network keeps its parameters in each step
    classes   weight of the loss by classification
    contrast  weight of the loss against the queue
    """

    queue: int = 73728
    rate: float = 0.999
    classes: float = 0.5
    contrast: float = 0.5

    def __post_init__(self) -> None:
        if self.queue < 1 or not 0 <= self.rate < 1 or min(self.classes, self.contrast) < 0:
            raise InputError(
                f"queue is {self.queue}, rate {self.rate}, the weights {self.classes} and {self.contrast}; expected a "
                "queue of at least 1, a rate from 0 to below 1, and weights of at least 0"
            )


@dataclass(frozen=True)
class BatchOptions:
    """The options of a training on batches; raises InputError for values out of range.

    loss           name in `BATCH_LOSSES`
    batch_size     number of images per step, of all processes together
    micro_batch    number of images of a process that pass through the network at a time; 0 for all
    scale, margin  γ and m of the losses with a margin, m in radians
    smoothing      of the labels, ε
    bins           of the loss `ap`
    sampling       `images`: every image once in an epoch; `classes`: every class equally often
    per_class      of `classes`: number of images of one class after each other
    images         of `classes`: number of images of an epoch; 0 for as many as there are
    learning_rate  learning rate of the backbone at the beginning
    class_factor   learning rate of the classifier, as a factor
    max_side       images are decoded with a longer side of at most this many pixels, then cropped
    precision      precision of the backbone
    seed           seed of all random choices
    crop           how images are cropped
    contrast       of the loss `momentum`
    """

    loss: str = "arcface"
    batch_size: int = 64
    micro_batch: int = 0
    scale: float = 30.0
    margin: float = 0.15
    smoothing: float = 0.0
    bins: int = BINS
    sampling: str = "images"
    per_class: int = 4
    images: int = 0
    learning_rate: float = 0.01
    class_factor: float = 1.0
    max_side: int = 1024
    precision: str = "fp32"
    seed: int = 0
    crop: CropOptions = field(default_factory=CropOptions)
    contrast: MomentumOptions = field(default_factory=MomentumOptions)

    def __post_init__(self) -> None:
        check_precision(self.precision)
        for name, allowed in (("loss", BATCH_LOSSES), ("sampling", SAMPLINGS)):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}")
        if min(self.batch_size, self.per_class, self.max_side) < 1 or min(self.micro_batch, self.images, self.seed) < 0:
            raise InputError(
                "batch_size, per_class and max_side must be at least 1, micro_batch, images and seed at least 0"
            )
        if self.sampling == "classes" and self.batch_size % self.per_class:
            raise InputError(
                f"batch_size is {self.batch_size}, per_class {self.per_class}; a step has whole runs of a class, "
                "so give a multiple"
            )
        if min(self.scale, self.learning_rate, self.class_factor) <= 0 or self.bins < 2:
            raise InputError(
                f"scale is {self.scale}, learning_rate {self.learning_rate}, class_factor {self.class_factor}, bins "
                f"{self.bins}; expected more than 0, and at least 2 bins"
            )
        if not (0 <= self.margin < 1.5 and 0 <= self.smoothing < 1):
            raise InputError(
                f"margin is {self.margin}, smoothing {self.smoothing}; expected 0 to 1.5 radians, and 0 to below 1"
            )
