"""A published table line by line: every printed row, and under it what was measured for it, in the same columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asmk_engine.errors import AsmkError
from asmk_engine.reproduction.catalogue import open_experiment
from asmk_engine.reproduction.files import dataset_of
from asmk_engine.reproduction.papers import (
    COSTS,
    GIGABYTES,
    PRINTED_ONLY,
    TIMES,
    PublishedTable,
    TableRow,
    table_experiments,
)
from asmk_engine.reproduction.report import GIBIBYTE
from asmk_engine.reproduction.results import MeasuredIndex, RunResult, read_result, result_place

BYTES_OF_A_NUMBER = 4
PUBLISHED, MEASURED, NOT_COMPARED, REHEARSAL = "published", "measured", "not compared", "rehearsal"


@dataclass(frozen=True)
class TableLine:
    """One line of a printed table.

    row, group     as printed in the paper
    experiment     name of the experiment that reproduces the row, or empty
    trained_on     training images of the network, or empty
    numbers        what the numbers are: `PUBLISHED`, `MEASURED`, `NOT_COMPARED` (measured with other weights or data)
                   or `REHEARSAL`
    scores         column → number
    gibibytes      memory of the index of the largest database of the table, None if not known. Published lines: of
                   single-precision descriptors, if the paper does not print it; measured ones: of the bytes of an image
                   of another index, if that database was not indexed
    image_milliseconds  to describe an image, None if not known; measured lines: seconds of the run by images
    query_milliseconds  to search for a query, and to evaluate its ranking; re-ranked: and to compare its pairs
    remarks        why measured numbers are not compared; a misprint
    """

    row: str
    group: str
    experiment: str
    trained_on: str
    numbers: str
    scores: dict[str, float]
    gibibytes: float | None = None
    image_milliseconds: float | None = None
    query_milliseconds: float | None = None
    remarks: tuple[str, ...] = ()


@dataclass
class SideBySide:
    """A table with measured lines, and the reports that could not be read."""

    table: PublishedTable
    lines: list[TableLine] = field(default_factory=list)
    unreadable: list[AsmkError] = field(default_factory=list)


def side_by_side(table: PublishedTable, folder: Path) -> SideBySide:
    """Return the lines of a table, with those of all experiments that were run in `folder`.

    folder  holds the output folders of the experiments under their default names; one without any is fine
    """
    found, group = SideBySide(table), ""
    for row in table.rows:
        group = row.group or group
        published = _published(table, row, group)
        found.lines.append(published)
        try:
            result = read_result(result_place(folder, row.experiment), row.experiment) if row.experiment else None
        except AsmkError as error:
            found.unreadable.append(error)
        else:
            found.lines += list(_measured(table, row, published, result)) if result is not None else []
    return found


def _published(table: PublishedTable, row: TableRow, group: str) -> TableLine:
    experiment = open_experiment(row.experiment) if row.experiment else None
    memory = experiment.memory if experiment is not None else 0.0
    dim = table_experiments()[row.experiment][1].dim if row.experiment in table_experiments() else 0
    images = dataset_of(largest_database(table)).images
    return TableLine(
        row.row,
        group,
        row.experiment,
        experiment.trained_on if experiment is not None else "",
        PUBLISHED,
        table.numbers(row),
        memory or dim * BYTES_OF_A_NUMBER * images / GIBIBYTE or None,
        row.milliseconds or None,
        remarks=(row.note,) if row.note else (),
    )


def largest_database(table: PublishedTable) -> str:
    """Return the name of the dataset whose memory a table shows: the million distractors, or the only one it has."""
    return "gldv2-retrieval" if any(column.startswith("gldv2-retrieval") for column in table.columns) else "revisitop1m"


def _measured(table: PublishedTable, row: TableRow, published: TableLine, result: RunResult) -> Iterator[TableLine]:
    """Yield the line of what was measured; none for a row that is re-ranked, where a run ranked nothing so."""
    scores = dict(_costs(table, row, result)) if _has_costs(table) else dict(_scores(table, row, result))
    if row.rerank and not scores:
        return
    printed = [column for column in table.numbers(row) if column not in PRINTED_ONLY]
    if "mean" in table.columns and printed and all(column in scores for column in _averaged(printed)):
        means = [scores[column] for column in _averaged(printed)]
        scores["mean"] = sum(means) / len(means)
    told = [] if result.rehearsal else _reasons(row, scores, result)
    numbers = REHEARSAL if result.rehearsal else NOT_COMPARED if told else MEASURED
    yield TableLine(
        row.row,
        published.group,
        row.experiment,
        published.trained_on,
        numbers,
        scores,
        _gibibytes(result, largest_database(table)),
        _image_milliseconds(result),
        _query_milliseconds(row, result),
        tuple(dict.fromkeys(told)),
    )


def _has_costs(table: PublishedTable) -> bool:
    return any(column in COSTS for column in table.columns)


def _scores(table: PublishedTable, row: TableRow, result: RunResult) -> Iterator[tuple[str, float]]:
    for column in table.columns:
        test, name = row.row_of(column)
        if test in result.tests and name in result.tests[test].scores:
            yield column, result.tests[test].scores[name]


def _reasons(row: TableRow, scores: Mapping[str, float], result: RunResult) -> list[str]:
    """Return why the scores of a line are not compared: of its tests, and of the re-ranking of these."""
    names = [name for name in result.tests if any(column.startswith(f"{name} ") for column in scores)]
    reranked = [f"{name}, {row.reranker[0]}" for name in names] if row.rerank else []
    return [
        *(reason for name in names for reason in result.tests[name].reasons),
        *(reason for name in reranked for reason in result.reasons.get(name, ())),
    ]


def _costs(table: PublishedTable, row: TableRow, result: RunResult) -> Iterator[tuple[str, float]]:
    """Yield what re-ranking costs, from the tests that were ranked anew: times of all of them, memory of each data set.

    Memory is that of the indexed vector of an image and of what is stored of it for re-ranking, times the images that
    the published data set has.
    """
    done = {name: one for name in result.tests if (one := result.reranked.get(f"{name} by {row.reranker[0]}"))}
    if not done:
        return
    whole = _image_milliseconds(result)
    local = _mean([one.image_milliseconds for one in done.values()])
    both = None if whole is None or local is None else whole + local
    times = (whole, local, both, _mean([one.pair_milliseconds for one in done.values()]))
    yield from ((column, value) for column, value in zip(TIMES, times, strict=True) if value is not None)
    for column in table.columns:
        dataset, _, kind = column.partition(" ")
        index = result.indexes.get(dataset)
        if kind == GIGABYTES and dataset in done and index and index.images and done[dataset].image_bytes:
            each = index.bytes / index.images + done[dataset].image_bytes
            yield column, each * dataset_of(dataset).images / 1e9


def _mean(values: list[float]) -> float | None:
    known = [value for value in values if value]
    return sum(known) / len(known) if known else None


def _averaged(columns: list[str]) -> list[str]:
    """Return those columns that a mean is taken of: mAP, not mP@10."""
    return [column for column in columns if "mP@" not in column]


def _gibibytes(result: RunResult, database: str) -> float | None:
    """Return GiB of the index of a database, or of the bytes of an image of another index times its images."""
    if result.rehearsal or not result.indexes:
        return None
    index = result.indexes.get(database) or next(iter(result.indexes.values()))
    whole = index.images if database in result.indexes else dataset_of(database).images
    return index.bytes / index.images * whole / GIBIBYTE if index.images else None


def _image_milliseconds(result: RunResult) -> float | None:
    timed: list[MeasuredIndex] = [one for one in result.indexes.values() if one.images and one.seconds]
    images = sum(one.images for one in timed)
    return 1000 * sum(one.seconds for one in timed) / images if images else None


def _query_milliseconds(row: TableRow, result: RunResult) -> float | None:
    """Return milliseconds of a query in the test with the largest database: one with distractors, if there is one.

    With those of the pairs of a row that is re-ranked.
    """
    timed = {name: one for name, one in result.tests.items() if one.queries and one.seconds}
    names = sorted(timed, key=lambda name: "+" not in name)
    if not names:
        return None
    search = 1000 * timed[names[0]].seconds / timed[names[0]].queries
    reranker, count = row.reranker
    costs = result.reranked.get(f"{names[0]} by {reranker}")
    return search + count * costs.pair_milliseconds if costs else search
