"""Slow, obvious twins of the arithmetic of reproductions, written from the definitions with loops."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from asmk_engine.evaluation.model import Prediction

Labelled = tuple[str, Prediction | None, frozenset[str]]


def micro_average_precision(images: Sequence[Labelled]) -> float:
    """µAP of images, each with its name, its prediction and its labels; one image may be there more than once.

    Predictions are sorted by confidence, then by name; the i-th of them counts the share of right ones among the first
    i where it is right; the sum is over the number of images that have a label. Perronnin et al., CVPR 2009.
    """
    ranked = sorted((one for one in images if one[1] is not None), key=lambda one: (-one[1].confidence, one[0]))  # type: ignore[union-attr]
    right, total = 0, 0.0
    for place, (_, guess, labels) in enumerate(ranked, start=1):
        if guess is not None and guess.label in labels:
            right += 1
            total += right / place
    labelled = sum(1 for _, _, labels in images if labels)
    return total / labelled if labelled else math.nan


def micro_interval(
    ground_truth: Mapping[str, frozenset[str]], guesses: Mapping[str, Prediction | None], rounds: int, seed: int
) -> tuple[float, float, float]:
    """µAP and its 95 % percentile interval: as many images drawn with replacement, ranked anew, `rounds` times."""
    images = [(name, guesses.get(name), labels) for name, labels in ground_truth.items()]
    order = sorted(images, key=lambda one: (-(one[1].confidence if one[1] else -math.inf), one[0]))
    draws = np.random.Generator(np.random.PCG64(seed)).integers(0, len(order), (rounds, len(order)))
    found = [micro_average_precision([order[number] for number in draw]) for draw in draws.tolist()]
    low, high = np.quantile([value for value in found if not math.isnan(value)], [0.025, 0.975])
    return micro_average_precision(images), float(low), float(high)
