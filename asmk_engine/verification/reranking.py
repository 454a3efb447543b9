"""Re-ranking: the score of an index, and how much of the query an image explains.

    score(x) = s(x) / b + sum over the kinds of local features of w_i inliers(x) + w_p places_weight(x)

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
    verification : Verification
        How two images are compared.

    Raises
    ------
    InputError
        If `images` is less than 1 or a weight is negative.

    Notes
    -----
    The weights were chosen on one half of the photographs' instances and confirmed on the other, for RootSIFT and for
    learned features alike (docs/halves.md).
    """

    images: int = 50
    inlier_weight: float = 1 / 80
    places_weight: float = 0.5
    verification: Verification = field(default_factory=Verification)

    def __post_init__(self) -> None:
        if self.images < 1:
            raise InputError(f"{self.images} images are to be ranked anew; give 1 or more")
        for name in ("inlier_weight", "places_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name} is {value}; give a number of 0 or more")

    def evidence(self, match: Match | None) -> float:
        """Return what a match adds to the score of an image, 0 for None."""
        return 0.0 if match is None else self.inlier_weight * match.inliers + self.places_weight * match.places_weight


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
