"""`evaluate_index`: by numbers, by names and with kept rankings the same report as of rankings by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.evaluation.protocol import evaluate
from asmk_engine.features import Features
from asmk_engine.flat import CodecOptions, GlobalIndex, GlobalSearcher
from asmk_engine.flat.codec_training import train_codec
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.search.evaluation import Rankings, evaluate_index
from global_samples import write_global
from samples import make_features, random_codebook, write_features

DIM, NAMES = 32, [f"{number}.jpg" for number in range(30)]
TRUTH = GroundTruth(
    tuple(NAMES[:20]),
    tuple(
        GroundTruthQuery(NAMES[q], None, frozenset(NAMES[q + 3 : q + 6]), frozenset(NAMES[q + 9 : q + 11]),
                   frozenset([NAMES[q + 1]]), True)
        for q in range(4)
    ),
)  # fmt: skip


def images(seed: int, count: int) -> dict[str, Features]:
    rng = np.random.default_rng(seed)
    return {name: make_features(rng.normal(size=(count, DIM))) for name in NAMES}


def asmk(folder: Path) -> tuple[Any, dict[str, Features]]:
    index, described = Index.create(folder / "i.index", random_codebook(24, DIM)), images(0, 20)
    index.add(write_features(folder / "i.features", described))
    return Searcher(index), described


def joint(folder: Path) -> tuple[Any, dict[str, Features]]:
    searcher, described = asmk(folder)
    more = Index.create(folder / "more.index", random_codebook(24, DIM))
    more.add(write_features(folder / "more.features", images(1, 20)))
    return Searcher(JointIndex([searcher.index], [more])), described


def flat(folder: Path) -> tuple[Any, dict[str, Features]]:
    described = images(0, 1)
    features = write_global(folder / "g.features", described)
    index = GlobalIndex.create(folder / "g.index", train_codec(features, CodecOptions()))
    index.add(features)
    return GlobalSearcher(index), described


@pytest.mark.parametrize("make", [asmk, joint, flat])
@pytest.mark.parametrize("protocol", ["revisited", "gldv2"])
def test_the_report_is_that_of_rankings_by_hand(
    make: Callable[[Path], tuple[Any, dict[str, Features]]], protocol: str, tmp_path: Path
) -> None:
    searcher, described = make(tmp_path)
    ground_truth = TRUTH if protocol == "revisited" else landmarks()
    rankings = {query.name: searcher.search(described[query.name], None) for query in ground_truth.queries}
    expected = evaluate(
        ground_truth, {name: [hit.name for hit in hits] for name, hits in rankings.items()}, interval=True
    )
    told: list[tuple[int, int]] = []
    found = evaluate_index(
        ground_truth,
        searcher,
        lambda query: described[query.name],
        interval=True,
        progress=lambda done, total: told.append((done, total)),
    )
    assert found == expected and told == [(n, 4) for n in range(1, 5)]
    kept: dict[str, Any] = {}
    assert evaluate_index(ground_truth, searcher, lambda query: described[query.name], keep=kept.update).scores == {
        row: replace(scores, interval=None) for row, scores in expected.scores.items()
    }
    assert kept == rankings


def landmarks() -> GroundTruth:
    queries = (replace(query, hard=frozenset(), junk=frozenset(), in_database=False) for query in TRUTH.queries)
    return GroundTruth(TRUTH.images, tuple(queries), protocol="gldv2")


def test_queries_that_cannot_be_asked(tmp_path: Path) -> None:
    searcher, described = asmk(tmp_path)
    told: list[int] = []

    def features(query: GroundTruthQuery) -> Features | None:
        return None if query.name == NAMES[1] else described[query.name]

    with pytest.raises(NotFoundError, match=r"1 of 4 queries have no ranking: '1.jpg'"):
        evaluate_index(TRUTH, searcher, features, progress=lambda done, total: told.append(done))
    assert told == [1, 2, 3, 4]
    report = evaluate_index(TRUTH, searcher, features, allow_missing=True)
    assert report.unranked == (NAMES[1],) and report.per_query["medium"][NAMES[1]] == 0


def test_rankings_are_kept_one_by_one(tmp_path: Path) -> None:
    searcher, described = asmk(tmp_path)
    asked: list[str] = []

    def features(query: GroundTruthQuery) -> Features:
        asked.append(query.name)
        return described[query.name]

    def keep(rankings: Rankings) -> None:
        for number, (name, hits) in enumerate(rankings, start=1):
            assert asked == NAMES[:number] and name == NAMES[number - 1] and hits
            if number == 2:
                raise InputError("full")

    with pytest.raises(InputError, match="full"):
        evaluate_index(TRUTH, searcher, features, keep=keep)
    assert asked == NAMES[:2]
