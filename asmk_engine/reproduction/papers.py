"""The result tables of other papers: one TOML file for each paper, with every printed row, read strictly.

name, title         short name and reference of the paper
[[experiments]]     name, title, extractor, weights, projection, options, trained_on, dim, differences, incomparable:
                    how the numbers of a row with a global descriptor are reproduced; see `TableExperiment`
[[tables]]          number, caption, columns, notes
[[tables.rows]]     row, group, experiment, scores, corrected, milliseconds, note

A column is a test and a row of its scores (`roxford5k+revisitop1m medium`, `roxford5k hard mP@10`), or `mean`, `diff`.
The scores of a row stand in the order of the columns, as printed, `"–"` where the paper has none. A row without an
experiment is printed only. Numbers of a row of several tables are those of the last one; what an earlier one prints
otherwise becomes a difference of the experiment.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from asmk_engine.errors import DamagedError, NotFoundError
from asmk_engine.reproduction.experiment import (
    ROWS,
    SUFFIX,
    Describe,
    PublishedRow,
    Test,
    read_part,
    read_tables,
)
from asmk_engine.reproduction.files import dataset_of
from asmk_engine.reproduction.training_sets import training_set_of

NOTHING = "–"
PRINTED_ONLY = ("mean", "diff")
"""Columns that are no score of a test."""
ORIENTATION = (
    "photographs are turned upright as their EXIF orientation says; the published code reads them as they are stored"
)
OWN_NETWORK = "the network of this row was not published; one that you trained is used, given with --weights"
_ORDER = ("roxford5k", "rparis6k", "oxford5k", "paris6k", "gldv2-retrieval")


@dataclass(frozen=True)
class TableExperiment:
    """How the numbers of a network with a global descriptor are reproduced.

    extractor, weights, projection, options  as in `experiment.Describe`
    trained_on    name in `training_sets`
    dim           dimensions of its descriptor, 0 if not known
    differences   how the experiment deviates in details
    incomparable  why its scores cannot be compared; where the weights were not published, this is added
    """

    name: str
    title: str
    extractor: str
    trained_on: str
    weights: str = ""
    projection: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    dim: int = 0
    differences: tuple[str, ...] = ()
    incomparable: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableRow:
    """One printed row.

    row           its label, as printed
    group         heading printed above it, which holds for the rows below too; empty if it is that of the row above
    experiment    name of the experiment that reproduces it, or empty
    scores        numbers or `NOTHING`, in the order of the columns
    corrected     column → the number in place of a misprint, which the experiment is compared with
    milliseconds  published milliseconds to describe an image, 0 for none
    note          a remark, such as a misprint
    """

    row: str
    group: str = ""
    experiment: str = ""
    scores: tuple[Any, ...] = ()
    corrected: dict[str, float] = field(default_factory=dict)
    milliseconds: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class PublishedTable:
    """One table of a paper.

    paper    short name of the paper
    number   of the table
    caption  what it shows
    columns  see the module
    notes    remarks about the whole table
    """

    paper: str
    number: int = 0
    caption: str = ""
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rows: tuple[TableRow, ...] = ()

    @property
    def name(self) -> str:
        """`s000-6` for table 6 of the paper s000."""
        return f"{self.paper}-{self.number}"

    def numbers(self, row: TableRow) -> dict[str, float]:
        """Return column → printed number of a row."""
        return {column: float(one) for column, one in zip(self.columns, row.scores, strict=True) if one != NOTHING}


@dataclass(frozen=True)
class Paper:
    """A paper: its short name, its reference, its tables, and the experiments of their rows."""

    name: str
    title: str
    experiments: tuple[TableExperiment, ...] = ()
    tables: tuple[PublishedTable, ...] = ()

    def published_row(self, wanted: TableExperiment) -> PublishedRow:
        """Return an experiment of this paper in the form that is run, with all numbers that the tables have for it."""
        tables = reversed(self.tables)
        places = [(table, row) for table in tables for row in table.rows if row.experiment == wanted.name]
        table, row = places[0]
        numbers, others = _joined(places)
        unpublished = () if wanted.weights or wanted.incomparable else (OWN_NETWORK,)
        return PublishedRow(
            name=wanted.name,
            title=wanted.title,
            source=f"{self.title}, Table {table.number}, row {row.row}",
            kind="global",
            describe=(Describe(wanted.extractor, wanted.weights, wanted.projection, wanted.options),),
            tests=tuple(_tests(numbers)),
            differences=(ORIENTATION, *wanted.differences, *others),
            incomparable=(*wanted.incomparable, *unpublished),
            trained_on=wanted.trained_on,
        )


def _joined(places: list[tuple[PublishedTable, TableRow]]) -> tuple[dict[str, float], list[str]]:
    """Return column → number, of the first place that has one, and in words what the others have otherwise."""
    numbers: dict[str, float] = {}
    others = []
    for table, row in places:
        for column, number in table.numbers(row).items():
            if column not in PRINTED_ONLY and numbers.setdefault(column, row.corrected.get(column, number)) != number:
                others.append(f"Table {table.number} prints {number} for {column}, not {numbers[column]}")
    return numbers, others


def _tests(numbers: dict[str, float]) -> Iterator[Test]:
    """Yield the tests of columns, each with its published scores, the revisited data sets first."""
    tests: dict[str, dict[str, float]] = {}
    for column, number in numbers.items():
        name, row = column.split(" ", 1)
        tests.setdefault(name, {})[row] = number
    for name in sorted(tests, key=lambda name: (_ORDER.index(name.split("+")[0]), name)):
        dataset, _, distractors = name.partition("+")
        yield Test(dataset, distractors, published=tests[name])


def paper_names() -> list[str]:
    """List the short names of the papers, in alphabetical order."""
    return sorted(file.name.removesuffix(SUFFIX) for file in _folder().iterdir() if file.name.endswith(SUFFIX))


@functools.cache
def open_papers() -> tuple[Paper, ...]:
    """Return all papers of the package."""
    return tuple(
        parse_paper((_folder() / f"{name}{SUFFIX}").read_text("utf-8"), f"{name}{SUFFIX}") for name in paper_names()
    )


def published_tables() -> dict[str, PublishedTable]:
    """Return all tables by name."""
    return {table.name: table for paper in open_papers() for table in paper.tables}


def open_table(name: str) -> PublishedTable:
    """Return the table of this name; raises NotFoundError, which lists all names."""
    tables = published_tables()
    if name not in tables:
        raise NotFoundError(f"{name!r} is not the name of a table; there are {', '.join(tables)}")
    return tables[name]


def table_experiments() -> dict[str, tuple[Paper, TableExperiment]]:
    """Return the experiments of all papers by name."""
    return {one.name: (paper, one) for paper in open_papers() for one in paper.experiments}


def _folder() -> Any:
    return resources.files("asmk_engine.reproduction") / "tables"


def parse_paper(text: str, where: str) -> Paper:
    """Return the paper in the text of a TOML file; DamagedError names an unknown, missing, mistyped or wrong key."""
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DamagedError(f"{where}: not readable as TOML ({error}); write it again") from None
    experiments = [read_part(TableExperiment, one, f"{where}: experiments") for one in content.get("experiments", [])]
    name, tables = content.get("name", ""), []
    for one in read_tables(content.get("tables"), where, "tables"):
        rows = tuple(read_part(TableRow, row, f"{where}: rows") for row in one.get("rows", []))
        table = read_part(PublishedTable, {"paper": name, **one, "rows": rows}, f"{where}: tables")
        _check_table(table, where)
        tables.append(table)
    content |= {"experiments": tuple(experiments), "tables": tuple(tables)}
    found = read_part(Paper, content, where)
    _check_experiments(found, where)
    return found


def _check_table(table: PublishedTable, where: str) -> None:
    """Raise DamagedError for a column without a meaning, or a row that does not fit the columns."""
    for column in table.columns:
        name, _, kind = column.partition(" ")
        if column not in PRINTED_ONLY and (kind not in ROWS or name.split("+")[0] not in _ORDER):
            raise DamagedError(f"{where}: {table.name}: {column!r} is no column, such as 'roxford5k medium'")
    for row in table.rows:
        _check_row(table, row, f"{where}: {table.name}: row {row.row!r}")


def _check_row(table: PublishedTable, row: TableRow, where: str) -> None:
    if len(row.scores) != len(table.columns):
        raise DamagedError(f"{where}: {len(row.scores)} scores, {len(table.columns)} columns; write one for each")
    if wrong := [one for one in row.scores if one != NOTHING and type(one) not in (int, float)]:
        raise DamagedError(f"{where}: {wrong[0]!r}, expected a number or {NOTHING!r}")
    for column, number in row.corrected.items():
        if column not in table.numbers(row) or type(number) not in (int, float):
            raise DamagedError(f"{where}: corrected {column!r} = {number!r}, expected a number for a column with one")


def _check_experiments(paper: Paper, where: str) -> None:
    """Raise DamagedError for an experiment that no row names, and for unknown data."""
    named = [row.experiment for table in paper.tables for row in table.rows]
    for one in paper.experiments:
        if one.name not in named:
            raise DamagedError(f"{where}: no row names the experiment {one.name!r}; remove it, or name it")
        training_set_of(one.trained_on)
    for table in paper.tables:
        for part in {part for column in table.columns if " " in column for part in column.split(" ")[0].split("+")}:
            dataset_of(part)
