"""Variants of a run, which share the extraction: other seeds of the clustering, or only the strongest features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from asmk_engine.reproduction.evaluation import Measured


@dataclass(frozen=True)
class Variant:
    """What is learned, indexed and searched once more on the same features.

    seed       0 for the seed of the experiment, 1 for the next one, and so on
    strongest  maximum number of features per image and query, 0 for all that were extracted
    """

    seed: int = 0
    strongest: int = 0

    @property
    def suffix(self) -> str:
        """Ending of the names of its indexes; empty for the experiment itself."""
        return (f"-strongest-{self.strongest}" if self.strongest else "") + self.of_seed("-seed-")

    @property
    def words(self) -> str:
        """Words for a message or the name of a stage; empty for the experiment itself."""
        return (f", strongest {self.strongest}" if self.strongest else "") + self.of_seed(", seed ")

    def of_seed(self, text: str) -> str:
        """Return `text` with the number of the seed, or an empty string for the seed of the experiment."""
        return f"{text}{self.seed}" if self.seed else ""


def combined(found: Sequence[Measured]) -> Measured:
    """Return the mean of scores of several seeds, with the interval that spans all of theirs."""
    if len(found) == 1:
        return found[0]
    value = math.fsum(one.value for one in found) / len(found)
    return Measured(value, min(one.low for one in found), max(one.high for one in found), found[0].queries)


def deviation(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation (n - 1) of the values of several seeds; None for one, NaN with a NaN."""
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
