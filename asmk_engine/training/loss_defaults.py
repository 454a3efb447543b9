"""What each loss of `train-global` is used with where nothing else is given, from the papers that used it."""

from __future__ import annotations

from dataclasses import dataclass

from asmk_engine.training.batch_options import BATCH_LOSSES
from asmk_engine.training.contrastive import TUPLE_LOSSES


@dataclass(frozen=True)
class LossDefaults:
    """The options that go with a loss.

    batch            number of tuples or images per step
    learning_rate    of the backbone at the beginning
    margin           of the loss
    optimizer, schedule, weight_decay, epochs  of the loop
    exponent_factor  of the learning rate of GeM's exponents
    batch_norm       statistics of batch normalisation: `frozen` or `batch`
    sampling         of the images of an epoch
    source           the paper or code that has these values
    """

    batch: int
    learning_rate: float
    margin: float
    optimizer: str
    schedule: str
    weight_decay: float
    epochs: int
    exponent_factor: float
    batch_norm: str
    sampling: str
    source: str


def _tuples(margin: float, learning_rate: float, source: str) -> LossDefaults:
    return LossDefaults(5, learning_rate, margin, "adam", "exponential", 1e-6, 100, 10.0, "frozen", "images", source)


def _classes(learning_rate: float, epochs: int, source: str, batch: int = 64) -> LossDefaults:
    return LossDefaults(batch, learning_rate, 0.15, "sgd", "cosine", 1e-4, epochs, 1.0, "batch", "images", source)


DEFAULTS: dict[str, LossDefaults] = {
    "contrastive": _tuples(0.85, 5e-7, "GeM: Radenović, Tolias and Chum, TPAMI 2018, and its code"),
    "triplet": _tuples(0.5, 1e-6, "the code of GeM, with distances that are not squared"),
    "triplet-squared": _tuples(0.5, 1e-6, "the code of GeM with a whitening layer"),
    "arcface": _classes(0.01, 100, "DPLG and DOLG; DELG has a margin of 0.1"),
    "curricularface": _classes(0.01, 100, "DOLG: Yang et al., ICCV 2021, and its code"),
    "cross-entropy": _classes(0.01, 100, "as the losses with a margin"),
    "ap": LossDefaults(
        64, 1e-4, 0.0, "adam", "linear", 1e-3, 20, 1.0, "frozen", "classes", "GeM-AP: Revaud et al., ICCV 2019"
    ),
    "momentum": _classes(0.005625, 25, "CVNet: Lee et al., CVPR 2022", batch=144),
}
"""The defaults by the name of the loss."""

LOSSES = (*TUPLE_LOSSES, *BATCH_LOSSES)
