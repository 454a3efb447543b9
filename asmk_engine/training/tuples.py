"""Anchors and positives of an epoch, and whether the data can give them."""

from __future__ import annotations

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.training.instances import NONE, Instances


def draw_pairs(data: Instances, count: int, augmented_pairs: float, rng: np.random.Generator) -> np.ndarray:
    """Pairs of an epoch, [n, 2] int64: numbers of anchor and positive; the same twice for two views of a photograph.

    count      how many; of given pairs no more than there are
    augmented_pairs  the part of them, 0 to 1, that are views of any photograph of the data
    Given pairs are drawn without repetition. Else every photograph that has a positive is an anchor as often as any
    other, to within one, and its positive is any other photograph of its instance.
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
    """So many of the numbers, each as often as any other to within one, in random order."""
    if not len(numbers):
        return np.empty(0, np.int64)
    rounds = [rng.permutation(numbers) for _ in range(-(-count // len(numbers)))]
    return np.concatenate([*rounds, np.empty(0, np.int64)])[:count].astype(np.int64)


def draw_pool(data: Instances, size: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of the photographs, at most `size`, among which negatives are looked for, [m] int64, in random order."""
    return rng.permutation(len(data))[:size].astype(np.int64)


def check_tuples(data: Instances, negatives: int, augmented_pairs: float, pool: int, skip: int = 0) -> None:
    """InputError when the data cannot give tuples: too few positives, or too few instances for negatives."""
    if augmented_pairs < 1:
        _check_positives(data)
    groups = len(np.unique(data.groups))
    if data.count == 1 and groups == 1:
        raise InputError(
            "all photographs show one instance; negatives must come from others: give more of them, or a --background"
        )
    if groups <= negatives + skip:
        raise InputError(
            f"{groups} instances and photographs of none, but {negatives} negatives of {skip} passed over and the "
            "anchor's own are needed; give more data, a --background, or fewer --negatives"
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
            f"no positives: none of {data.count} instances has two photographs; give instances that have, or "
            "--augmented-pairs 1, which makes pairs of single photographs"
        )
