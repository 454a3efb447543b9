"""Average precision and precision at k, as functions of ranks: Revisited Oxford and Paris, and Google Landmarks v2.

Sources: Radenović et al., "Revisiting Oxford and Paris: Large-Scale Image Retrieval Benchmarking", CVPR 2018; Weyand et
al., "Google Landmarks Dataset v2", CVPR 2020; and the published evaluation code of each. All ranks are 0-based; each
function takes linear time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asmk_engine.errors import InputError


def ranks_without(places: ArrayLike, taken_out: ArrayLike) -> NDArray[np.int64]:
    """Return the ranks of the positives after ignored images are removed: each falls by the number removed above it.

    places     [P'] integers, 0-based, increasing: positions of the positives in the ranking
    taken_out  [J] integers, 0-based, increasing: positions of the ignored images
    returns    [P'] int64
    """
    places, taken_out = np.asarray(places, dtype=np.int64), np.asarray(taken_out, dtype=np.int64)
    return places - np.searchsorted(taken_out, places)


def average_precision(ranks: ArrayLike, positives: int) -> float:
    """Return the area under the precision-recall curve by the trapezoidal rule; an unranked positive contributes 0.

    AP = Σ_j (j / r_j + (j + 1) / (r_j + 1)) / (2 · positives), r_j the rank of the j-th positive and 0 / 0 = 1.

    ranks      [P'] integers, 0-based, increasing, with junk removed
    positives  number of images to find, P' or more
    returns    in [0, 1]; NaN without positives, which the protocol leaves undefined
    raises     InputError if the ranks are not increasing or more than `positives`
    """
    ranks = _checked(ranks, positives)
    if positives == 0:
        return float("nan")
    found = np.arange(ranks.size, dtype=np.float64)
    before = np.divide(found, ranks, out=np.ones_like(found), where=ranks > 0)
    after = (found + 1) / (ranks + 1)
    return float((before + after).sum() / (2 * positives))


def precision_at(ranks: ArrayLike, k: int, positives: int) -> float:
    """Return the share of positives among the first k images, or among fewer if the last positive is above rank k.

    The published rule, with 1-based ranks: k' = min(rank of the last positive, k), #(ranks ≤ k') / k'. An unranked
    positive counts as below every ranked image, so k' = k: a shorter ranking never scores higher.

    ranks      [P'] integers, 0-based, increasing, with junk removed
    k          1 or more
    positives  number of images to find, P' or more
    returns    in [0, 1]; NaN without positives
    raises     InputError if the ranks are not increasing or more than `positives`, or k is below 1
    """
    ranks = _checked(ranks, positives, k)
    if positives == 0:
        return float("nan")
    depth = min(int(ranks[-1]) + 1, k) if ranks.size == positives else k
    return float(np.searchsorted(ranks, depth, side="left") / depth)


def average_precision_at(ranks: ArrayLike, k: int, positives: int) -> float:
    """Return the sum of the precision at each positive among the first k images, divided by min(positives, k).

    AP@k = Σ_{j: r_j < k} (j + 1) / (r_j + 1) / min(positives, k); GLDv2 reports its mean at k = 100.

    ranks      [P'] integers, 0-based, increasing
    k          1 or more
    positives  number of images to find, P' or more
    returns    in [0, 1]; NaN without positives
    raises     InputError if the ranks are not increasing or more than `positives`, or k is below 1
    """
    ranks = _checked(ranks, positives, k)
    if positives == 0:
        return float("nan")
    within = ranks[ranks < k]
    return float((np.arange(1, within.size + 1) / (within + 1)).sum() / min(positives, k))


def micro_average_precision(correct: ArrayLike, answerable: int) -> float:
    """Return the average precision of the predictions of all images in one list, most confident first (µAP or GAP).

    µAP = Σ_i P(i) c_i / answerable, P(i) the share of correct ones among the first i predictions, c_i 1 if correct.
    Perronnin et al., "A family of contextual measures of similarity between distributions", CVPR 2009; GLDv2.

    correct     [N] bool, whether each prediction is correct, one prediction per image
    answerable  number of images that have a label, including those without a prediction
    returns     in [0, 1]; NaN if no image has a label
    raises      InputError for more correct predictions than `answerable`
    """
    places = np.flatnonzero(np.asarray(correct, dtype=bool))
    if places.size > answerable:
        raise InputError(f"{places.size} correct predictions for {answerable} images with a label: give one per image")
    if answerable == 0:
        return float("nan")
    return float((np.arange(1, places.size + 1) / (places + 1)).sum() / answerable)


def _checked(ranks: ArrayLike, positives: int, k: int = 1) -> NDArray[np.int64]:
    array = np.asarray(ranks, dtype=np.int64)
    if array.ndim != 1 or (array.size and array[0] < 0) or (np.diff(array) <= 0).any():
        raise InputError("ranks of positives must be a list of distinct integers of 0 or more, in increasing order")
    if array.size > positives:
        raise InputError(f"{array.size} ranks of positives for {positives} positives: the ranking repeats an image")
    if k < 1:
        raise InputError(f"precision at {k}: k must be 1 or more")
    return array
