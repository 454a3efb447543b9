"""Evaluation of an index whose rankings are ranked anew by pair scores, for each row of a protocol by itself.

Each row of a report has its own junk, so the images that are compared differ between Easy, Medium and Hard, as in the
code of CVNet and in that of DELG.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.evaluation.protocol import Evaluator, Report, depth_needed, junk_by_row
from asmk_engine.indexes.answers import Hit
from asmk_engine.reranking.ranking import PairReranker
from asmk_engine.search.evaluation import Ranker, Rankings

QueryT = TypeVar("QueryT")


def evaluate_reranked(
    ground_truth: GroundTruth,
    searcher: Ranker[QueryT],
    features: Callable[[GroundTruthQuery], QueryT | None],
    *,
    reranker: PairReranker,
    keep: Callable[[Rankings], object] | None = None,
    allow_missing: bool = False,
    interval: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Report:
    """Search for every query of a ground truth, rank the first images anew for each row, and evaluate.

    Parameters and errors are those of `search.evaluation.evaluate_index`; `keep` receives the rankings of the row by
    which queries are compared, Medium under `revisited`.
    """
    evaluator, depth = Evaluator(ground_truth), depth_needed(ground_truth)
    most = None if depth is None else max(depth, reranker.options.images)

    def answer(query: GroundTruthQuery, search_input: QueryT) -> list[Hit]:
        hits, junk = searcher.search(search_input, most), junk_by_row(query, ground_truth)
        rows = reranker.rerank_rows(query.name, query.box, hits, junk)
        evaluator.add_rows(query.name, {row: [hit.name for hit in found] for row, found in rows.items()})
        return rows.get("medium") or next(iter(rows.values()), hits)

    def rankings() -> Rankings:
        for done, query in enumerate(ground_truth.queries, start=1):
            if (search_input := features(query)) is not None:
                yield query.name, answer(query, search_input)
            if progress is not None:
                progress(done, len(ground_truth.queries))

    (keep or _exhaust)(rankings())
    return evaluator.report(allow_missing=allow_missing, interval=interval)


def _exhaust(rankings: Rankings) -> None:
    deque(rankings, maxlen=0)
