"""Boxes of images with scores, by the names of the images, and which features are in a box."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.features import Features
from asmk_engine.images.boxes import Box, Size


class ScoredBox(NamedTuple):
    """A box in pixels of the upright image, or in shares of its sides, with a score; a box without one has 1."""

    box: Box
    score: float = 1.0


@dataclass(frozen=True)
class ImageBoxes:
    """The boxes of images.

    Parameters
    ----------
    by_name : mapping
        Name of an image → its boxes. A name without a suffix stands for the file of any suffix.
    are_shares : bool, default False
        Whether coordinates are shares of width and height from 0 to 1, as in the files of Detect-to-Retrieve.
    where : str, default "the boxes"
        The file they are from, in messages.

    Raises
    ------
    InputError
        If a coordinate or score is not finite, or a box is inverted or empty.
    """

    by_name: Mapping[str, list[ScoredBox]]
    are_shares: bool = False
    where: str = "the boxes"

    def __post_init__(self) -> None:
        for name, boxes in self.by_name.items():
            for one in boxes:
                check_scored_box(one, f"{self.where}: {name!r}")

    def key(self, name: str) -> str | None:
        """Return the name under which the boxes of an image are given, None if there are none."""
        return next((found for found in (name, _without_suffix(name)) if found in self.by_name), None)

    def of(self, name: str, size: Size, least_score: float) -> list[Box]:
        """Return the boxes of an image with a score of at least `least_score`, in pixels; none if it has no entry.

        size  width and height of the image
        """
        key = self.key(name)
        if key is None:
            return []
        sides = (*size, *size) if self.are_shares else (1, 1, 1, 1)
        kept = [one.box for one in self.by_name[key] if one.score >= least_score]
        return [(box[0] * sides[0], box[1] * sides[1], box[2] * sides[2], box[3] * sides[3]) for box in kept]

    def unused(self, names: Iterable[str]) -> list[str]:
        """Return the names of boxes that belong to none of these images."""
        used = {self.key(name) for name in names}
        return [name for name in self.by_name if name not in used]


def check_scored_box(one: ScoredBox, where: str) -> None:
    """Raise InputError, which begins with `where`, unless a box has finite numbers and an area."""
    text = ",".join(f"{value:g}" for value in one.box)
    if len(one.box) != 4 or not all(map(math.isfinite, (*one.box, one.score))):
        raise InputError(f"{where}: box {text}, score {one.score:g}; expected finite numbers x1, y1, x2, y2 and score")
    if one.box[2] <= one.box[0] or one.box[3] <= one.box[1]:
        raise InputError(f"{where}: box {text} is inverted or empty; expected x1 < x2 and y1 < y2")


def _without_suffix(name: str) -> str:
    return name.removesuffix(PurePosixPath(name).suffix)


def rows_inside(features: Features, box: Box) -> np.ndarray:
    """Return the rows [m] int64 of the features whose places are in a box, to whole pixels.

    The box is widened to whole pixels, as a crop is by the code of Detect-to-Retrieve; pixel 0 is from -0.5 to 0.5.
    """
    x, y = features.keypoints[:, 0], features.keypoints[:, 1]
    left, top, right, bottom = math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])
    inside = (x >= left - 0.5) & (x < right - 0.5) & (y >= top - 0.5) & (y < bottom - 0.5)
    return np.flatnonzero(inside)
