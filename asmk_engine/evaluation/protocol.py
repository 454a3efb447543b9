"""The protocol of Revisited Oxford and Paris: rankings and a ground truth → Easy, Medium and Hard.

    difficulty   positives     taken out of the ranking
    easy         easy          junk, hard
    medium       easy, hard    junk
    hard         hard          junk, easy

A query that is itself in the database is taken out of its own ranking too. Images that a ranking does not hold count as
not found. Source: Radenović et al., CVPR 2018, section 3.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asmk_engine.errors import InputError, MismatchError, NotFoundError
from asmk_engine.escape import list_names
from asmk_engine.evaluation.metrics import average_precision, positive_ranks, precision_at
from asmk_engine.evaluation.names import match_names, resolve
from asmk_engine.evaluation.truth import Truth, TruthQuery

DIFFICULTIES = ("easy", "medium", "hard")
DEPTHS = (1, 5, 10)

_NEGATIVE, _EASY, _HARD, _JUNK = range(4)
_POSITIVE = {"easy": (_EASY,), "medium": (_EASY, _HARD), "hard": (_HARD,)}
_TAKEN_OUT = {"easy": (_JUNK, _HARD), "medium": (_JUNK,), "hard": (_JUNK, _EASY)}


@dataclass(frozen=True)
class Scores:
    """Means over the queries with at least one positive, in [0, 1]; NaN where there is no such query."""

    mean_average_precision: float
    mean_precision: dict[int, float]
    queries: int

    def as_dict(self) -> dict[str, float | int | None]:
        """mAP and mP@k in percent, None for NaN, and the number of queries."""
        named = {"mAP": self.mean_average_precision}
        named.update({f"mP@{depth}": value for depth, value in self.mean_precision.items()})
        percent = {name: None if math.isnan(value) else 100 * value for name, value in named.items()}
        return {**percent, "queries": self.queries}


@dataclass(frozen=True)
class Report:
    """What the protocol says of a set of rankings.

    scores     difficulty → means
    per_query  difficulty → name of the query → average precision in [0, 1], queries with at least one positive only
    unranked   queries of the truth without a ranking, counted as finding nothing
    """

    scores: dict[str, Scores]
    per_query: dict[str, dict[str, float]]
    unranked: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, dict[str, float | int | None]]:
        """easy, medium, hard → mAP, mP@1, mP@5, mP@10 in percent, and the number of queries."""
        return {difficulty: scores.as_dict() for difficulty, scores in self.scores.items()}

    def table(self) -> str:
        """The same as text, one line for each difficulty."""
        rows = self.as_dict()
        columns = list(next(iter(rows.values())))
        lines = [" " * 8 + "".join(f"{column:>9}" for column in columns)]
        for difficulty, row in rows.items():
            lines.append(f"{difficulty:<8}" + "".join(f"{_cell(row[column]):>9}" for column in columns))
        return "\n".join(lines)

    def worst(self, difficulty: str, count: int = 10) -> list[tuple[str, float]]:
        """The queries of the lowest average precision, lowest first; ties in the order of their names."""
        return heapq.nsmallest(count, self.per_query[difficulty].items(), key=lambda item: (item[1], item[0]))


def evaluate(truth: Truth, rankings: Mapping[str, Sequence[str]], *, allow_missing: bool = False) -> Report:
    """Judge rankings, best image first, by the truth; names must be the same in both (see `names.resolve`).

    rankings       name of the query → names of the images; may end early, may hold images that the truth does not know,
                   which count as negatives; rankings of other queries are not looked at
    allow_missing  count a query without a ranking as finding nothing

    raises  NotFoundError for queries without a ranking, unless allowed; MismatchError when no ranked name is one of the
            truth; InputError for an image twice in one ranking
    """
    unranked = tuple(query.name for query in truth.queries if query.name not in rankings)
    if unranked and not allow_missing:
        raise NotFoundError(
            f"{len(unranked)} of {len(truth.queries)} queries have no ranking: {list_names(unranked)}; "
            "search for all of them, or allow missing ones, which then count as finding nothing"
        )
    _check_known(truth, rankings)
    judged = [_judge(query, rankings.get(query.name, ()), truth.ignored) for query in truth.queries]
    return _report(judged, unranked)


def evaluate_run(truth: Truth, run: Mapping[str, Sequence[str]], *, allow_missing: bool = False) -> Report:
    """Judge the rankings of a file, whose names may differ from those of the truth in folder and extension.

    A run need not hold every image: those that it does not count as not found. Errors are those of `evaluate` and
    `names.match_names`.
    """
    ranked = set(itertools.chain.from_iterable(run.values()))
    resolved = resolve(truth, ranked, allow_missing=True).truth if ranked else truth
    asked = match_names([query.name for query in resolved.queries], run)
    return evaluate(resolved, {name: run[key] for name, key in asked.items()}, allow_missing=allow_missing)


@dataclass(frozen=True)
class _Judged:
    """One query at one difficulty; not made where there is no positive."""

    difficulty: str
    name: str
    average_precision: float
    precision: dict[int, float]


def _judge(query: TruthQuery, ranking: Sequence[str], ignored: frozenset[str]) -> list[_Judged]:
    labels = _labels(query, ranking, ignored)
    judged = []
    for difficulty in DIFFICULTIES:
        positives = _positives(query, difficulty)
        if positives:
            taken_out = np.isin(labels, _TAKEN_OUT[difficulty])
            ranks = positive_ranks(np.isin(labels, _POSITIVE[difficulty]), taken_out)
            precision = {depth: precision_at(ranks, depth, positives) for depth in DEPTHS}
            judged.append(_Judged(difficulty, query.name, average_precision(ranks, positives), precision))
    return judged


def _positives(query: TruthQuery, difficulty: str) -> int:
    sets = {"easy": query.easy, "medium": query.easy | query.hard, "hard": query.hard}
    return len(sets[difficulty] - {query.name} if query.in_database else sets[difficulty])


def _labels(query: TruthQuery, ranking: Sequence[str], ignored: frozenset[str]) -> NDArray[np.int8]:
    """What each ranked image is to the query, [N] int8."""
    if len(set(ranking)) < len(ranking):
        twice = Counter(ranking).most_common(1)[0][0]
        raise InputError(f"the ranking of {query.name!r} holds {twice!r} twice: each image may stand in it once")
    label = dict.fromkeys(query.easy, _EASY) | dict.fromkeys(query.hard, _HARD) | dict.fromkeys(query.junk, _JUNK)
    label |= dict.fromkeys(ignored, _JUNK)
    if query.in_database:
        label[query.name] = _JUNK
    return np.fromiter((label.get(name, _NEGATIVE) for name in ranking), dtype=np.int8, count=len(ranking))


def _check_known(truth: Truth, rankings: Mapping[str, Sequence[str]]) -> None:
    images = set(truth.images)
    ranked = list(itertools.islice(itertools.chain.from_iterable(rankings.values()), 1))
    if ranked and not any(name in images for ranking in rankings.values() for name in ranking):
        raise MismatchError(
            f"no ranked image ({ranked[0]!r}, ...) is one of the {len(images)} of the ground truth "
            f"({list_names(truth.images[:1])}, ...): give the ground truth that was made for these images"
        )


def _report(judged: Iterable[Iterable[_Judged]], unranked: tuple[str, ...]) -> Report:
    by_difficulty: dict[str, list[_Judged]] = {difficulty: [] for difficulty in DIFFICULTIES}
    for one in itertools.chain.from_iterable(judged):
        by_difficulty[one.difficulty].append(one)
    scores = {difficulty: _mean(queries) for difficulty, queries in by_difficulty.items()}
    per_query = {
        difficulty: {query.name: query.average_precision for query in queries}
        for difficulty, queries in by_difficulty.items()
    }
    return Report(scores, per_query, unranked)


def _mean(queries: list[_Judged]) -> Scores:
    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(values) if values else math.nan

    precision = {depth: mean([one.precision[depth] for one in queries]) for depth in DEPTHS}
    return Scores(mean([one.average_precision for one in queries]), precision, len(queries))


def _cell(value: float | int | None) -> str:
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
