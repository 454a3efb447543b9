"""Re-ranking: the score of an index, and how much of the query an image explains.

    score(x) = s(x) / b + sum over the kinds of local features of w_i inliers(x) + w_p places_weight(x) + w_m mass(x)

b is the best score of an image that is no copy of the query, so that the order of the others does not depend on whether
the query itself is in the index. Images behind those that are verified keep s(x) / b, so they stay behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.verification.match import Match, Verification
from asmk_engine.verification.mutual import MutualNeighbours

Comparison = Verification | MutualNeighbours
"""How two images are compared: by the places of their features, or by their descriptors alone."""
MOST_EXPANSIONS = 5
MASS_WEIGHT = 60.0


@dataclass(frozen=True)
class Reranking:
    """How many images are verified, and what their matches weigh.

    Parameters
    ----------
    images : int, default 50
        Number of images from the first that are verified and ranked anew.
    inlier_weight : float, default 1/80
        What an inlier adds to the score, whose best is about 1.
    places_weight : float, default 0.5
        What the distinct places of the inliers add, in the unit of `Match.places_weight`.
    mass_weight : float, default 0
        What the pairs of features add, wherever they are, in the unit of `Match.mass`.
    verification : Verification or MutualNeighbours
        How two images are compared.
    expansions : int, default 0
        How often images that surely show the same thing join the query, which is searched again; at most 5.
    joining_places, joining_weight : int, float, default 8 and 1.0
        Least `Match.places` and `Match.places_weight` of an image that joins the query.

    Raises
    ------
    InputError
        If a number is out of its range, or the query is to be expanded by images whose places are not compared.

    Notes
    -----
    The weights were chosen on one half of the photographs' instances and confirmed on the other, for RootSIFT and for
    learned features alike (docs/halves.md).
    """

    images: int = 50
    inlier_weight: float = 1 / 80
    places_weight: float = 0.5
    mass_weight: float = 0.0
    verification: Comparison = field(default_factory=Verification)
    expansions: int = 0
    joining_places: int = 8
    joining_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.images < 1:
            raise InputError(f"{self.images} images are to be ranked anew; give 1 or more")
        for name in ("inlier_weight", "places_weight", "mass_weight", "joining_places", "joining_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name} is {value}; give a number of 0 or more")
        if not 0 <= self.expansions <= MOST_EXPANSIONS:
            raise InputError(f"the query is to be expanded {self.expansions} times; give 0 to {MOST_EXPANSIONS}")
        if self.expansions and isinstance(self.verification, MutualNeighbours):
            raise InputError("only images whose places are compared can join the query; leave one of the two out")

    @classmethod
    def by_descriptors(cls, images: int = 50) -> Reranking:
        """Return what compares descriptors alone: `MutualNeighbours`, whose mass has a weight of 60."""
        return cls(images, 0.0, 0.0, MASS_WEIGHT, MutualNeighbours())

    @classmethod
    def by_both(cls, images: int = 50) -> Reranking:
        """Return what compares descriptors and places: the mass of mutual neighbours, and those that a map explains."""
        return cls(images, mass_weight=MASS_WEIGHT, verification=MutualNeighbours(places=Verification()))

    def evidence(self, match: Match | None) -> float:
        """Return what a match adds to the score of an image, 0 for None."""
        if match is None:
            return 0.0
        placed = self.inlier_weight * match.inliers + self.places_weight * match.places_weight
        return placed + self.mass_weight * match.mass

    def joins(self, match: Match | None) -> bool:
        """Return whether an image surely shows the same thing as the query, so that it may join it."""
        return (
            match is not None
            and match.places >= max(1, self.joining_places)
            and match.places_weight >= self.joining_weight
        )


def reranking_of(given: int | Reranking | None) -> Reranking | None:
    """Return a number of images as `Reranking` with defaults; raises InputError if it is less than 1."""
    return Reranking(given) if isinstance(given, int) else given


def reranked(
    scores: np.ndarray, matches: Sequence[Sequence[Match | None]], reranking: Reranking
) -> tuple[np.ndarray, np.ndarray]:
    """Return the new order [n] int64 of ranked images, and their scores [n] float64 in that order.

    scores   [n] float64, not increasing
    matches  for each kind of local features the matches of the first m <= n images
    """
    verified = list(zip(*matches, strict=True))
    copies = [any(match is not None and match.is_copy for match in kinds) for kinds in verified]
    others = [score for score, is_copy in zip(scores.tolist(), copies, strict=False) if not is_copy]
    best = max([*others, *scores[len(copies) :].tolist()[:1]], default=0.0) or float(scores.max(initial=0.0)) or 1.0
    total = scores / best
    for place, kinds in enumerate(verified):
        total[place] += math.fsum(reranking.evidence(match) for match in kinds)
    order = np.argsort(-total, kind="stable")
    return order, total[order]
