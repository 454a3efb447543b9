"""The images of an epoch of a training by classes, in their order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def every_image(members: Mapping[int, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return every image once, in random order, [n] int64."""
    return rng.permutation(np.concatenate(list(members.values())))


def by_class(members: Mapping[int, np.ndarray], count: int, together: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` images, rounded down to runs of `together` images of one class, [n] int64.

    Every class comes equally often, to within one, in a new random order each time; its images are drawn without
    replacement, and again only if it has fewer than `together`.
    """
    runs: list[np.ndarray] = []
    while len(runs) < count // together:
        runs += [_drawn(members[label], together, rng) for label in rng.permutation(sorted(members)).tolist()]
    return np.concatenate(runs[: count // together] or [np.empty(0, np.int64)])


def _drawn(images: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    rounds = [rng.permutation(images) for _ in range(-(-count // len(images)))]
    return np.concatenate(rounds)[:count]


def with_positives(
    items: np.ndarray, members: Mapping[int, np.ndarray], labels: np.ndarray, seed: list[int]
) -> np.ndarray:
    """Return each image with another one of its class, [n, 2] int64; with itself where its class has no other.

    labels  class of each image, by image number
    """
    rng = np.random.default_rng(seed)
    positives = items.copy()
    for place, image in enumerate(items.tolist()):
        own = members[int(labels[image])]
        others = own[own != image]
        positives[place] = rng.choice(others) if len(others) else image
    return np.stack([items, positives], 1)
