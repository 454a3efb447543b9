"""The result tables of other papers: one TOML file for each paper, with every printed row, read strictly.

name, title         short name and reference of the paper
[[experiments]]     name, title, extractor, weights, projection, options, trained_on, dim, differences, incomparable:
                    how the numbers of a row with a global descriptor are reproduced; see `TableExperiment`
[[experiments.rerank]]  how its first images are ranked anew, see `rerank_plan`
[[tables]]          number, part, caption, columns, notes
[[tables.rows]]     row, group, experiment, rerank, scores, corrected, milliseconds, note

A column is a test and a row of its scores (`roxford5k+revisitop1m medium`, `roxford5k hard mP@10`), `mean`, `diff`, or
what re-ranking costs (`COSTS`). The scores of a row stand in the order of the columns, as printed, `"–"` where there is
none in the paper. A row without an experiment is printed only. Numbers of a row of several tables are those of the last
one; what an earlier one prints otherwise becomes a difference of the experiment.
"""

from __future__ import annotations

import functools
import re
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
    read_rerank,
    read_tables,
)
from asmk_engine.reproduction.files import dataset_of
from asmk_engine.reproduction.rerank_plan import Rerank, check_rerank
from asmk_engine.reproduction.training_sets import training_set_of

NOTHING = "–"
TIMES = ("global ms", "local ms", "total ms", "pair ms")
"""Milliseconds to describe an image by global and local features and by both, and to compare a pair."""
GIGABYTES = "GB"
COSTS = (*TIMES, f"roxford5k {GIGABYTES}", f"rparis6k {GIGABYTES}")
"""Columns of what re-ranking costs; the last ones are 10^9 bytes of all that is stored of a data set."""
PRINTED_ONLY = ("mean", "diff", *COSTS)
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
    rerank        how its first images are ranked anew
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
    rerank: tuple[Rerank, ...] = ()


@dataclass(frozen=True)
class TableRow:
    """One printed row.

    row           its label, as printed
    group         heading printed above it, which holds for the rows below too; empty if it is that of the row above
    experiment    name of the experiment that reproduces it, or empty
    rerank        `cvnet 100` for its scores when the first 100 images are ranked anew by its part `cvnet`; `cvnet` for
                  what that costs; empty for those of the search
    scores        numbers or `NOTHING`, in the order of the columns
    corrected     column → the number in place of a misprint, which the experiment is compared with
    milliseconds  published milliseconds to describe an image, 0 for none
    note          a remark, such as a misprint
    """

    row: str
    group: str = ""
    experiment: str = ""
    rerank: str = ""
    scores: tuple[Any, ...] = ()
    corrected: dict[str, float] = field(default_factory=dict)
    milliseconds: float = 0.0
    note: str = ""

    @property
    def reranker(self) -> tuple[str, int]:
        """Name of the part that ranks anew, and how many images; "" and 0 for none."""
        name, _, count = self.rerank.partition(" ")
        return name, int(count or 0)

    def row_of(self, column: str) -> tuple[str, str]:
        """Return the test of a column and the row of its scores: `medium, cvnet 100` for a row that is re-ranked."""
        test, _, row = column.partition(" ")
        return test, f"{row}, {self.rerank}" if self.rerank else row


@dataclass(frozen=True)
class PublishedTable:
    """One table of a paper.

    paper    short name of the paper
    number   of the table
    part     letter of a part of it with columns of its own, or empty
    caption  what it shows
    columns  see the module
    notes    remarks about the whole table
    """

    paper: str
    number: int = 0
    part: str = ""
    caption: str = ""
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rows: tuple[TableRow, ...] = ()

    @property
    def name(self) -> str:
        """`s000-6` for table 6 of the paper s000, `s002-4e` for a part."""
        return f"{self.paper}-{self.number}{self.part}"

    @property
    def whole(self) -> str:
        """The name without the part."""
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
        table, row = next((place for place in places if not place[1].rerank), places[0])
        numbers, others = _joined(places)
        unpublished = () if wanted.weights or wanted.incomparable else (OWN_NETWORK,)
        return PublishedRow(
            name=wanted.name,
            title=wanted.title,
            source=f"{self.title}, Table {table.number}{table.part}, row {row.row}",
            kind="global",
            describe=(Describe(wanted.extractor, wanted.weights, wanted.projection, wanted.options),),
            tests=tuple(_tests(numbers)),
            differences=(ORIENTATION, *wanted.differences, *others),
            incomparable=(*wanted.incomparable, *unpublished),
            trained_on=wanted.trained_on,
            rerank=wanted.rerank,
        )


def _joined(places: list[tuple[PublishedTable, TableRow]]) -> tuple[dict[tuple[str, str], float], list[str]]:
    """Return (test, row) → number, of the first place that has one, and in words what the others have otherwise."""
    numbers: dict[tuple[str, str], float] = {}
    others = []
    for table, row in places:
        for column, number in table.numbers(row).items():
            if column in PRINTED_ONLY:
                continue
            kept = numbers.setdefault(row.row_of(column), row.corrected.get(column, number))
            if kept != number:
                told = f" {column}" if not row.rerank else f" {column}, {row.rerank}"
                others.append(f"Table {table.number}{table.part} prints {number} for{told}, not {kept}")
    return numbers, others


def _tests(numbers: dict[tuple[str, str], float]) -> Iterator[Test]:
    """Yield the tests of columns, each with its published scores, the revisited data sets first."""
    tests: dict[str, dict[str, float]] = {}
    for (name, row), number in numbers.items():
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
    """Return the table, or the part of one, of this name; raises NotFoundError, which lists all names."""
    tables = published_tables()
    if name not in tables:
        raise NotFoundError(f"{name!r} is not the name of a table; there are {', '.join(tables)}")
    return tables[name]


def open_tables(name: str) -> list[PublishedTable]:
    """Return the table of this name, or all parts of one that has parts; raises as `open_table`."""
    parts = [table for table in published_tables().values() if table.part and table.whole == name]
    return parts or [open_table(name)]


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
    experiments = [_experiment(one, where) for one in content.get("experiments", [])]
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


def _experiment(table: Any, where: str) -> TableExperiment:
    if isinstance(table, dict) and "rerank" in table:
        table = table | {"rerank": read_rerank(table["rerank"], f"{where}: experiments")}
    found = read_part(TableExperiment, table, f"{where}: experiments")
    check_rerank(found.rerank, False, f"{where}: {found.name}")
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
    _check_rerank_of(row, table, where)
    for column, number in row.corrected.items():
        if column not in table.numbers(row) or type(number) not in (int, float):
            raise DamagedError(f"{where}: corrected {column!r} = {number!r}, expected a number for a column with one")


def _check_rerank_of(row: TableRow, table: PublishedTable, where: str) -> None:
    """Raise DamagedError for a row whose `rerank` is no name with a number, or of a table of costs with one."""
    costs = any(column in COSTS for column in table.columns)
    if row.rerank and not re.fullmatch(r"[a-z0-9-]+" if costs else r"[a-z0-9-]+ [1-9]\d*", row.rerank):
        raise DamagedError(f"{where}: rerank {row.rerank!r}, expected {'cvnet' if costs else 'cvnet 100'!r}")


def _rerank_names(parts: tuple[Rerank, ...]) -> Iterator[str]:
    """Yield what rows may say under `rerank`: the name of each part, alone and with each of its counts."""
    for part in parts:
        yield part.title
        yield from (f"{part.title} {count}" for count in part.counts)


def _check_experiments(paper: Paper, where: str) -> None:
    """Raise DamagedError for an experiment that no row names, for unknown data, and unknown parts that rank anew."""
    named = [row.experiment for table in paper.tables for row in table.rows]
    known = {one.name: set(_rerank_names(one.rerank)) for one in paper.experiments}
    for row in (row for table in paper.tables for row in table.rows if row.rerank and row.experiment in known):
        if row.rerank not in known[row.experiment]:
            raise DamagedError(f"{where}: row {row.row!r}: {row.experiment} has no re-ranking {row.rerank!r}; add it")
    for one in paper.experiments:
        if one.name not in named:
            raise DamagedError(f"{where}: no row names the experiment {one.name!r}; remove it, or name it")
        training_set_of(one.trained_on)
    for table in paper.tables:
        for part in {
            part for column in table.columns if column not in PRINTED_ONLY for part in column.split(" ")[0].split("+")
        }:
            dataset_of(part)
