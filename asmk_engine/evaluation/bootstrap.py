"""How far a mean over queries can be trusted: the interval in which it would lie, had other queries been drawn.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13, the percentile interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asmk_engine.errors import InputError

ROUNDS = 10_000
CONFIDENCE = 0.95

_CHUNK = 1 << 20  # draws held in memory at a time


@dataclass(frozen=True)
class Interval:
    """A mean, and the percentile interval around it."""

    mean: float
    low: float
    high: float


def bootstrap(
    values: Sequence[float], *, confidence: float = CONFIDENCE, rounds: int = ROUNDS, seed: int = 0
) -> Interval:
    """The mean of the values and its percentile interval, from means of as many values drawn with replacement.

    The same values give the same interval, bit for bit. For the difference of two rankings, give the differences query
    by query: they vary less than the difference of two means.

    values      one for each query, finite
    confidence  share of the means that lie inside, above 0 and below 1
    returns     NaN three times where there are no values
    raises      InputError for values or options that mean nothing
    """
    if not 0 < confidence < 1 or rounds < 1:
        raise InputError(f"confidence {confidence} and {rounds} rounds: give a number between 0 and 1, and 1 or more")
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise InputError(f"values of shape {array.shape}, some not finite: give one finite value for each query")
    if array.size == 0:
        return Interval(math.nan, math.nan, math.nan)
    low, high = np.quantile(_means(array, rounds, seed), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(math.fsum(array) / array.size, float(low), float(high))


def _means(values: np.ndarray, rounds: int, seed: int) -> np.ndarray:
    draws = np.random.Generator(np.random.PCG64(seed))
    at_once = max(1, _CHUNK // values.size)
    means = [
        values[draws.integers(0, values.size, (min(at_once, rounds - begin), values.size))].mean(axis=1)
        for begin in range(0, rounds, at_once)
    ]
    return np.concatenate(means)
