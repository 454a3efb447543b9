"""Nearest vectors of queries, identical to the last bit for any division into segments, blocks and threads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asmk_engine import threads
from asmk_engine.flat.products import EXACT_BYTES, VectorScores
from asmk_engine.flat.snapshot import GlobalSnapshot
from asmk_engine.indexes.ranking import BestImages, Part, Ranking, best_images

Candidates = Sequence[tuple[int, np.ndarray]]
"""Pairs of the position of a segment and image numbers in it."""
LEAST = float(np.finfo(np.float32).min)  # a deleted image scores minus infinity


def nearest(
    snapshot: GlobalSnapshot, scores: VectorScores, queries: int, top: int | None, count: int
) -> list[BestImages]:
    """Find the `top` nearest live images of each query, all if None, with `count` threads.

    queries  number of queries in `scores`
    """
    candidates = [_everything(snapshot)] * queries if top is None else _proposed(snapshot, scores, queries, top, count)
    exact = (_exact(snapshot, scores, query, found, count) for query, found in enumerate(candidates))
    return [best_images(snapshot.segments, parts, top) for parts in exact]


def _proposed(snapshot: GlobalSnapshot, scores: VectorScores, queries: int, top: int, count: int) -> list[Candidates]:
    """Select the images that can be among the best: approximate scores within twice the margin of the `top`-th best."""
    rankings = [Ranking(top, LEAST, 2 * scores.margin) for _ in range(queries)]
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
        for ranking, row in zip(rankings, found, strict=True):
            numbers = np.flatnonzero(row >= ranking.floor)
            ranking.add(place, begin, numbers, row[numbers].astype(np.float64))
    return [_by_segment(ranking.parts()) for ranking in rankings]


def _by_segment(parts: Sequence[Part]) -> Candidates:
    found: dict[int, list[np.ndarray]] = {}
    for place, numbers, _ in parts:
        found.setdefault(place, []).append(numbers)
    return [(place, np.concatenate(numbers)) for place, numbers in found.items()]


def all_scores(snapshot: GlobalSnapshot, scores: VectorScores, count: int) -> list[Part]:
    """Compute the exact scores of all live images for the first query."""
    return _exact(snapshot, scores, 0, _everything(snapshot), count)


def _everything(snapshot: GlobalSnapshot) -> Candidates:
    return [(place, segment.live_numbers()) for place, segment in enumerate(snapshot.segments)]


def _exact(snapshot: GlobalSnapshot, scores: VectorScores, query: int, found: Candidates, count: int) -> list[Part]:
    each = max(1, EXACT_BYTES // (4 * snapshot.encoder.width))
    tasks = [(place, some[begin : begin + each]) for place, some in found for begin in range(0, len(some), each)]
    exact = threads.run(lambda task: scores.exact(snapshot.segments[task[0]].rows_of(task[1]), query), tasks, count)
    return [(place, numbers, values) for (place, numbers), values in zip(tasks, exact, strict=True)]
