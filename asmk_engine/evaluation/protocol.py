"""Protocols: rankings and a ground truth → a report.

    protocol        row         positives     taken out of the ranking
    revisited       easy        easy          junk, hard
                    medium      easy, hard    junk
                    hard        hard          junk, easy
    original, how   all         to find       junk
    gldv2           each part   to find       nothing

The first three are told as mAP and mP@k, the last as mAP@100. A query that is itself in the database is taken out of
its own ranking too, unless the protocol has it find itself. Images that a ranking does not hold count as not found.
Sources: Radenović et al., CVPR 2018, section 3; Philbin et al., CVPR 2007; Tolias et al., ECCV 2020, section 5.1;
Weyand et al., CVPR 2020.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from asmk_engine.errors import InputError, MismatchError, NotFoundError
from asmk_engine.escape import list_names
from asmk_engine.evaluation.bootstrap import Interval, bootstrap
from asmk_engine.evaluation.metrics import average_precision, average_precision_at, precision_at, ranks_without
from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.evaluation.names import match_names, repeated, resolve

DIFFICULTIES = ("easy", "medium", "hard")
DEPTHS = (1, 5, 10)
LANDMARKS_DEPTH = 100

_NEGATIVE, _EASY, _HARD, _JUNK = range(4)
_MOST_SEEN = 1 << 27  # numbers of images that are ticked off; larger ones are sorted


@dataclass(frozen=True)
class _Row:
    """One line of a report: which labels are to be found, which are taken out, and whose queries it is about."""

    name: str
    positive: tuple[int, ...] = (_EASY, _HARD)
    taken_out: tuple[int, ...] = (_JUNK,)
    part: str = ""


_REVISITED = (
    _Row("easy", (_EASY,), (_JUNK, _HARD)),
    _Row("medium", (_EASY, _HARD), (_JUNK,)),
    _Row("hard", (_HARD,), (_JUNK, _EASY)),
)


@dataclass(frozen=True)
class Scores:
    """Means over the queries with at least one positive, in [0, 1]; NaN where there is no such query.

    metric    what the first mean is called
    interval  where the first mean lies with 95 % confidence, were other queries drawn; None where not asked for
    """

    mean_average_precision: float
    mean_precision: dict[int, float]
    queries: int
    metric: str = "mAP"
    interval: Interval | None = None

    def as_dict(self) -> dict[str, float | int | None]:
        """mAP, its interval and mP@k in percent, None for NaN, and the number of queries."""
        named = {self.metric: self.mean_average_precision}
        if self.interval:
            named |= {"low": self.interval.low, "high": self.interval.high}
        named.update({f"mP@{depth}": value for depth, value in self.mean_precision.items()})
        return {**in_percent(named), "queries": self.queries}


@dataclass(frozen=True)
class Report:
    """What the protocol says of a set of rankings.

    scores     row (`easy`, `medium`, `hard`; `all`; `private`, `public`) → means
    per_query  row → name of the query → average precision in [0, 1], queries with at least one positive only
    unranked   queries of the ground truth without a ranking, counted as finding nothing
    """

    scores: dict[str, Scores]
    per_query: dict[str, dict[str, float]]
    unranked: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, dict[str, float | int | None]]:
        """Row → mAP, mP@1, mP@5, mP@10 in percent, and the number of queries; or mAP@100 and the number."""
        return {row: scores.as_dict() for row, scores in self.scores.items()}

    def table(self) -> str:
        """The same as text, one line for each row."""
        return format_rows(self.as_dict())

    @property
    def main(self) -> str:
        """The row by which queries are compared: `medium`, or the first where there is none."""
        return "medium" if "medium" in self.scores else next(iter(self.scores))

    def worst(self, row: str, count: int = 10) -> list[tuple[str, float]]:
        """The queries of the lowest average precision, lowest first; ties in the order of their names."""
        return heapq.nsmallest(count, self.per_query[row].items(), key=lambda item: (item[1], item[0]))


def in_percent(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers in [0, 1] in percent, None for NaN."""
    return {name: None if math.isnan(value) else 100 * value for name, value in numbers.items()}


def format_rows(rows: Mapping[str, Mapping[str, float | int | None]]) -> str:
    """Numbers by row and column as text, with a line of headings."""
    columns = list(next(iter(rows.values())))
    lines = [" " * 8 + "".join(f"{column:>9}" for column in columns)]
    for name, row in rows.items():
        lines.append(f"{name:<8}" + "".join(f"{_cell(row[column]):>9}" for column in columns))
    return "\n".join(lines)


@dataclass
class Evaluator:
    """Evaluates rankings one after the other, in any order, and keeps of each only what the report needs.

    ground_truth    names must be the same as in the rankings, see `names.resolve`
    numbers  number of each image, for rankings of numbers; a name without one is in no ranking
    """

    ground_truth: GroundTruth
    numbers: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._queries = {query.name: query for query in self.ground_truth.queries}
        self._rows = _rows(self.ground_truth)
        self._evaluated: dict[str, list[_Evaluated]] = {}
        self._images = frozenset(self.ground_truth.images)
        self._known = False
        self._unknown: str | None = None
        # The label of each number while a ranking is evaluated; the last one stands for all numbers above.
        self._table = np.zeros(max(self.numbers.values(), default=-1) + 2, np.int8)
        self._seen = np.zeros(0, bool)

    def add(self, name: str, ranking: Sequence[str]) -> None:
        """The ranking of one query, best image first; see `evaluate` for what it may hold.

        InputError for an image twice; under gldv2 it counts where it first stands and keeps both places, as published.
        """
        query = self._queries.get(name)
        if query is None:
            return
        label = _labels(query, self.ground_truth)
        found = [(place, label[image]) for place, image in enumerate(ranking) if image in label]
        if (twice := repeated(ranking)) is not None:
            if self.ground_truth.protocol != "gldv2":
                raise _twice(name, twice)
            found = [(place, kind) for place, kind in found if ranking.index(ranking[place]) == place]
        if not self._known and len(ranking):
            self._known = any(image in self._images for image in ranking)
            self._unknown = self._unknown or ranking[0]
        places, labels = np.array(found, np.int64).reshape(-1, 2).T
        self._evaluate(query, places, labels)

    def add_numbers(self, name: str, ranking: NDArray[np.integer]) -> None:
        """The ranking of one query in numbers, [N] integers, best first, -1 for no image. InputError for one twice.

        Numbers that are in no `numbers` are negatives. Time is linear in N; nothing of the ranking is kept.
        """
        query = self._queries[name]
        ranking = ranking[ranking >= 0] if len(ranking) and int(ranking.min()) < 0 else ranking
        self._check_once(query, ranking)
        known = ((self.numbers.get(image, -1), kind) for image, kind in _labels(query, self.ground_truth).items())
        label = [(number, kind) for number, kind in known if number >= 0]
        numbers, kinds = np.array(label, np.int64).reshape(-1, 2).T
        self._table[numbers] = kinds
        labels = self._table[np.minimum(ranking, len(self._table) - 1)]
        self._table[numbers] = _NEGATIVE
        places = np.flatnonzero(labels)
        self._known |= len(ranking) > 0
        self._evaluate(query, places, labels[places])

    def report(self, *, allow_missing: bool = False, interval: bool = False) -> Report:
        """What was evaluated; queries without a ranking find nothing.

        raises  NotFoundError for queries without a ranking, unless allowed; MismatchError when no ranked name is one of
                the ground truth
        """
        unranked = tuple(query.name for query in self.ground_truth.queries if query.name not in self._evaluated)
        if unranked and not allow_missing:
            raise NotFoundError(
                f"{len(unranked)} of {len(self.ground_truth.queries)} queries have no ranking: {list_names(unranked)}; "
                "search for all of them, or allow missing ones, which then count as finding nothing"
            )
        if self._unknown is not None and not self._known:
            raise MismatchError(
                f"no ranked image ({self._unknown!r}, ...) is one of the {len(self._images)} of the ground truth "
                f"({list_names(self.ground_truth.images[:1])}, ...): give the ground truth that was made for these images"
            )
        for name in unranked:
            self._evaluate(self._queries[name], np.empty(0, np.int64), np.empty(0, np.int64))
        evaluated = [one for query in self.ground_truth.queries for one in self._evaluated[query.name]]
        return _report(self._rows, evaluated, unranked, interval)

    def _check_once(self, query: GroundTruthQuery, ranking: NDArray[np.integer]) -> None:
        size = int(ranking.max()) + 1 if len(ranking) else 0
        if size <= _MOST_SEEN:
            if len(self._seen) < size:
                self._seen = np.zeros(size, bool)
            self._seen[:] = False
            self._seen[ranking] = True
            if np.count_nonzero(self._seen) == len(ranking):
                return
        numbers, counts = np.unique(ranking, return_counts=True)
        if len(numbers) < len(ranking):
            raise _twice(query.name, f"number {numbers[counts > 1][0]}")

    def _evaluate(self, query: GroundTruthQuery, places: NDArray[np.int64], labels: NDArray[np.integer]) -> None:
        if query.name in self._evaluated:
            raise InputError(f"query {query.name!r} has two rankings; give one for each query")
        self._evaluated[query.name] = list(_evaluate(query, self._rows, places, labels))


def depth_needed(ground_truth: GroundTruth) -> int | None:
    """How many images of a ranking the protocol of the ground truth looks at; None for all."""
    return LANDMARKS_DEPTH if ground_truth.protocol == "gldv2" else None


def evaluate(
    ground_truth: GroundTruth,
    rankings: Mapping[str, Sequence[str]],
    *,
    allow_missing: bool = False,
    interval: bool = False,
) -> Report:
    """Evaluate rankings, best image first, by the ground truth; names must be the same in both (see `names.resolve`).

    rankings       name of the query → names of the images; may end early, may hold images that the ground truth does not know,
                   which count as negatives; rankings of other queries are not looked at
    allow_missing  count a query without a ranking as finding nothing
    interval       also say where the means lie with 95 % confidence, see `bootstrap`

    raises  NotFoundError for queries without a ranking, unless allowed; MismatchError when no ranked name is one of the
            truth; InputError for an image twice in one ranking
    """
    evaluator = Evaluator(ground_truth)
    for name, ranking in rankings.items():
        evaluator.add(name, ranking)
    return evaluator.report(allow_missing=allow_missing, interval=interval)


def evaluate_run(
    ground_truth: GroundTruth, run: Mapping[str, Sequence[str]], *, allow_missing: bool = False, interval: bool = False
) -> Report:
    """Evaluate the rankings of a file, whose names may differ from those of the ground truth in folder and extension.

    A run need not hold every image: those that it does not count as not found. Errors are those of `evaluate` and
    `names.match_names`.
    """
    ranked = set(itertools.chain.from_iterable(run.values()))
    resolved = resolve(ground_truth, ranked, allow_missing=True).ground_truth if ranked else ground_truth
    asked = match_names([query.name for query in resolved.queries], run)
    rankings = {name: run[key] for name, key in asked.items()}
    return evaluate(resolved, rankings, allow_missing=allow_missing, interval=interval)


@dataclass(frozen=True)
class _Evaluated:
    """One query in one row; not made where there is no positive."""

    row: str
    name: str
    average_precision: float
    precision: dict[int, float]


def _rows(ground_truth: GroundTruth) -> tuple[_Row, ...]:
    if ground_truth.protocol == "revisited":
        return _REVISITED
    if ground_truth.protocol == "gldv2":
        return tuple(_Row(part or "all", part=part) for part in sorted({query.part for query in ground_truth.queries}))
    return (_Row("all"),)


def _evaluate(
    query: GroundTruthQuery, rows: Iterable[_Row], places: NDArray[np.int64], labels: NDArray[np.integer]
) -> Iterator[_Evaluated]:
    """What the places of the labelled images, [n] increasing, and their labels, [n], are worth in each row."""
    for row in rows:
        positives = _positives(query, row)
        if positives and row.part == query.part:
            ranks = ranks_without(places[np.isin(labels, row.positive)], places[np.isin(labels, row.taken_out)])
            if row.part:
                yield _Evaluated(row.name, query.name, average_precision_at(ranks, LANDMARKS_DEPTH, positives), {})
            else:
                precision = {depth: precision_at(ranks, depth, positives) for depth in DEPTHS}
                yield _Evaluated(row.name, query.name, average_precision(ranks, positives), precision)


def _positives(query: GroundTruthQuery, row: _Row) -> int:
    chosen = (query.easy if _EASY in row.positive else frozenset()) | (
        query.hard if _HARD in row.positive else frozenset()
    )
    return len(chosen - {query.name} if _left_out(query) else chosen)


def _left_out(query: GroundTruthQuery) -> bool:
    return query.in_database and not query.finds_itself


def _labels(query: GroundTruthQuery, ground_truth: GroundTruth) -> dict[str, int]:
    """What the images are to the query, by name, those that are nothing to it left out."""
    label = dict.fromkeys(query.easy, _EASY) | dict.fromkeys(query.hard, _HARD) | dict.fromkeys(query.junk, _JUNK)
    label |= dict.fromkeys(ground_truth.ignored, _JUNK)
    if _left_out(query):
        label[query.name] = _JUNK
    return label


def _twice(query: str, image: str) -> InputError:
    return InputError(f"the ranking of {query!r} holds {image!r} twice: each image may stand in it once")


def _report(rows: Iterable[_Row], evaluated: Iterable[_Evaluated], unranked: tuple[str, ...], interval: bool) -> Report:
    by_row: dict[str, list[_Evaluated]] = {row.name: [] for row in rows}
    for one in evaluated:
        by_row[one.row].append(one)
    scores = {row.name: _mean(by_row[row.name], row, interval) for row in rows}
    per_query = {name: {one.name: one.average_precision for one in queries} for name, queries in by_row.items()}
    return Report(scores, per_query, unranked)


def _mean(queries: list[_Evaluated], row: _Row, interval: bool) -> Scores:
    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(values) if values else math.nan

    precisions = [one.average_precision for one in queries]
    at = {} if row.part else {depth: mean([one.precision[depth] for one in queries]) for depth in DEPTHS}
    metric = f"mAP@{LANDMARKS_DEPTH}" if row.part else "mAP"
    return Scores(mean(precisions), at, len(queries), metric, bootstrap(precisions) if interval else None)


def _cell(value: float | int | None) -> str:
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
