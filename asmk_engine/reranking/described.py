"""Features of the images that are compared: of a query, and of indexed images by their names."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asmk_engine.errors import AsmkError, AsmkWarning, InputError
from asmk_engine.features import Features
from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.images.boxes import Box

AnyFeatures = Features | FusedFeatures
Describe = Callable[[str, Box | None], AnyFeatures]
"""Returns the features of an image, by its name, and of a region of it, if there is a box."""


@dataclass(frozen=True)
class PairImages:
    """Where scorers find features.

    query  describes a query: the name of an indexed image, a file, or the name of a query of a ground truth
    named  describes an indexed image
    """

    query: Describe
    named: Describe

    def candidates(self, names: Sequence[str], taken: Callable[[AnyFeatures], Any]) -> list[Any]:
        """Return what `taken` makes of the features of each indexed image; None, with a warning, where it fails."""
        return [self._candidate(name, taken) for name in names]

    def _candidate(self, name: str, taken: Callable[[AnyFeatures], Any]) -> Any:
        try:
            return taken(self.named(name, None))
        except AsmkError as error:
            warnings.warn(f"{name}: is not compared: {error}", AsmkWarning, stacklevel=2)
            return None


@dataclass(frozen=True)
class Kinds:
    """Which kinds of features of an index are local and global: their numbers, in the order of the index.

    local, whole  number of the first kind of local features and of global descriptors; None if there is none
    """

    local: int | None
    whole: int | None

    @classmethod
    def of_encoder(cls, encoder: Any, recipe: Any) -> Kinds:
        """Return the kinds of an index by its encoder, and the recipe of one with a single kind."""
        recipes = [kind.recipe for kind in encoder.kinds] if hasattr(encoder, "kinds") else [recipe]
        numbers = {one.is_global: number for number, one in reversed(list(enumerate(recipes)))}
        return cls(numbers.get(False), numbers.get(True))

    def local_of(self, found: AnyFeatures) -> Features | None:
        """Return the local features of an image, None if it has none."""
        return _part(found, self.local)

    def whole_of(self, found: AnyFeatures) -> Features:
        """Return the global descriptor of an image; raises InputError if it has none."""
        part = _part(found, self.whole)
        if part is None:
            raise InputError("has no global descriptor; describe it with both extractors of the index")
        return part


def _part(found: AnyFeatures, number: int | None) -> Features | None:
    part = found if isinstance(found, Features) else None if number is None else found.parts[number]
    return part if isinstance(part, Features) else None


def filled(scores: Sequence[float | None]) -> np.ndarray:
    """Return scores [n] float64 in which an image that could not be compared has the least score of the others."""
    known = [score for score in scores if score is not None]
    least = min(known, default=0.0)
    return np.array([least if score is None else score for score in scores], np.float64)
