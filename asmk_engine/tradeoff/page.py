"""The HTML page: figure, table, and notes on the measurement, in one file without scripts or external resources."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asmk_engine.tradeoff.configurations import BOTH, DESCRIPTORS, PLACES, RerankedConfiguration
from asmk_engine.tradeoff.results import Failure, Result
from asmk_engine.tradeoff.table import FAST, SMALL, short_rows

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; max-width: 1200px; margin: 2em auto; padding: 0 1em }
svg { max-width: 100%; height: auto }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: 3px 8px; border-bottom: 1px solid #d0d7de; text-align: right }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left }
tr.best { background: #fff8c5 }
.scroll { overflow-x: auto }
code { background: #f0f2f4; padding: 1px 4px }
"""

FUSED_NOTE = (
    "A fused row is one index of several sources, whose scores are added with equal weights unless others are given "
    "after an @; options that differ between its parts are joined by +. Its bytes are those of one table of images and "
    "of the postings or vectors of each part; its words and its assignment time are those of all parts together. Its "
    "scoring time includes the projection of vectors and the addition of scores."
)


RERANKED_NOTE = (
    "In a re-ranked row the first answers are verified and ranked anew, as `evaluate --rerank` does. Its query time "
    "includes the verification; what an earlier query has read is read again."
)
READ_NOTES = {
    PLACES: "By places: the index is made with `--geometry`, and its bytes include the geometry of all its features.",
    DESCRIPTORS: "By descriptors: they are read from the feature set that the index remembers, whose bytes count too.",
    BOTH: "By both: descriptors and places are read from the feature set of the index, whose bytes count too.",
}


@dataclass(frozen=True)
class Circumstances:
    """How the numbers were measured: the command, the machine and the date, each one line of text."""

    command: str
    machine: str
    date: str


def notes(circumstances: Circumstances, results: Sequence[Result]) -> list[str]:
    """List what is needed to interpret the numbers, a sentence or two each."""
    images = max((one.images for one in results), default=0)
    queries = max((one.queries for one in results), default=0)
    return [
        f"Measured on {images} images and {queries} queries, {circumstances.date}, {circumstances.machine}.",
        "mAP is the mean over the seeds of the clustering; its interval is a bootstrap over the queries (95 %). Two "
        "methods whose intervals overlap may still differ: the queries are the same.",
        "Bytes are those of the index files, including names and tables, but not the codebook (or codec).",
        "Times are processor time, summed over all threads; query times are medians of the best of five repeats. "
        "Scoring and verification use one thread; query times do not include feature extraction.",
        "Extrapolated numbers are not measured but modelled, see asmk_engine/tradeoff/extrapolate.py. The model keeps "
        "the codebook and the words per image.",
        *([FUSED_NOTE] if any(one.configuration.kind == "fused" for one in results) else []),
        *_reranked_notes(results),
    ]


def _reranked_notes(results: Sequence[Result]) -> list[str]:
    found = [one.configuration for one in results]
    compared = {one.by for one in found if isinstance(one, RerankedConfiguration)}
    told = [note for by, note in READ_NOTES.items() if by in compared]
    return [" ".join([RERANKED_NOTE, *told])] if told else []


def page(
    title: str, svg: bytes, results: Sequence[Result], failures: Iterable[Failure], circumstances: Circumstances
) -> str:
    """Format the HTML page; all external text is escaped."""
    paragraphs = "".join(f"<p>{html.escape(note)}</p>\n" for note in notes(circumstances, results))
    failed = "".join(f"<li>{html.escape(f'{one.configuration}: {one.reason}')}</li>\n" for one in failures)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f"<style>{STYLE}</style></head><body>\n<h1>{html.escape(title)}</h1>\n"
        f"{_inline(svg)}\n<p><code>{html.escape(circumstances.command)}</code></p>\n{paragraphs}"
        f'<div class="scroll">{_table(results)}</div>\n<p>{SMALL}: on the Pareto front over bytes, no other row has at '
        f"least the same mAP in as few of them; {FAST}: the same over milliseconds of a query. Both are shaded.</p>\n"
        + (f"<h2>Failed configurations</h2>\n<ul>{failed}</ul>\n" if failed else "")
        + "</body></html>\n"
    )


def _inline(svg: bytes) -> str:
    """Return the `svg` element without the prologue of an SVG file."""
    text = svg.decode()
    return text[text.index("<svg") :]


def _table(results: Sequence[Result]) -> str:
    listed = short_rows(results)
    if not listed:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in listed[0])
    lines = []
    for row in listed:
        best = ' class="best"' if SMALL in row["mAP"] or FAST in row["mAP"] else ""
        lines.append(f"<tr{best}>" + "".join(f"<td>{html.escape(value)}</td>" for value in row.values()) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(lines) + "\n</tbody></table>"
