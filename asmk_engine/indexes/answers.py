"""Search results of an index of any kind: hits by name, or image numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from asmk_engine.errors import DamagedError
from asmk_engine.verification.match import Match


@dataclass(frozen=True)
class Hit:
    """One image of a search result.

    Attributes
    ----------
    name : str
        Name of the image.
    score : float
        Similarity to the query; 1 for an image with exactly the words and codes of the query. After re-ranking, the
        score divided by the best, and what the match adds.
    matches : tuple of (Match or None)
        After re-ranking, where the image matches the query, for each kind of local features; None for a kind of which
        it has no features. Empty if the image was not verified.
    turn : str
        How the query had to be turned to find the image, as `Turn.label`; empty if it was not.
    verdict : str or None
        After verification by places with default options, whether the image shows what the query shows: `match`, with a
        stated precision of 99 %, `maybe`, of 90 % together with the matches, or `no`; see `asmk-engine calibrate`.
    probability : float or None
        How likely an answer with this evidence shows what the query shows, at most 0.999.
    """

    name: str
    score: float
    matches: tuple[Match | None, ...] = field(default=(), compare=False)
    turn: str = ""
    verdict: str | None = field(default=None, compare=False)
    probability: float | None = field(default=None, compare=False)


@dataclass(frozen=True, eq=False)
class RankedImages:
    """A ranking in numbers, best image first.

    numbers  [n] int64, image numbers over all segments
    scores   [n] float64
    """

    numbers: np.ndarray
    scores: np.ndarray


def decoded(name: bytes) -> str:
    """Decode the name of a hit; raises DamagedError if it is not UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise DamagedError(f"the index holds a name that is not UTF-8: {name!r}; restore a copy") from None
