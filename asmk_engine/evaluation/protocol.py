"""Protocols: rankings and a ground truth → a report.

    protocol        row         positives     removed from the ranking
    revisited       easy        easy          junk, hard
                    medium      easy, hard    junk
                    hard        hard          junk, easy
    original, how   all         all           junk
    gldv2           each part   all           nothing

The first three report mAP and mP@k, the last mAP@100. A query that is a database image is also removed from its own
ranking, unless the protocol counts it as a positive. Images that are not in a ranking count as not found.
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
_MOST_SEEN = 1 << 27  # repeated image numbers up to this are found with a table, larger ones by sorting


@dataclass(frozen=True)
class _Row:
    """One line of a report: the positive labels, the labels that are removed, and the part of the queries."""

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
    """Means over the queries with at least one positive, in [0, 1]; NaN if there is no such query.

    metric    name of the first mean
    interval  95 % confidence interval of the first mean, or None if it was not computed
    """

    mean_average_precision: float
    mean_precision: dict[int, float]
    queries: int
    metric: str = "mAP"
    interval: Interval | None = None

    def as_dict(self) -> dict[str, float | int | None]:
        """Return mAP, its interval and mP@k in percent, None for NaN, and the number of queries."""
        named = {self.metric: self.mean_average_precision}
        if self.interval:
            named |= {"low": self.interval.low, "high": self.interval.high}
        named.update({f"mP@{depth}": value for depth, value in self.mean_precision.items()})
        return {**in_percent(named), "queries": self.queries}


@dataclass(frozen=True)
class Report:
    """The scores of a set of rankings.

    scores     row (`easy`, `medium`, `hard`; `all`; `private`, `public`) → means
    per_query  row → name of the query → average precision in [0, 1], only queries with at least one positive
    unranked   queries of the ground truth without a ranking, which count as finding nothing
    precisions row → k → name of the query → precision at k in [0, 1], where the protocol reports it
    """

    scores: dict[str, Scores]
    per_query: dict[str, dict[str, float]]
    unranked: tuple[str, ...] = ()
    precisions: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict, repr=False)

    def as_dict(self) -> dict[str, dict[str, float | int | None]]:
        """Return row → mAP, mP@1, mP@5, mP@10 in percent and the number of queries; or mAP@100 and the number."""
        return {row: scores.as_dict() for row, scores in self.scores.items()}

    def table(self) -> str:
        """Format the same as text, one line per row."""
        return format_rows(self.as_dict())

    @property
    def main(self) -> str:
        """The row by which queries are compared: `medium`, or the first row if there is none."""
        return "medium" if "medium" in self.scores else next(iter(self.scores))

    def worst(self, row: str, count: int = 10) -> list[tuple[str, float]]:
        """Return the queries with the lowest average precision, lowest first; ties in the order of their names."""
        return heapq.nsmallest(count, self.per_query[row].items(), key=lambda item: (item[1], item[0]))


def in_percent(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """Convert numbers in [0, 1] to percent, NaN to None."""
    return {name: None if math.isnan(value) else 100 * value for name, value in numbers.items()}


def format_rows(rows: Mapping[str, Mapping[str, float | int | None]]) -> str:
    """Format numbers by row and column as text, with a header line."""
    columns = list(next(iter(rows.values())))
    lines = [" " * 8 + "".join(f"{column:>9}" for column in columns)]
    for name, row in rows.items():
        lines.append(f"{name:<8}" + "".join(f"{_cell(row[column]):>9}" for column in columns))
    return "\n".join(lines)


@dataclass
class Evaluator:
    """Evaluates rankings one by one, in any order, and keeps only the scores of each.

    ground_truth  its names must be the same as in the rankings, see `names.resolve`
    numbers       name → number of an image, for rankings of numbers; a name without a number is in no ranking
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
        # The label of each number while a ranking is evaluated; the last entry is for all larger numbers.
        self._table = np.zeros(max(self.numbers.values(), default=-1) + 2, np.int8)
        self._seen = np.zeros(0, bool)

    def add(self, name: str, ranking: Sequence[str]) -> None:
        """Add the ranking of one query, best image first; see `evaluate` for what it may hold.

        Raises InputError for a repeated image; under gldv2 its first position counts and all keep their place, as
        published.
        """
        query = self._queries.get(name)
        if query is not None:
            self._evaluate(query, *self._labelled(query, ranking))

    def add_rows(self, name: str, rankings: Mapping[str, Sequence[str]]) -> None:
        """Add the rankings of one query, one for each row of `junk_by_row`; otherwise as `add`."""
        query = self._queries.get(name)
        if query is None:
            return
        self._check_first(query)
        self._evaluated[name] = [
            one
            for row in self._rows
            if row.name in rankings
            for one in _evaluate(query, [row], *self._labelled(query, rankings[row.name]))
        ]

    def add_numbers(self, name: str, ranking: NDArray[np.integer]) -> None:
        """Add the ranking of one query as image numbers, [N] integers, best first, -1 for no image.

        Numbers that are not in `numbers` are negatives. Takes time linear in N, and does not keep the ranking. Raises
        InputError for a repeated number.
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
        """Return the report of all rankings; queries without a ranking count as finding nothing.

        raises  NotFoundError for queries without a ranking, unless allowed; MismatchError if no ranked name is in the
                ground truth
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
                f"({list_names(self.ground_truth.images[:1])}, ...): give the ground truth of these images"
            )
        for name in unranked:
            self._evaluate(self._queries[name], np.empty(0, np.int64), np.empty(0, np.int64))
        evaluated = [one for query in self.ground_truth.queries for one in self._evaluated[query.name]]
        return _report(self._rows, evaluated, unranked, interval)

    def _labelled(self, query: GroundTruthQuery, ranking: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the places [n] of the labelled images of a ranking, and their labels [n]."""
        label = _labels(query, self.ground_truth)
        found = [(place, label[image]) for place, image in enumerate(ranking) if image in label]
        if (twice := repeated(ranking)) is not None:
            if self.ground_truth.protocol != "gldv2":
                raise _twice(query.name, twice)
            found = [(place, kind) for place, kind in found if ranking.index(ranking[place]) == place]
        if not self._known and len(ranking):
            self._known = any(image in self._images for image in ranking)
            self._unknown = self._unknown or ranking[0]
        places, labels = np.array(found, np.int64).reshape(-1, 2).T
        return places, labels

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
        self._check_first(query)
        self._evaluated[query.name] = list(_evaluate(query, self._rows, places, labels))

    def _check_first(self, query: GroundTruthQuery) -> None:
        if query.name in self._evaluated:
            raise InputError(f"query {query.name!r} has two rankings; give one for each query")


def depth_needed(ground_truth: GroundTruth) -> int | None:
    """Return how many images of a ranking the protocol of the ground truth evaluates; None for all."""
    return LANDMARKS_DEPTH if ground_truth.protocol == "gldv2" else None


def junk_by_row(query: GroundTruthQuery, ground_truth: GroundTruth) -> dict[str, frozenset[str]]:
    """Return row → names that are removed from the ranking of a query there, for rows in which it has positives."""
    label = _labels(query, ground_truth)
    return {
        row.name: frozenset(name for name, kind in label.items() if kind in row.taken_out)
        for row in _rows(ground_truth)
        if row.part == query.part and _positives(query, row)
    }


def evaluate(
    ground_truth: GroundTruth,
    rankings: Mapping[str, Sequence[str]],
    *,
    allow_missing: bool = False,
    interval: bool = False,
) -> Report:
    """Evaluate rankings, best image first, against a ground truth with the same names (see `names.resolve`).

    rankings       name of the query → names of the images; may be truncated, and may hold images that are not in the
                   ground truth, which count as negatives; rankings of other queries are ignored
    allow_missing  count a query without a ranking as finding nothing
    interval       also compute 95 % confidence intervals, see `bootstrap`

    raises  NotFoundError for queries without a ranking, unless allowed; MismatchError if no ranked name is in the
            ground truth; InputError for a repeated image in a ranking
    """
    evaluator = Evaluator(ground_truth)
    for name, ranking in rankings.items():
        evaluator.add(name, ranking)
    return evaluator.report(allow_missing=allow_missing, interval=interval)


def evaluate_run(
    ground_truth: GroundTruth, run: Mapping[str, Sequence[str]], *, allow_missing: bool = False, interval: bool = False
) -> Report:
    """Evaluate the rankings of a file, whose names may differ from those of the ground truth in folder and extension.

    Images that are not in a ranking count as not found. Raises the errors of `evaluate` and `names.match_names`.
    """
    ranked = set(itertools.chain.from_iterable(run.values()))
    resolved = resolve(ground_truth, ranked, allow_missing=True).ground_truth if ranked else ground_truth
    matched = match_names([query.name for query in resolved.queries], run)
    rankings = {name: run[key] for name, key in matched.items()}
    return evaluate(resolved, rankings, allow_missing=allow_missing, interval=interval)


@dataclass(frozen=True)
class _Evaluated:
    """The scores of one query in one row; there is none for a query without positives."""

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
    """Score a query in each row, from the positions of its labelled images, [n] increasing, and their labels, [n]."""
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
    return len(chosen - {query.name} if _removed(query) else chosen)


def _removed(query: GroundTruthQuery) -> bool:
    return query.in_database and not query.finds_itself


def _labels(query: GroundTruthQuery, ground_truth: GroundTruth) -> dict[str, int]:
    """Return name → label of the images that have one for this query."""
    label = dict.fromkeys(query.easy, _EASY) | dict.fromkeys(query.hard, _HARD) | dict.fromkeys(query.junk, _JUNK)
    label |= dict.fromkeys(ground_truth.ignored, _JUNK)
    if _removed(query):
        label[query.name] = _JUNK
    return label


def _twice(query: str, image: str) -> InputError:
    return InputError(f"the ranking of {query!r} holds {image!r} twice: list each image once")


def _report(rows: Iterable[_Row], evaluated: Iterable[_Evaluated], unranked: tuple[str, ...], interval: bool) -> Report:
    by_row: dict[str, list[_Evaluated]] = {row.name: [] for row in rows}
    for one in evaluated:
        by_row[one.row].append(one)
    scores = {row.name: _mean(by_row[row.name], row, interval) for row in rows}
    per_query = {name: {one.name: one.average_precision for one in queries} for name, queries in by_row.items()}
    precisions = {name: _precisions(queries) for name, queries in by_row.items()}
    return Report(scores, per_query, unranked, precisions)


def _precisions(queries: list[_Evaluated]) -> dict[int, dict[str, float]]:
    depths = sorted({depth for one in queries for depth in one.precision})
    return {depth: {one.name: one.precision[depth] for one in queries} for depth in depths}


def _mean(queries: list[_Evaluated], row: _Row, interval: bool) -> Scores:
    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(values) if values else math.nan

    precisions = [one.average_precision for one in queries]
    at = {} if row.part else {depth: mean([one.precision[depth] for one in queries]) for depth in DEPTHS}
    metric = f"mAP@{LANDMARKS_DEPTH}" if row.part else "mAP"
    return Scores(mean(precisions), at, len(queries), metric, bootstrap(precisions) if interval else None)


def _cell(value: float | int | None) -> str:
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
