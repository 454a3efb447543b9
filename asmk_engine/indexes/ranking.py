"""Selection of the best images of a query over all segments, block by block."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asmk_engine.indexes.answers import RankedImages
from asmk_engine.indexes.image_table import ImageTable

Part = tuple[int, np.ndarray, np.ndarray]
"""Images of one segment: the position of the segment, image numbers in it [n] int64, and scores [n] float64."""


class Ranking:
    """Collects scores from any number of threads and keeps the `top` best, or all if None.

    floor  least score of a candidate. It rises once `top` images are known, so that later blocks report fewer; the
           order of the blocks changes only the number of intermediate candidates, never the result
    slack  tolerance below the score of the last of the best, for scores that are not exact
    """

    def __init__(self, top: int | None, floor: float = 0.0, slack: float = 0.0) -> None:
        self.floor = floor
        self._top, self._slack = top, slack
        self._best = np.empty(0)
        self._found: list[Part] = []
        self._lock = threading.Lock()

    def add(self, segment: int, begin: int, numbers: np.ndarray, scores: np.ndarray) -> None:
        """Add the scores, [n] float64 and not below `floor`, of the images `begin` + `numbers`, [n], of a segment."""
        if self._top is not None and len(scores) > self._top:  # keep all ties with the last: their names decide
            kept = scores >= _last_of_best(scores, self._top) - self._slack
            numbers, scores = numbers[kept], scores[kept]
        with self._lock:
            self._found.append((segment, begin + numbers.astype(np.int64), scores))
            if self._top is not None:
                self._raise_floor(scores, self._top)

    def _raise_floor(self, scores: np.ndarray, top: int) -> None:
        best = np.concatenate([self._best, scores])
        if len(best) >= top:
            self.floor = float(_last_of_best(best, top)) - self._slack
            best = np.partition(best, len(best) - top)[len(best) - top :]
        self._best = best

    def parts(self) -> list[Part]:
        """Return all images that can be among the best."""
        if self._top is None:
            return self._found
        reached = [scores >= self.floor for _, _, scores in self._found]
        return [(part[0], part[1][kept], part[2][kept]) for part, kept in zip(self._found, reached, strict=True)]


@dataclass(frozen=True)
class BestImages:
    """The best images of one query, best first.

    segments  [n] int64, positions of the segments
    numbers   [n] int64, image numbers in these segments
    scores    [n] float64
    names     [n] names in UTF-8
    """

    segments: np.ndarray
    numbers: np.ndarray
    scores: np.ndarray
    names: Sequence[bytes]

    def without(self, segment: int, number: int, top: int) -> BestImages:
        """Return the best `top` images without the given one."""
        rows = np.flatnonzero((self.segments != segment) | (self.numbers != number))[:top]
        return BestImages(self.segments[rows], self.numbers[rows], self.scores[rows], [self.names[row] for row in rows])


def best_images(segments: Sequence[ImageTable], parts: Sequence[Part], top: int | None) -> BestImages:
    """Select the `top` best images, all if None, best first; equal scores in byte order of the names."""
    numbers = np.concatenate([np.empty(0, np.int64), *(found for _, found, _ in parts)])
    scores = np.concatenate([np.empty(0), *(found for _, _, found in parts)])
    lengths = np.array([len(found) for _, found, _ in parts], np.int64)
    places = np.repeat(np.array([place for place, _, _ in parts], np.int64), lengths)
    if top is not None and len(scores) > top:  # keep all ties with the last: their names decide
        kept = scores >= _last_of_best(scores, top)
        places, numbers, scores = places[kept], numbers[kept], scores[kept]
    names = _names(segments, places, numbers)
    keys = list(zip((-scores).tolist(), names, strict=True))
    order = sorted(range(len(keys)), key=keys.__getitem__)[:top]
    rows = np.array(order, np.int64)
    return BestImages(places[rows], numbers[rows], scores[rows], [names[row] for row in order])


def _names(segments: Sequence[ImageTable], places: np.ndarray, numbers: np.ndarray) -> list[bytes]:
    names = [b""] * len(numbers)
    for place in {*places.tolist()}:
        rows = np.flatnonzero(places == place)
        for row, name in zip(rows.tolist(), segments[place].names_as_bytes(numbers[rows]), strict=True):
            names[row] = name
    return names


def ordered(parts: Sequence[Part], starts: np.ndarray, ranks: np.ndarray) -> RankedImages:
    """Rank all images as numbers over all segments, in the order of `best_images`, without reading names.

    starts  first image number of each segment, see `image_starts`
    ranks   rank of each image by its name, see `name_ranks`
    """
    numbers = np.concatenate([np.empty(0, np.int64), *(starts[place] + found for place, found, _ in parts)])
    scores = np.concatenate([np.empty(0), *(found for _, _, found in parts)])
    order = np.lexsort((ranks[numbers], -scores))
    return RankedImages(numbers[order], scores[order])


def _last_of_best(scores: np.ndarray, top: int) -> np.float64:
    place = len(scores) - top
    last: np.float64 = np.partition(scores, place)[place]
    return last
