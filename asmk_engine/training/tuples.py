"""Sampling of anchors, positives and the pool of an epoch, and checks that the data suffice."""

from __future__ import annotations

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.training.instances import NONE, Instances


def draw_pairs(data: Instances, count: int, augmented_pairs: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the pairs of an epoch, [n, 2] int64: image numbers of anchor and positive, equal for two views of an image.

    count            number of pairs; of given pairs at most all
    augmented_pairs  fraction of them, 0 to 1, that are two views of any image of the data

    Given pairs are drawn without replacement. Otherwise every image that has a positive is an anchor equally often, to
    within one, and its positive is a random other image of its instance.
    """
    views = round(count * augmented_pairs)
    made = _cycled(np.arange(len(data)), views, rng)
    labelled = _given(data.pairs, count - views, rng) if data.pairs is not None else _drawn(data, count - views, rng)
    pairs = np.concatenate([labelled, np.stack([made, made], 1)])
    return pairs[rng.permutation(len(pairs))]


def _given(pairs: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return pairs[rng.permutation(len(pairs))[:count]]


def _drawn(data: Instances, count: int, rng: np.random.Generator) -> np.ndarray:
    members = data.members()
    able = [part for part in members.values() if len(part) > 1]
    anchors = _cycled(np.sort(np.concatenate(able)) if able else np.empty(0, np.int64), count, rng)
    positives = np.empty_like(anchors)
    for place, anchor in enumerate(anchors):
        others = members[int(data.instances[anchor])]
        positives[place] = rng.choice(others[others != anchor])
    return np.stack([anchors, positives], 1)


def _cycled(numbers: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` of the numbers, each equally often to within one, in random order."""
    if not len(numbers):
        return np.empty(0, np.int64)
    rounds = [rng.permutation(numbers) for _ in range(-(-count // len(numbers)))]
    return np.concatenate([*rounds, np.empty(0, np.int64)])[:count].astype(np.int64)


def draw_pool(data: Instances, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw at most `size` image numbers among which negatives are mined, [m] int64, in random order."""
    return rng.permutation(len(data))[:size].astype(np.int64)


def check_tuples(data: Instances, negatives: int, augmented_pairs: float, pool: int, skip: int = 0) -> None:
    """Raise InputError if the data do not suffice for tuples: too few positives, or too few instances for negatives."""
    if augmented_pairs < 1:
        _check_positives(data)
    groups = len(np.unique(data.groups))
    if data.count == 1 and groups == 1:
        raise InputError(
            "all photographs show one instance, but negatives need others; give more instances, or a --background"
        )
    if groups <= negatives + skip:
        raise InputError(
            f"{groups} instances and photographs without one, but {negatives} negatives, {skip} to skip and the "
            "anchor's instance are needed; give more data, a --background, or fewer --negatives"
        )
    if pool <= negatives:
        raise InputError(f"a pool of {pool} photographs cannot give {negatives} negatives; give a larger --pool")


def _check_positives(data: Instances) -> None:
    if data.pairs is not None:
        able = len(data.pairs)
    else:
        labels, counts = np.unique(data.instances[data.instances != NONE], return_counts=True)
        able = int((counts > 1).sum()) if len(labels) else 0
    if not able:
        raise InputError(
            f"no positives: none of {data.count} instances has two photographs; give instances with several, or "
            "--augmented-pairs 1, which makes pairs from single photographs"
        )
