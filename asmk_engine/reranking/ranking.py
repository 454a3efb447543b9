"""A ranking whose first images are ranked anew by their pair scores.

    score(x) = base_weight s_g(x) + weight s_r(x)

s_g is the score of the search, s_r that of the pair. Only the first `images` of the ranking that are not left out are
compared, and only they change places among themselves: what is left out, such as the junk of a protocol, stays where it
was, and so does everything behind (Lee et al., CVPR 2022, section 5.1, and its code).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.images.boxes import Box
from asmk_engine.indexes.answers import Hit
from asmk_engine.reranking.pair_scorer import PairScorer


@dataclass(frozen=True)
class PairReranking:
    """How many images are compared with the query, and what the scores weigh; raises InputError for a bad number.

    images       number of images from the first that are compared
    weight       what the score of the pair weighs
    base_weight  what the score of the search weighs; with 0 it decides only between equal scores of pairs
    """

    images: int = 100
    weight: float = 0.5
    base_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.images < 1:
            raise InputError(f"{self.images} images are to be ranked anew; give 1 or more")
        for name in ("weight", "base_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name} is {value}; give a number of 0 or more")


def candidate_places(names: Sequence[str], images: int, left_out: Collection[str] = frozenset()) -> list[int]:
    """Return the places in a ranking of its first `images` names that are not left out, in increasing order."""
    kept = (place for place, name in enumerate(names) if name not in left_out)
    return list(itertools.islice(kept, images))


def reordered(
    scores: np.ndarray, places: Sequence[int], pair_scores: np.ndarray, options: PairReranking
) -> tuple[np.ndarray, np.ndarray]:
    """Return the new order [n] int64 of a ranking, and its scores [n] float64 in that order, which never increase.

    scores       [n] float64 of the search, not increasing
    places       m increasing places that are ranked anew; equal scores keep their order
    pair_scores  [m] of the images at these places

    An image that is left out between these gets the score of the one before it; those behind keep theirs, all lowered
    by the same number if the first of them would otherwise be above. Raises InputError for scores that are not finite.
    """
    chosen = np.asarray(places, np.int64)
    joint = options.base_weight * scores[chosen] + options.weight * np.asarray(pair_scores, np.float64)
    if not np.isfinite(joint).all():
        raise InputError("a score of a pair is not finite: the weights of the re-ranking network are unusable")
    order, found = np.arange(len(scores)), np.array(scores, np.float64)
    if not len(chosen):
        return order, found
    best, end = np.argsort(-joint, kind="stable"), int(chosen[-1]) + 1
    order[chosen] = chosen[best]
    before = np.searchsorted(chosen, np.arange(end), side="right") - 1
    found[:end] = joint[best][np.maximum(before, 0)]
    found[end:] -= max(0.0, float(found[end:].max(initial=-math.inf)) - float(found[end - 1]))
    return order, found


@dataclass(frozen=True)
class PairReranker:
    """Ranks the first images of rankings anew by a scorer of pairs."""

    scorer: PairScorer
    options: PairReranking

    def rerank(
        self, query: str, box: Box | None, hits: Sequence[Hit], left_out: Collection[str] = frozenset()
    ) -> list[Hit]:
        """Return the hits of a query in their new order, with their new scores; raises as the scorer does.

        left_out  names that are not compared and keep their places
        """
        return self.rerank_rows(query, box, hits, {"": left_out})[""]

    def rerank_rows(
        self, query: str, box: Box | None, hits: Sequence[Hit], left_out: Mapping[str, Collection[str]]
    ) -> dict[str, list[Hit]]:
        """Return a ranking for each row of a protocol; a pair that several rows need is scored once.

        left_out  names that are not compared, by row
        """
        names = [hit.name for hit in hits]
        places = {row: candidate_places(names, self.options.images, gone) for row, gone in left_out.items()}
        union = sorted({place for found in places.values() for place in found})
        compared = self.scorer.scores(query, box, [names[place] for place in union]) if union else np.zeros(0)
        by_place = dict(zip(union, compared, strict=True))
        before = np.array([hit.score for hit in hits], np.float64)
        return {
            row: _in_order(hits, *reordered(before, found, np.array([by_place[one] for one in found]), self.options))
            for row, found in places.items()
        }


def _in_order(hits: Sequence[Hit], order: np.ndarray, scores: np.ndarray) -> list[Hit]:
    return [replace(hits[place], score=score) for place, score in zip(order.tolist(), scores.tolist(), strict=True)]
