"""Triplets of hard examples: an anchor, and a positive and a negative among its nearest images by global descriptors.

As in the code of the Reranking Transformer (Tan et al., ICCV 2021, section 4): anchors have at least 5 positives among
their 100 nearest images, and both others are drawn uniformly from these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.training.instances import NONE, Instances

ROWS = 1024


@dataclass(frozen=True)
class NeighbourOptions:
    """Where triplets come from; raises InputError for values below 1.

    neighbours       number of nearest images of an anchor
    least_positives  least number of positives among them
    """

    neighbours: int = 100
    least_positives: int = 5

    def __post_init__(self) -> None:
        if min(self.neighbours, self.least_positives) < 1:
            raise InputError(
                f"neighbours is {self.neighbours}, least_positives {self.least_positives}; give at least 1 each"
            )


@dataclass(frozen=True)
class NeighbourTriplets:
    """The anchors of a training, and what may be drawn for each.

    anchors    [a] int64, numbers of images
    positives  for each anchor the numbers of its near positives, [p] int64 of at least 1: images of its instance, or of
               its given pairs
    negatives  for each anchor those of other groups, [q] int64 of at least 1
    """

    anchors: np.ndarray
    positives: list[np.ndarray]
    negatives: list[np.ndarray]

    def drawn(self, rng: np.random.Generator) -> np.ndarray:
        """Return every anchor once, in random order, with a positive and a negative: [a, 3] int64."""
        order = rng.permutation(len(self.anchors))
        rows = [(self.anchors[one], rng.choice(self.positives[one]), rng.choice(self.negatives[one])) for one in order]
        return np.array(rows, np.int64)


def nearest_images(vectors: np.ndarray, count: int) -> np.ndarray:
    """Return the numbers of the nearest images of each one but itself, nearest first: [n, min(count, n - 1)] int64.

    vectors  [n, D] float32; the similarity is the cosine, and of equal ones the first image is nearer
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1.0)
    found = np.empty((len(unit), max(0, min(count, len(unit) - 1))), np.int64)
    for begin in range(0, len(unit), ROWS):
        similar = unit[begin : begin + ROWS] @ unit.T
        rows = np.arange(len(similar))
        similar[rows, begin + rows] = -np.inf
        found[begin : begin + ROWS] = np.argsort(-similar, axis=1, kind="stable")[:, : found.shape[1]]
    return found


def _partners(data: Instances) -> list[np.ndarray]:
    """Return for each image the numbers of those with which it is a given pair; nothing if no pairs are given."""
    if data.pairs is None:
        return []
    pairs = data.pairs[np.argsort(data.pairs[:, 0], kind="stable")]
    return np.split(pairs[:, 1], np.searchsorted(pairs[:, 0], np.arange(1, len(data))))


def near_triplets(vectors: np.ndarray, data: Instances, options: NeighbourOptions) -> NeighbourTriplets:
    """Return the anchors and what may be drawn for each; raises InputError if no image can be an anchor.

    vectors  [n, D] float32, the global descriptors of the images of `data`, in their order
    """
    anchors, positives, negatives = [], [], []
    partners = _partners(data)
    for number, near in enumerate(nearest_images(vectors, options.neighbours)):
        label, group = data.instances[number], data.groups[number]
        is_same = np.isin(near, partners[number]) if partners else (data.instances[near] == label) & (label != NONE)
        same, other = near[is_same], near[data.groups[near] != group]
        if len(same) >= options.least_positives and len(other):
            anchors.append(number)
            positives.append(same)
            negatives.append(other)
    if not anchors:
        raise InputError(
            f"no image has {options.least_positives} positives, and an image of another instance, among its "
            f"{options.neighbours} nearest images; give more images of each instance, or lower numbers"
        )
    return NeighbourTriplets(np.array(anchors, np.int64), positives, negatives)
