"""The options of the groups of a collection."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from asmk_engine.errors import InputError
from asmk_engine.verification.match import Verification

LEAST_PLACES = 4
"""Matches with fewer places are not kept at all: these are what chance gives."""


@dataclass(frozen=True)
class Grouping:
    """Which images are compared, and what joins two of them.

    Parameters
    ----------
    neighbours : int, default 50
        Number of nearest images with which each image is compared; fewer where there are fewer.
    places : int, default 8
        Least number of distinct places of the inliers, in both directions; 4 or more.
    weight : float, default 0.8
        Least sum of their weights, in both directions, each place and each word counted once; a feature whose codes are
        equal weighs 1.
    overlays : bool, default False
        Whether images are also joined by what lies in the same place of many pictures: watermarks and frames.
    mirror : bool, default False
        Whether mirrored copies are looked for, which needs the photographs and the time to describe them again.
    verification : Verification
        How two images are compared.

    Raises
    ------
    InputError
        If an option is out of its range.
    """

    neighbours: int = 50
    places: int = 8
    weight: float = 0.8
    overlays: bool = False
    mirror: bool = False
    verification: Verification = field(default_factory=Verification)

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise InputError(f"neighbours is {self.neighbours}; give 1 or more (50 is the default)")
        if self.places < LEAST_PLACES:
            raise InputError(f"places is {self.places}; give {LEAST_PLACES} or more (8 is the default)")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise InputError(f"weight is {self.weight}; give a number of 0 or more (0.8 is the default)")

    def as_dict(self) -> dict[str, Any]:
        """Return the options as plain values for JSON, those of the verification left out."""
        return {
            "neighbours": self.neighbours,
            "places": self.places,
            "weight": self.weight,
            "overlays": self.overlays,
            "mirror": self.mirror,
        }
