"""The graph of a collection: the nearest images of each image, and what verification finds in each pair of them.

Each pair is compared once, in both directions, wherever one image is among the nearest of the other. Copies crowd out
other images: the nearest images of one of a thousand copies are copies. So one image of each such crowd is compared
with what comes behind its copies as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from asmk_engine import threads
from asmk_engine.groups.comparison import EVIDENCE, Geometries, as_bytes, best_evidence, ends_of, from_bytes
from asmk_engine.groups.graph import components, members
from asmk_engine.groups.images import ComparedImages
from asmk_engine.groups.journal import PieceJournal
from asmk_engine.groups.kinds import CROWD_SHARE
from asmk_engine.groups.options import Grouping
from asmk_engine.indexes.neighbours import NONE
from asmk_engine.iteration import Display
from asmk_engine.verification.match import Verification

SEARCH_PIECE = 256
"""Images whose nearest images are one piece of the journal: what a killed run computes again at most."""
PAIRS_PIECE = 3200
"""Pairs that are one piece, about."""
CROWD = 0.5
"""Share of the nearest images that copies may take before more are looked at."""


@dataclass(frozen=True)
class Candidates:
    """The nearest images of each image.

    numbers       [I, k] uint32, the best first; NONE for no image
    similarities  [I, k] float32
    """

    numbers: np.ndarray
    similarities: np.ndarray

    @property
    def width(self) -> int:
        """The number of nearest images of an image."""
        return int(self.numbers.shape[1])

    def of(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the nearest images of one, [n] int64, and their similarities, [n]."""
        row = self.numbers[number]
        kept = row != NONE
        return row[kept].astype(np.int64), self.similarities[number][kept]

    def due(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return those with which an image is to be compared: not where an earlier image already was with it."""
        near, similarities = self.of(number)
        kept = (near > number) | ~(self.numbers[near] == number).any(1)
        return near[kept], similarities[kept]


class Comparer:
    """One run over a collection, in pieces of a journal.

    unplaced  numbers of images that have features, but whose geometry is not at hand
    """

    def __init__(self, images: ComparedImages, grouping: Grouping, journal: PieceJournal, display: Display) -> None:
        self._images, self._grouping, self._journal, self._display = images, grouping, journal, display
        self.unplaced: set[int] = set()
        self._width = max(0, min(grouping.neighbours, len(images.live) - 1))

    def candidates(self) -> Candidates:
        """Return the nearest images of all images: found, or read from the journal."""
        count = self._images.count
        numbers = np.full((count, self._width), NONE, np.uint32)
        similarities = np.zeros((count, self._width), np.float32)
        with self._display.bar("nearest images", "images") as progress:
            for piece, begin in enumerate(range(0, count, SEARCH_PIECE)):
                end = min(begin + SEARCH_PIECE, count)
                found = self._journal.piece("nearest", piece, self._search(begin, end))
                numbers[begin:end], similarities[begin:end] = found["numbers"], found["similarities"]
                progress(end, count)
        return Candidates(numbers, similarities)

    def _search(self, begin: int, end: int) -> Callable[[], dict[str, np.ndarray]]:
        def search() -> dict[str, np.ndarray]:
            numbers = np.full((end - begin, self._width), NONE, np.uint32)
            similarities = np.zeros((end - begin, self._width), np.float32)
            if self._width:
                for image, near, scores in self._images.nearest(begin, end, self._width):
                    numbers[image - begin, : len(near)], similarities[image - begin, : len(near)] = near, scores
            return {"numbers": numbers, "similarities": similarities}

        return search

    def verified(self, candidates: Candidates) -> np.ndarray:
        """Return what the comparison of all candidates finds, rows [n] of EVIDENCE, without the pairs of chance."""
        count, step = self._images.count, max(1, PAIRS_PIECE // max(1, candidates.width))
        found = [np.empty(0, EVIDENCE)]
        with self._display.bar("verification", "images") as progress:
            for piece, begin in enumerate(range(0, count, step)):
                numbers = range(begin, min(begin + step, count))
                due = ((number, *candidates.due(number)) for number in numbers)
                found.append(self._compared("verified", piece, due))
                progress(numbers.stop, count)
        rows = np.concatenate(found)
        return _each_once(np.concatenate([rows, self._behind_crowds(candidates, rows)]))

    def _behind_crowds(self, candidates: Candidates, rows: np.ndarray) -> np.ndarray:
        """Compare one image of each crowd of copies with the nearest images behind its copies."""
        crowds = list(_crowds(rows, self._images.count, CROWD * candidates.width))
        found = [np.empty(0, EVIDENCE)]
        for piece, crowd in enumerate(crowds):
            found.append(self._compared("behind", piece, self._behind(crowd, candidates.width)))
        return np.concatenate(found)

    def _behind(self, crowd: np.ndarray, width: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        first = int(crowd[0])
        for number, near, scores in self._images.nearest(first, first + 1, len(crowd) + width):
            kept = np.flatnonzero(~np.isin(near, crowd))[:width]
            yield number, near[kept], scores[kept].astype(np.float32)

    def _compared(self, stage: str, piece: int, due: Iterator[tuple[int, np.ndarray, np.ndarray]]) -> np.ndarray:
        found = self._journal.piece(stage, piece, lambda: self._compare(due))
        self.unplaced |= {*found["unplaced"].tolist()}
        return from_bytes(found["rows"])

    def _compare(self, due: Iterator[tuple[int, np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
        unplaced: list[int] = []
        tasks = (self._task(*one, unplaced) for one in due)
        rows = np.concatenate([np.empty(0, EVIDENCE), *threads.stream(_rows, tasks, self._images.threads)])
        return {"rows": as_bytes(rows), "unplaced": np.array(unplaced, np.uint32)}

    def _task(self, number: int, near: np.ndarray, similarities: np.ndarray, unplaced: list[int]) -> _Task:
        """Read the geometry of an image and of those to compare it with; what is damaged raises here."""
        geometries = [self._images.geometries(other) for other in near.tolist()]
        own = self._images.geometries(number)
        if self._images.is_unplaced(number, own):
            unplaced.append(number)
        return _Task(number, near, similarities, own, geometries, self._grouping.verification)


@dataclass(frozen=True)
class _Task:
    """An image, those with which it is compared, and the geometry of all of them."""

    number: int
    near: np.ndarray
    similarities: np.ndarray
    own: Geometries
    others: Sequence[Geometries]
    options: Verification


def _rows(task: _Task) -> np.ndarray:
    others = zip(task.near.tolist(), task.similarities.tolist(), task.others, strict=True)
    return best_evidence(task.number, task.own, others, task.options)


def _crowds(rows: np.ndarray, count: int, least: float) -> Iterator[np.ndarray]:
    """Yield the sets of images that are much alike, with at least so many images, each [n] int64, in their order."""
    same = rows[rows["share"] >= CROWD_SHARE]
    labels = components(count, same["one"], same["other"])
    return (one for one in members(labels) if len(one) >= max(2.0, least))


def _each_once(rows: np.ndarray) -> np.ndarray:
    """Return the rows of each pair of images that come first, in the order of the pairs."""
    return rows[np.unique(ends_of(rows), axis=0, return_index=True)[1]]
