"""How an index describes an image by regions: what becomes of them, and where they come from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from asmk_engine.errors import InputError

MODES = ("aggregate", "separate")
"""One signature of all regions (R-ASMK), or one of each, the best of which counts (D2R-ASMK)."""
LEAST_SCORE = 0.1
"""Boxes with a lower score are left out, as by the instructions of Detect-to-Retrieve."""
GRID_LEVELS, MOST_LEVELS = 2, 6


@dataclass(frozen=True)
class RegionOptions:
    """How an index describes each image by the whole image and its regions.

    Parameters
    ----------
    mode : {"aggregate", "separate"}
        `aggregate`: the regions are joined in one signature, by which an image is scored as in R-ASMK; `separate`:
        each region has a signature of its own, and the best of their scores is that of the image.
    levels : int or None, default 2
        The regions are the squares of R-MAC at levels 1 to this, from 1 to 6; None: they are boxes that are given with
        the images, or those of `attention`.
    least_score : float, default 0.1
        Given boxes with a lower score are left out.
    attention : float, optional
        The regions are the boxes of the connected parts of an image in which the strengths of its features reach this
        share of their range, from 0 to 1; `levels` is then None.

    Raises
    ------
    InputError
        If one of them has another value.

    Notes
    -----
    Source: Teichmann, Araujo, Zhu and Sim, CVPR 2019, section 4, and the code of Detect-to-Retrieve.
    """

    mode: str
    levels: int | None = GRID_LEVELS
    least_score: float = LEAST_SCORE
    attention: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"regions {self.mode!r} are unknown; choose one of {', '.join(MODES)}")
        if self.levels is not None and not (type(self.levels) is int and 1 <= self.levels <= MOST_LEVELS):
            raise InputError(f"a grid of {self.levels!r} levels; give a number from 1 to {MOST_LEVELS}")
        if type(self.least_score) not in (int, float) or not math.isfinite(self.least_score):
            raise InputError(f"the least score of a box is {self.least_score!r}; give a finite number")
        if self.attention is not None:
            self._check_attention(self.attention)

    def _check_attention(self, attention: float) -> None:
        if type(attention) not in (int, float) or not 0 <= attention <= 1:
            raise InputError(f"the threshold of attention is {attention!r}; give a number from 0 to 1")
        if self.levels is not None:
            raise InputError(f"a grid of {self.levels} levels and attention; give one of them")

    @property
    def are_given(self) -> bool:
        """Whether the regions are boxes that are given with the images."""
        return self.levels is None and self.attention is None

    @property
    def is_normalised(self) -> bool:
        """Whether a score is divided by the number of words, which the code of R-ASMK does not do."""
        return self.mode == "separate"

    def __str__(self) -> str:
        source = f"boxes with a score of {self.least_score:g} or more" if self.are_given else f"a grid of {self.levels}"
        if self.attention is not None:
            source = f"attention of {self.attention:g} or more"
        return f"{self.mode}, {source}"

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON values."""
        score, attention = float(self.least_score), None if self.attention is None else float(self.attention)
        return {"mode": self.mode, "levels": self.levels, "least_score": score, "attention": attention}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> RegionOptions:
        """Return the options from `to_json`; raises KeyError, TypeError or InputError for anything else."""
        return cls(content["mode"], content["levels"], content["least_score"], content["attention"])
