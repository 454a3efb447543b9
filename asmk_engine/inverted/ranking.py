"""The best images of one query, gathered range by range."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Sequence

import numpy as np

from asmk_engine.inverted.segment import Segment
from asmk_engine.kernels.rank import normalise


class Ranking:
    """Gathers scores from any number of threads and keeps the `top` best, or all above 0 when None.

    Once so many images are known, later ranges report only what reaches the last of them; which range comes first
    changes how much is set aside on the way and never what remains.
    """

    def __init__(self, top: int | None) -> None:
        self._top = top
        self._least = 0.0  # what an image has to reach to be among the best
        self._best = np.empty(0)
        self._found: list[tuple[int, np.ndarray, np.ndarray]] = []
        self._lock = threading.Lock()

    def add(self, segment: int, begin: int, raw: np.ndarray, norms: np.ndarray, query_norm: float) -> None:
        """Take the scores of images `begin` and following of a segment.

        segment     which one of those that `candidates` will get
        raw, norms  [n] float64: what the postings of each image are worth, and its norm
        """
        numbers, scores = np.empty(len(raw), np.uint32), np.empty(len(raw))
        count = normalise(raw, norms, query_norm, self._least, numbers, scores)
        numbers, scores = numbers[:count], scores[:count]
        if self._top is not None and count > self._top:  # all that tie with the last stay: their names decide
            kept = scores >= _last_of_best(scores, self._top)
            numbers, scores = numbers[kept], scores[kept]
        with self._lock:
            self._found.append((segment, begin + numbers.astype(np.int64), scores))
            if self._top is not None:
                self._raise_least(scores, self._top)

    def _raise_least(self, scores: np.ndarray, top: int) -> None:
        best = np.concatenate([self._best, scores])
        if len(best) >= top:
            self._least = float(_last_of_best(best, top))
            best = np.partition(best, len(best) - top)[len(best) - top :]
        self._best = best

    def candidates(self, segments: Sequence[Segment]) -> list[tuple[float, bytes]]:
        """Score and name of the best, best first; equal scores in byte order of the names."""
        reached = [
            (float(score), segments[place].name_as_bytes(int(number)))
            for place, numbers, scores in self._found
            for number, score in zip(numbers, scores, strict=True)
            if score >= self._least
        ]
        if self._top is None:
            return sorted(reached, key=_rank)
        return heapq.nsmallest(self._top, reached, key=_rank)

    def arrays(self, starts: np.ndarray, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers [n] int64 and scores [n] float64 of all that were found, in the order of `candidates`.

        starts  what is added to the numbers of each segment, see `image_starts`
        ranks   the place of each image by its name, see `name_ranks`
        """
        numbers = [starts[place] + found for place, found, _ in self._found]
        joined = np.concatenate([np.empty(0, np.int64), *numbers])
        scores = np.concatenate([np.empty(0), *(scores for _, _, scores in self._found)])
        order = np.lexsort((ranks[joined], -scores))
        return joined[order], scores[order]


def _last_of_best(scores: np.ndarray, top: int) -> np.float64:
    place = len(scores) - top
    last: np.float64 = np.partition(scores, place)[place]
    return last


def _rank(candidate: tuple[float, bytes]) -> tuple[float, bytes]:
    return -candidate[0], candidate[1]
