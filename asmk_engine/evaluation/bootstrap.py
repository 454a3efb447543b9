"""Bootstrap confidence interval of a mean over queries.

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

_CHUNK = 1 << 20  # samples in memory at a time


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile interval."""

    mean: float
    low: float
    high: float


def bootstrap(
    values: Sequence[float], *, confidence: float = CONFIDENCE, rounds: int = ROUNDS, seed: int = 0
) -> Interval:
    """Return the mean of the values and its percentile interval, from bootstrap samples of the same size.

    The same values give the same interval, bit for bit. To compare two rankings, pass the differences per query: they
    vary less than the difference of two means.

    values      one finite value per query
    confidence  share of the sample means inside the interval, above 0 and below 1
    rounds      number of samples
    returns     NaN three times if there are no values
    raises      InputError for invalid values or options
    """
    if not 0 < confidence < 1 or rounds < 1:
        raise InputError(
            f"confidence {confidence} and {rounds} rounds: expected a number between 0 and 1, and 1 or more"
        )
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise InputError(f"values of shape {array.shape}, some not finite: expected one finite value per query")
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
