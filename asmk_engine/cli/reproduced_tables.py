"""Published tables beside what was measured, and rehearsals of all their experiments, for `asmk-engine reproduce`."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asmk_engine.cli.common import Console, Failures, plural, tell

if TYPE_CHECKING:
    from asmk_engine.reproduction.datasets import Rehearsed
    from asmk_engine.reproduction.papers import PublishedTable


class Drawn(Enum):
    """What stands in place of a folder of photographs: drawn ones."""

    DRAWN = "drawn"


DRAWN = Drawn.DRAWN


@dataclass(frozen=True)
class TableRequest:
    """What was asked for: a table, a rehearsal of all experiments, or both.

    table_name         name of a table or of a part of one, None for the experiments of all of them
    photos             photographs of a rehearsal, None for none
    ground_truth_path  their ground truth, None for drawn ones
    output             folder that contains the output folders of the experiments
    form               format of the table
    device             device of the networks
    """

    table_name: str | None
    photos: Path | Drawn | None
    ground_truth_path: Path | None
    output: Path | None
    form: str
    device: str


def show_tables(request: TableRequest, console: Console, as_json: bool) -> None:
    """Rehearse what was asked for, and print the table; raises the errors of both when all else is done."""
    from asmk_engine.reproduction.papers import open_tables

    tables = open_tables(request.table_name) if request.table_name is not None else []
    failed = Failures()
    with _folder(request) as folder:
        if request.photos is not None:
            _rehearse(request, tables, folder, console, as_json, failed)
        if tables:
            _print(tables, folder, "json" if as_json else request.form, failed)
    tell(failed)


@contextlib.contextmanager
def photographs_of(photos: Path | Drawn | None, ground_truth: Path | None) -> Iterator[Rehearsed | None]:
    """Yield the photographs of a rehearsal, None without one; drawn ones are removed at the end."""
    from asmk_engine.reproduction.datasets import Rehearsed

    if isinstance(photos, Path) and ground_truth is not None:
        yield Rehearsed(photos, ground_truth)
    elif photos is DRAWN:
        from asmk_engine.reproduction.rehearsal import drawn_photographs

        with drawn_photographs() as drawn:
            yield drawn
    else:
        yield None


@contextlib.contextmanager
def _folder(request: TableRequest) -> Iterator[Path]:
    """Yield the folder of the output folders: that of the request, else this one, or one to be removed."""
    if request.output is not None or request.photos is None:
        yield request.output or Path()
    else:
        with tempfile.TemporaryDirectory(prefix="asmk-engine-") as folder:
            yield Path(folder)


def _rehearse(
    request: TableRequest,
    tables: Sequence[PublishedTable],
    folder: Path,
    console: Console,
    as_json: bool,
    failed: Failures,
) -> None:
    """Rehearse the experiments of tables, or of all; print a line for each, which messages are beside a table."""
    from asmk_engine.reproduction.rehearsal import rehearse, rehearsed_names

    done: list[dict[str, str | float]] = []
    seconds = 0.0
    names = rehearsed_names(tables)
    with photographs_of(request.photos, request.ground_truth_path) as photographs:
        if photographs is None:
            raise ValueError("a rehearsal without photographs")
        for one in rehearse(names, photographs, folder, console, request.device):
            seconds += one.seconds
            done.append({"experiment": one.experiment, "seconds": round(one.seconds, 3), "error": str(one.error or "")})
            line = f"{one.seconds:6.1f} s  {one.experiment}  {one.error or 'done'}"
            if tables or as_json:
                console.say(line)
            else:
                click.echo(line)
            if one.error is not None:
                failed.add(f"{one.experiment}: {one.error}")
    if as_json and not tables:
        click.echo(json.dumps(done))
    console.say(f"{plural(len(done), 'experiment')} rehearsed in {seconds:.0f} s")


def _print(tables: Sequence[PublishedTable], folder: Path, form: str, failed: Failures) -> None:
    from asmk_engine.reproduction.side_by_side import side_by_side
    from asmk_engine.reproduction.table_formats import joined

    found = [side_by_side(table, folder) for table in tables]
    click.echo(joined(found, form), nl=False)
    for error in dict.fromkeys(str(error) for one in found for error in one.unreadable):
        failed.add(error)
