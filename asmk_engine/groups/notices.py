"""What makes a collection hard to group: overlays, hubs, common words and look-alikes.

overlay      what lies in the same place of many pictures, such as a watermark, a frame or a date
hub          an image that matches many others, which do not match each other
common word  a visual word that most images have
look-alike   a pair that may be two different things: similar, but not verified; or two groups that one pair joins
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asmk_engine.groups.comparison import CELLS
from asmk_engine.groups.graph import bridges, members
from asmk_engine.groups.kinds import is_same_photograph
from asmk_engine.groups.verified import Candidates
from asmk_engine.indexes.neighbours import NONE

OVERLAY_EDGES = 8
"""Least number of images with which a picture has the same place in common, for that place to be an overlay."""
OVERLAY_SHIFT = 0.03
OVERLAY_CELLS = 12
"""Most cells of 64 that an overlay covers in one of two images, unless it is a frame."""
FRAME_BORDER = 0.9
"""Share of the inliers in the border from which an overlay is a frame."""
OVERLAY_AGREEMENT = 0.75
"""Share of the edges in which the most frequent cell of an overlay must be."""
HUB_DEGREE = 10
HUB_CLUSTERING = 0.1
"""Share of the pairs of its neighbours that match each other, below which an image is a hub."""
HUB_LOOKED_AT = 100
"""Neighbours of an image that are looked at for that."""
COMMON_IMAGES, COMMON_SHARE, COMMON_FACTOR = 50, 0.5, 10
"""A word is common in at least so many images, with at least this share, which is so often the mean of all words."""
SIDE_IMAGES = 3
"""Least number of images on both sides of a pair that alone joins them, for it to be doubtful."""


@dataclass(frozen=True)
class Overlay:
    """A place of an image that it has in common with many: a watermark, a frame, a date.

    image  number of the image
    edges  with how many images
    cell   row and column of the most frequent cell, of 8 x 8
    """

    image: int
    edges: int
    cell: tuple[int, int]


@dataclass(frozen=True)
class Hub:
    """An image that matches many others, which do not match each other.

    image       number of the image
    degree      with how many images it is joined
    clustering  share of the pairs of these that are joined
    """

    image: int
    degree: int
    clustering: float


@dataclass(frozen=True)
class CommonWord:
    """A visual word that most images have: number of the kind of features, of the word, and share of the images."""

    features: int
    word: int
    share: float


@dataclass(frozen=True)
class LookAlike:
    """A pair of images, by number, that may show two different things.

    score  their similarity in the index
    sides  how many images the pair alone joins on the side of each; 0, 0 if the pair was not verified
    """

    one: int
    other: int
    score: float
    sides: tuple[int, int]


def overlays_of(rows: np.ndarray) -> tuple[np.ndarray, list[Overlay]]:
    """Find which rows [n] of EVIDENCE are due to overlays, [n] bool, and the images that have them, by number."""
    cells = np.bitwise_count(rows["cells"]).min(1, initial=CELLS * CELLS)
    is_still = (rows["shift"] <= OVERLAY_SHIFT) & ~is_same_photograph(rows)
    still = np.flatnonzero(is_still & ((cells <= OVERLAY_CELLS) | (rows["border"] >= FRAME_BORDER)))
    due, found = np.zeros(len(rows), bool), []
    ends = np.concatenate([rows["one"][still], rows["other"][still]])
    places = np.concatenate([rows["cells"][still, 0], rows["cells"][still, 1]])
    for part in members(ends):
        cell, count = _most_frequent(places[part])
        if len(part) >= OVERLAY_EDGES and count >= OVERLAY_AGREEMENT * len(part):
            due[still[part % len(still)]] = True
            found.append(Overlay(int(ends[part[0]]), len(part), divmod(cell, CELLS)))
    images = [overlay.image for overlay in found]
    both = np.isin(rows["one"], images) & np.isin(rows["other"], images)  # in two small images, it covers more
    return due | (both & is_still & (cells <= 2 * OVERLAY_CELLS)), found


def _most_frequent(cells: np.ndarray) -> tuple[int, int]:
    """Return the cell that is in most of these sets of cells, [n] uint64, and in how many."""
    bits = (cells[:, None] >> np.arange(CELLS * CELLS, dtype=np.uint64)) & np.uint64(1)
    counts = bits.sum(0)
    return int(counts.argmax()), int(counts.max())


def hubs_of(rows: np.ndarray) -> list[Hub]:
    """Find the hubs among the images that rows [n] of EVIDENCE join, those of most edges first; copies do not count."""
    views = rows[~is_same_photograph(rows)]
    near: dict[int, list[int]] = {}
    for one, other in zip(views["one"].tolist(), views["other"].tolist(), strict=True):
        near.setdefault(one, []).append(other)
        near.setdefault(other, []).append(one)
    joined: dict[int, set[int]] = {}
    for one, other in zip(rows["one"].tolist(), rows["other"].tolist(), strict=True):
        joined.setdefault(one, set()).add(other)
        joined.setdefault(other, set()).add(one)
    found = []
    for image in sorted(near):
        if len(near[image]) >= HUB_DEGREE:
            clustering = _clustering(sorted(near[image])[:HUB_LOOKED_AT], joined)
            if clustering < HUB_CLUSTERING:
                found.append(Hub(image, len(near[image]), clustering))
    return sorted(found, key=lambda hub: (-hub.degree, hub.image))


def _clustering(near: Sequence[int], joined: dict[int, set[int]]) -> float:
    """Return the share of the pairs of some images that are joined."""
    links = sum(len(joined[one].intersection(near)) for one in near) / 2
    return links / (len(near) * (len(near) - 1) / 2)


def common_words(views: Sequence[Any], images: int) -> list[CommonWord]:
    """Find the words that most images have.

    views   the commit as each kind of local features sees it
    images  number of live images
    """
    found = []
    for number, view in enumerate(views):
        lengths = view.list_lengths
        mean = lengths[lengths > 0].mean() if (lengths > 0).any() else 0.0
        least = max(COMMON_IMAGES, COMMON_SHARE * images, COMMON_FACTOR * mean)
        words = np.flatnonzero(lengths >= least).tolist()
        found += [CommonWord(number, word, float(lengths[word]) / images) for word in words]
    return sorted(found, key=lambda one: (-one.share, one.features, one.word))


def unverified(candidates: Candidates, rows: np.ndarray, labels: np.ndarray) -> list[LookAlike]:
    """Find pairs of different groups that are as similar as the middle one of the verified pairs of views.

    rows    those that join images
    labels  [I] the group of each image
    """
    views = rows[~is_same_photograph(rows)]
    if not len(views):
        return []
    ones, places = np.nonzero(candidates.similarities >= np.float32(np.median(views["score"])))
    others, scores = candidates.numbers[ones, places].astype(np.int64), candidates.similarities[ones, places]
    kept = others != NONE
    kept[kept] = labels[ones[kept]] != labels[others[kept]]
    pairs = {
        (min(one, other), max(one, other)): score
        for one, other, score in zip(ones[kept].tolist(), others[kept].tolist(), scores[kept].tolist(), strict=True)
    }
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return [LookAlike(one, other, score, (0, 0)) for (one, other), score in ordered]


def single_edges(nodes: np.ndarray, count: int, rows: np.ndarray) -> list[LookAlike]:
    """Find pairs that alone join two parts of a group, of several photographs each.

    nodes  [I] the photograph of each image, copies having the same
    count  number of photographs
    rows   those that join images
    """
    ones, others = nodes[rows["one"]], nodes[rows["other"]]
    between = np.flatnonzero(ones != others)
    keys = np.minimum(ones, others)[between] * count + np.maximum(ones, others)[between]
    kept, first, counts = np.unique(keys, return_index=True, return_counts=True)
    found = []
    for edge, one_side, other_side in bridges(count, kept // max(1, count), kept % max(1, count)):
        row = rows[between[first[edge]]]
        if min(one_side, other_side) >= SIDE_IMAGES and counts[edge] == 1:
            straight = int(nodes[row["one"]]) < int(nodes[row["other"]])
            sides = (one_side, other_side) if straight else (other_side, one_side)
            found.append(LookAlike(int(row["one"]), int(row["other"]), float(row["score"]), sides))
    return found
