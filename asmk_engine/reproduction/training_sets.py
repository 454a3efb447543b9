"""The training images of published networks: their size, and where they are published; nothing is downloaded.

Source of the sizes: Song et al., CVPR 2024, Table 3; Noh et al., ICCV 2017, for the first Google Landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass

from asmk_engine.errors import DamagedError
from asmk_engine.reproduction.files import DATASETS


@dataclass(frozen=True)
class TrainingSet:
    """Training images.

    images, classes  how many, 0 where no number was published
    addresses        where they are published
    note             a remark, or empty
    """

    images: int
    classes: int
    addresses: tuple[str, ...]
    note: str = ""


def _addresses(dataset: str) -> tuple[str, ...]:
    return tuple(address for _, address in DATASETS[dataset].parts)


TRAINING_SETS = {
    "SfM-120k": TrainingSet(117_369, 713, _addresses("sfm120k")),
    "NC-clean": TrainingSet(
        27_965,
        581,
        ("http://sites.skoltech.ru/compvision/projects/neuralcodes/",),
        "a list of addresses of images, many of which are gone",
    ),
    "GLDv1": TrainingSet(
        0,
        14_951,
        ("https://www.kaggle.com/google/google-landmarks-dataset",),
        "a list of addresses of images, many of which are gone; called Landmarks 2018 or GL18 too",
    ),
    "GLDv2-clean": TrainingSet(1_580_470, 81_313, _addresses("gldv2")),
    "RGLDv2-clean": TrainingSet(
        1_578_905,
        81_295,
        (*_addresses("gldv2"), "https://github.com/dealicious-inc/RGLDv2-clean"),
        "GLDv2-clean without 18 landmarks, whose list was announced and is not in the repository",
    ),
}
"""All training sets that an experiment may name."""


def training_set_of(name: str) -> TrainingSet:
    """Return the training set of this name; raises DamagedError, since the name comes from an experiment."""
    if name not in TRAINING_SETS:
        raise DamagedError(f"the experiment names the training set {name!r}; known are {', '.join(TRAINING_SETS)}")
    return TRAINING_SETS[name]


def training_lines(name: str) -> list[str]:
    """Describe a training set as lines of text: its name and size, its addresses, and the remark."""
    found = training_set_of(name)
    size = [f"{found.images:,} images".replace(",", " ")] if found.images else []
    head = ", ".join([name, *size, f"{found.classes:,} classes".replace(",", " ")])
    return [
        f"trained on {head}",
        *(f"  from {one}" for one in found.addresses),
        *([f"  {found.note}"] if found.note else []),
    ]
