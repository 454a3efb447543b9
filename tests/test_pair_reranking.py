"""Re-ranking by pair scores: the order of a twin, scores that never increase, and junk of each row by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import naive_reranking
from asmk_engine.errors import InputError
from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.evaluation.protocol import Evaluator, evaluate, junk_by_row
from asmk_engine.images.boxes import Box
from asmk_engine.indexes.answers import Hit, RankedImages
from asmk_engine.reranking.evaluation import evaluate_reranked
from asmk_engine.reranking.ranking import PairReranker, PairReranking, candidate_places, reordered

NAMES = [f"{number:02d}.jpg" for number in range(20)]
TRUTH = GroundTruth(
    tuple(NAMES),
    (
        GroundTruthQuery("a", None, frozenset(NAMES[3:6]), frozenset(NAMES[9:11]), frozenset(NAMES[:2]), False),
        GroundTruthQuery("b", (0, 0, 9, 9), frozenset(), frozenset(NAMES[12:14]), frozenset(), False),
    ),
)


class Drawn:
    """Scores pairs by numbers drawn for each query, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Box | None, list[str]]] = []

    @staticmethod
    def of(query: str) -> dict[str, float]:
        drawn = np.random.default_rng(sum(query.encode())).random(len(NAMES)).round(1)
        return dict(zip(NAMES, drawn.tolist(), strict=True))

    def scores(self, query: str, box: Box | None, candidates: Sequence[str]) -> np.ndarray:
        self.asked.append((query, box, list(candidates)))
        return np.array([self.of(query)[name] for name in candidates])


class InOrder:
    """Ranks the images in the order of their names, whatever the query is."""

    def search(self, query: Any, top: int | None) -> list[Hit]:
        return [Hit(name, 1 - number / 20) for number, name in enumerate(NAMES)][:top]

    def rank(self, query: Any) -> RankedImages:
        raise AssertionError("rankings are by names")

    def image_numbers(self, names: Any) -> dict[str, int]:
        return {}


@pytest.mark.parametrize("images", [1, 5, 20, 50])
@pytest.mark.parametrize("weights", [(0.5, 1.0), (1.0, 0.0), (0.0, 1.0), (40.0, 1.0)])
@pytest.mark.parametrize("left_out", [[], NAMES[:2], NAMES[3:9:2], NAMES])
def test_the_order_is_that_of_the_twin(images: int, weights: tuple[float, float], left_out: list[str]) -> None:
    hits, reranker = InOrder().search(None, None), PairReranker(Drawn(), PairReranking(images, *weights))
    found = reranker.rerank("a", None, hits, left_out)
    ranking = [(hit.name, hit.score) for hit in hits]
    assert [hit.name for hit in found] == naive_reranking.reranked(ranking, Drawn.of("a"), images, *weights, left_out)
    scores = [hit.score for hit in found]
    assert scores == sorted(scores, reverse=True)
    compared = [hit for hit in hits if hit.name not in left_out][:images]
    new = {hit.name: hit.score for hit in found}
    for hit in compared:
        assert new[hit.name] == pytest.approx(weights[1] * hit.score + weights[0] * Drawn.of("a")[hit.name])


def test_images_behind_keep_their_scores_or_the_differences_of_them() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.4])
    order, found = reordered(scores, [0, 1], np.array([0.1, 0.4]), PairReranking(2))
    assert order.tolist() == [1, 0, 2, 3] and found == pytest.approx([1.0, 0.95, 0.7, 0.4])
    order, found = reordered(scores, [0, 1], np.array([0.1, 0.3]), PairReranking(2, 1, 0))
    assert order.tolist() == [1, 0, 2, 3] and found == pytest.approx([0.3, 0.1, 0.1, -0.2])


def test_nothing_to_rank() -> None:
    scorer = Drawn()
    assert PairReranker(scorer, PairReranking()).rerank("a", None, []) == [] and not scorer.asked
    assert candidate_places([], 3) == [] and candidate_places(["a", "b", "c"], 1, {"a"}) == [1]
    order, found = reordered(np.zeros(0), [], np.zeros(0), PairReranking())
    assert len(order) == len(found) == 0


def test_numbers_out_of_range_are_refused() -> None:
    for bad in (PairReranking, lambda **options: reordered(np.ones(1), [0], np.array([np.nan]), PairReranking())):
        with pytest.raises(InputError):
            bad(images=0)
    for name in ("weight", "base_weight"):
        for value in (-1.0, np.nan, np.inf):
            with pytest.raises(InputError, match=f"{name} is"):
                PairReranking(**{name: value})


def test_each_row_of_a_protocol_has_its_own_candidates() -> None:
    scorer, told, kept = Drawn(), [], {}
    reranker = PairReranker(scorer, PairReranking(4))
    report = evaluate_reranked(
        TRUTH,
        InOrder(),
        lambda query: query.name,
        reranker=reranker,
        progress=lambda done, total: told.append((done, total)),
        keep=kept.update,
    )
    assert told == [(1, 2), (2, 2)]
    assert scorer.asked[1][:2] == ("b", (0, 0, 9, 9))  # the region reaches the scorer
    junk = junk_by_row(TRUTH.queries[0], TRUTH)
    assert junk == {"easy": {*NAMES[:2], *NAMES[9:11]}, "medium": set(NAMES[:2]), "hard": set(NAMES[:6]) - {NAMES[2]}}
    assert list(junk_by_row(TRUTH.queries[1], TRUTH)) == ["medium", "hard"]
    ranking = [(hit.name, hit.score) for hit in InOrder().search(None, None)]
    for query in TRUTH.queries:
        for row, gone in junk_by_row(query, TRUTH).items():
            order = naive_reranking.reranked(ranking, Drawn.of(query.name), 4, 0.5, 1.0, gone)
            alone = evaluate(TRUTH, {one.name: order for one in TRUTH.queries})
            assert report.per_query[row][query.name] == alone.per_query[row][query.name]
            if row == "medium":
                assert [hit.name for hit in kept[query.name]] == order


def test_a_protocol_of_a_limited_depth_searches_no_deeper_than_needed() -> None:
    queries = tuple(replace(query, hard=frozenset(), junk=frozenset()) for query in TRUTH.queries[:1])
    truth = GroundTruth(TRUTH.images, queries, protocol="gldv2")
    report = evaluate_reranked(truth, InOrder(), lambda query: 0, reranker=PairReranker(Drawn(), PairReranking(150)))
    ranking = [(hit.name, hit.score) for hit in InOrder().search(None, None)]
    order = naive_reranking.reranked(ranking, Drawn.of("a"), 150, 0.5, 1.0, [])
    assert report == evaluate(truth, {"a": order})


def test_missing_queries_and_rows_given_twice() -> None:
    reranker = PairReranker(Drawn(), PairReranking(4))
    report = evaluate_reranked(
        TRUTH, InOrder(), lambda query: query.name if query.name == "a" else None, reranker=reranker, allow_missing=True
    )
    assert report.unranked == ("b",) and report.per_query["hard"]["b"] == 0
    evaluator = Evaluator(TRUTH)
    evaluator.add_rows("unknown", {})
    evaluator.add_rows("a", {"easy": NAMES})
    with pytest.raises(InputError, match="two rankings"):
        evaluator.add_rows("a", {"easy": NAMES})
