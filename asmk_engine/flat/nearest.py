"""The nearest vectors to some others, the same to the last bit however segments, blocks and threads divide the work."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asmk_engine import threads
from asmk_engine.flat.products import EXACT_BYTES, VectorScores
from asmk_engine.flat.snapshot import GlobalSnapshot

MANY_NAMES = 16  # from so many on the whole table of names is compared with its checksums, and read at once


@dataclass(frozen=True)
class Nearest:
    """The nearest images of one query, best first: segments [n] and numbers [n] int64, scores [n] float64, names."""

    segments: np.ndarray
    numbers: np.ndarray
    scores: np.ndarray
    names: Sequence[bytes]

    def without(self, segment: int, number: int, top: int) -> Nearest:
        """The best `top` but one image."""
        rows = np.flatnonzero((self.segments != segment) | (self.numbers != number))[:top]
        return Nearest(self.segments[rows], self.numbers[rows], self.scores[rows], [self.names[row] for row in rows])


class _Best:
    """The best images of one query so far: those that reach the `top`-th best, less what approximate scores may err."""

    def __init__(self, top: int, margin: float) -> None:
        self._top, self._slack = top, 2 * margin
        self._least = -math.inf
        self._best = np.empty(0)
        self._found: list[tuple[int, np.ndarray, np.ndarray]] = []

    def add(self, place: int, begin: int, scores: np.ndarray) -> None:
        """Take the approximate scores of images `begin` and following of a segment, -inf for a deleted one."""
        floor = self._least - self._slack
        numbers = np.flatnonzero(scores >= floor) if floor > -math.inf else np.flatnonzero(scores > -math.inf)
        scores = scores[numbers].astype(np.float64)
        best = np.concatenate([self._best, scores])
        if len(best) >= self._top:
            best = np.partition(best, len(best) - self._top)[len(best) - self._top :]
            self._least = float(best[0])
        self._best = best
        kept = scores >= self._least - self._slack
        self._found.append((place, begin + numbers[kept], scores[kept]))

    def candidates(self) -> list[tuple[int, np.ndarray]]:
        """Segment and image numbers of all that can be among the best."""
        floor = self._least - self._slack
        by_place: dict[int, list[np.ndarray]] = {}
        for place, numbers, scores in self._found:
            by_place.setdefault(place, []).append(numbers[scores >= floor])
        return [(place, np.concatenate(parts)) for place, parts in by_place.items()]


def nearest(snapshot: GlobalSnapshot, scores: VectorScores, queries: int, top: int | None, count: int) -> list[Nearest]:
    """The `top` nearest live images of each of so many queries, all of them when None, by `count` threads."""
    candidates = [_everything(snapshot)] * queries if top is None else _proposed(snapshot, scores, queries, top, count)
    return [_ranked(snapshot, scores, query, found, top, count) for query, found in enumerate(candidates)]


def _proposed(
    snapshot: GlobalSnapshot, scores: VectorScores, queries: int, top: int, count: int
) -> list[list[tuple[int, np.ndarray]]]:
    best = [_Best(top, scores.margin) for _ in range(queries)]
    blocks = [
        (place, begin, end)
        for place, segment in enumerate(snapshot.segments)
        for begin, end in segment.blocks(scores.block_bytes)
    ]

    def scored(block: tuple[int, int, int]) -> tuple[int, int, np.ndarray]:
        place, begin, end = block
        segment = snapshot.segments[place]
        found = scores.approximate(segment, begin, end)
        if segment.deleted is not None:
            found[:, segment.deleted[begin:end]] = -np.inf
        return place, begin, found

    for place, begin, found in threads.stream(scored, blocks, count if scores.side_by_side else 1):
        for one, row in zip(best, found, strict=True):
            one.add(place, begin, row)
    return [one.candidates() for one in best]


def _ranked(
    snapshot: GlobalSnapshot,
    scores: VectorScores,
    query: int,
    found: Sequence[tuple[int, np.ndarray]],
    top: int | None,
    count: int,
) -> Nearest:
    """The exact scores of all candidates, best first; equal scores in byte order of the names."""
    segments, numbers, values = _exact(snapshot, scores, query, found, count)
    if top is not None and len(values) > top:  # all that tie with the last stay: their names decide
        kept = values >= np.partition(values, len(values) - top)[len(values) - top]
        segments, numbers, values = segments[kept], numbers[kept], values[kept]
    names = _names(snapshot, segments, numbers)
    wanted = len(values) if top is None else top
    order = heapq.nsmallest(wanted, range(len(values)), key=lambda row: (-values[row], names[row]))
    return Nearest(segments[order], numbers[order], values[order], [names[row] for row in order])


def all_scores(snapshot: GlobalSnapshot, scores: VectorScores, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Segments [n] and numbers [n] int64 and scores [n] float64 of all live images for the first query."""
    return _exact(snapshot, scores, 0, _everything(snapshot), count)


def _everything(snapshot: GlobalSnapshot) -> list[tuple[int, np.ndarray]]:
    return [(place, segment.live_numbers()) for place, segment in enumerate(snapshot.segments)]


def _exact(
    snapshot: GlobalSnapshot, scores: VectorScores, query: int, found: Sequence[tuple[int, np.ndarray]], count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    each = max(1, EXACT_BYTES // (4 * snapshot.codebook.width))
    tasks = [(place, some[begin : begin + each]) for place, some in found for begin in range(0, len(some), each)]
    exact = threads.run(lambda task: scores.exact(snapshot.segments[task[0]].rows_of(task[1]), query), tasks, count)
    segments = np.repeat([place for place, _ in tasks], [len(numbers) for _, numbers in tasks]).astype(np.int64)
    numbers = np.concatenate([np.empty(0, np.int64), *(numbers for _, numbers in tasks)])
    return segments, numbers, np.concatenate([np.empty(0), *exact])


def _names(snapshot: GlobalSnapshot, segments: np.ndarray, numbers: np.ndarray) -> list[bytes]:
    if len(numbers) > MANY_NAMES:
        names = [b""] * len(numbers)
        for place in np.unique(segments).tolist():
            rows = np.flatnonzero(segments == place)
            found = snapshot.segments[place].names_as_bytes(numbers[rows])
            for row, name in zip(rows.tolist(), found, strict=True):
                names[row] = name
        return names
    pairs = zip(segments.tolist(), numbers.tolist(), strict=True)
    return [snapshot.segments[place].name_as_bytes(number) for place, number in pairs]
