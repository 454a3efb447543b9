"""A table of published and measured lines as text: aligned columns, CSV, JSON or Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from asmk_engine.reproduction.papers import GIGABYTES, NOTHING, open_papers
from asmk_engine.reproduction.side_by_side import REHEARSAL, SideBySide, TableLine, largest_database

TRAILING = ("GiB", "ms/image", "ms/query")
_SHORT = {
    "oxford5k all": "Ox5k", "paris6k all": "Par6k", "roxford5k": "ROxf", "rparis6k": "RPar", "+revisitop1m": "+1M",
    "medium mP@10": "M@10", "hard mP@10": "H@10", "medium": "M", "hard": "H", "gldv2-retrieval private": "mAP@100",
}  # fmt: skip


def short_column(column: str) -> str:
    """Return the heading of a column: `ROxf+1M M@10` for `roxford5k+revisitop1m medium mP@10`."""
    for long, short in _SHORT.items():
        column = column.replace(long, short)
    return column


def as_text(found: SideBySide) -> str:
    """Format the lines in aligned columns, two or more spaces apart; headings and remarks begin with `#`.

    M and H are mAP of Medium and Hard in percent, M@10 and H@10 mP@10.
    """
    rows = [_heading(found), *(_cells(found, line) for line in found.lines)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [f"# {_title(found)}", _aligned(rows[0], widths)]
    group = ""
    for line, row in zip(found.lines, rows[1:], strict=True):
        lines += [f"# {line.group}"] if line.group != group else []
        group = line.group
        lines.append(_aligned(row, widths))
    return "\n".join([*lines, *(f"# {remark}" for remark in _remarks(found))]) + "\n"


def _heading(found: SideBySide) -> list[str]:
    return ["row", "trained on", "experiment", "numbers", *map(short_column, found.table.columns), *TRAILING]


def _cells(found: SideBySide, line: TableLine) -> list[str]:
    scores = [_score(line.scores.get(column), column) for column in found.table.columns]
    empty = [one or NOTHING for one in (line.trained_on, line.experiment)]
    times = (line.image_milliseconds, line.query_milliseconds)
    return [line.row, *empty, line.numbers, *scores, _gibibytes(line.gibibytes), *map(_milliseconds, times)]


def _aligned(row: list[str], widths: list[int]) -> str:
    words = [cell.ljust(width) for cell, width in zip(row[:4], widths[:4], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(row[4:], widths[4:], strict=True)]
    return "  ".join([*words, *numbers]).rstrip()


def _score(value: float | None, column: str) -> str:
    return NOTHING if value is None else f"{value:.2f}" if column.endswith(f" {GIGABYTES}") else f"{value:.1f}"


def _gibibytes(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _milliseconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"


def _title(found: SideBySide) -> str:
    paper = next((one.title for one in open_papers() if one.name == found.table.paper), found.table.paper)
    return f"{found.table.name}: {found.table.caption}. {paper}, Table {found.table.number}{found.table.part}"


def _remarks(found: SideBySide) -> Iterator[str]:
    """Yield what the numbers are, the notes of the table, and the remarks of its lines, the same ones once."""
    yield f"GiB: index of {largest_database(found.table)}; published: 4 bytes a dimension where the paper has none"
    if any(line.numbers == REHEARSAL for line in found.lines):
        yield "rehearsal: random networks or other images, which show that every stage runs; no score can be compared"
    yield from found.table.notes
    lines: dict[str, list[str]] = {}
    for line in found.lines:
        for remark in line.remarks:
            lines.setdefault(_plain(remark), []).append(f"{line.row}, {line.numbers}")
    yield from (f"{'; '.join(rows)}: {remark}" for remark, rows in lines.items())


def _plain(text: str) -> str:
    """Return text from a report on one line, without characters that a terminal obeys."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def as_rows(found: SideBySide) -> list[dict[str, Any]]:
    """Return the lines as JSON values, None for what is not known; scores by the full names of their columns."""
    return [
        {
            "row": line.row,
            "group": line.group,
            "experiment": line.experiment,
            "trained_on": line.trained_on,
            "numbers": line.numbers,
            **{column: line.scores.get(column) for column in found.table.columns},
            "gibibytes": line.gibibytes,
            "image_milliseconds": line.image_milliseconds,
            "query_milliseconds": line.query_milliseconds,
            "remarks": [_plain(remark) for remark in line.remarks],
        }
        for line in found.lines
    ]


def as_csv(found: SideBySide) -> str:
    """Format the lines as CSV with a header; what is not known is empty, remarks are joined by `; `."""
    rows = [{**row, "remarks": "; ".join(row["remarks"])} for row in as_rows(found)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_json(found: SideBySide) -> str:
    """Format the table as one JSON object."""
    content = {"table": found.table.name, "title": _title(found), "notes": list(found.table.notes)}
    return json.dumps({**content, "rows": as_rows(found)}, ensure_ascii=False) + "\n"


def as_markdown(found: SideBySide) -> str:
    """Format the table as Markdown."""
    heading = ["group", *_heading(found)]
    lines = [f"**{_title(found)}**", "", _piped(heading), _piped(["---"] * 5 + ["---:"] * (len(heading) - 5))]
    lines += [_piped([line.group, *_cells(found, line)]) for line in found.lines]
    return "\n".join([*lines, "", *(f"- {remark}" for remark in _remarks(found))]) + "\n"


def _piped(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def joined(tables: Sequence[SideBySide], form: str) -> str:
    """Format the parts of a table one after the other, with an empty line between them; in JSON a list of several."""
    texts = [FORMATS[form](one) for one in tables]
    if form == "json" and len(texts) > 1:
        return f"[{', '.join(text.strip() for text in texts)}]\n"
    return "\n".join(texts)


FORMATS: dict[str, Callable[[SideBySide], str]] = {
    "table": as_text, "csv": as_csv, "json": as_json, "markdown": as_markdown
}  # fmt: skip
"""How a table can be printed, by name."""
