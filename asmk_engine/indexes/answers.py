"""What an index of any kind answers: hits by name, or an order in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asmk_engine.errors import DamagedError


@dataclass(frozen=True)
class Hit:
    """One image of an answer: its name, and its score, 1 for an image with exactly the query's words and codes."""

    name: str
    score: float


@dataclass(frozen=True, eq=False)
class RankedImages:
    """An answer in numbers, best image first: numbers [n] int64 over all segments, and scores [n] float64."""

    numbers: np.ndarray
    scores: np.ndarray


def decoded(name: bytes) -> str:
    """A name for an answer; DamagedError when its bytes are no UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise DamagedError(f"the index holds a name that is not UTF-8: {name!r}; restore a copy") from None
