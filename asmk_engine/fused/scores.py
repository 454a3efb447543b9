"""The fused score of an image: the weighted sum of its scores in each kind, each divided by the best of its kind.

    score(x) = sum over the kinds k of w_k s_k(x) / b_k       b_k = max of s_k(y) over the images y except the query

The weights w_k are 0 or more and have the sum 1. An image that kind k did not find has s_k(x) = 0. Where no other image
has a positive score, b_k is 1.

The query itself is left out of the maximum because its own score says nothing about how well this kind can tell the
others apart, and because the order of the others would then depend on whether the query is in the index. So an image
with the content of the query may score above 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.indexes.image_table import ImageTable
from asmk_engine.indexes.ranking import Part


def shares(weights: Sequence[float] | None, count: int, what: str = "rankings") -> list[float]:
    """Return weights with the sum 1, in proportion to those given, all equal if None.

    Raises InputError unless there is one of 0 or more for each of the `count` things called `what`, and not all are 0.
    """
    given = [1.0] * count if weights is None else [float(weight) for weight in weights]
    total = math.fsum(given)  # exactly rounded: it does not depend on the order
    if len(given) != count or not all(0 <= weight < math.inf for weight in given) or (count and total <= 0):
        raise InputError(f"weights are {given} for {count} {what}; give one of 0 or more for each, not all of them 0")
    return [weight / total for weight in given]


def greatest_of_others(segments: Sequence[ImageTable], found: Sequence[Part], fingerprint: int) -> float:
    """Return the best score of an image with another content than the query, 0 if none is above 0.

    fingerprint  that of the content of the query, 0 if unknown
    """
    best = 0.0
    for place, numbers, scores in found:
        others = scores if not fingerprint else scores[segments[place].fingerprints[numbers] != fingerprint]
        best = max(best, float(others.max(initial=0.0)))
    return best


def fused(
    segments: Sequence[ImageTable], kinds: Sequence[tuple[float, Sequence[Part]]], fingerprint: int
) -> Iterator[Part]:
    """Yield, segment by segment, the images that some kind found, with their fused scores.

    kinds        for each kind its share, and the images it found with their scores
    fingerprint  that of the content of the query, 0 if unknown
    """
    best = [greatest_of_others(segments, found, fingerprint) for _, found in kinds]
    return weighted(segments, with_divisors(kinds, best))


def with_divisors(
    kinds: Sequence[tuple[float, Sequence[Part]]], greatest: Sequence[float]
) -> list[tuple[float, float, Sequence[Part]]]:
    """Return kinds as `weighted` takes them; a kind without a score above 0 is divided by 1.

    greatest  for each kind the best score of an image with another content than the query
    """
    return [(share, best or 1.0, found) for (share, found), best in zip(kinds, greatest, strict=True)]


def weighted(segments: Sequence[ImageTable], scaled: Sequence[tuple[float, float, Sequence[Part]]]) -> Iterator[Part]:
    """Yield, segment by segment, the images that some kind found, with the weighted sums of their scores.

    The terms of an image are added in increasing order, so that the order of the kinds changes no bit.

    scaled  for each kind its share, the score by which those of the kind are divided, and the images it found
    """
    for place, segment in enumerate(segments):
        terms, is_found = np.zeros((len(scaled), segment.images)), np.zeros(segment.images, bool)
        for row, (share, best, found) in enumerate(scaled):
            for numbers, scores in ((part[1], part[2]) for part in found if part[0] == place):
                terms[row, numbers] = share * (scores / best)
                is_found[numbers] = True
        numbers = np.flatnonzero(is_found)
        yield place, numbers, _sums(terms[:, numbers])


def _sums(terms: np.ndarray) -> np.ndarray:
    """Add the terms [kinds, n] of each image in increasing order, [n]."""
    terms.sort(axis=0)
    total = np.zeros(terms.shape[1])
    for row in terms:
        total += row
    return total
