"""The page of the report: a static file without scripts, in which all names are escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator

from asmk_engine.audit.judgements import SAME, Judgements
from asmk_engine.audit.model import AuditPair, NamedClass, SetCounts
from asmk_engine.audit.overview import AuditReport
from asmk_engine.audit.pictures import match_picture_name, picture_name
from asmk_engine.audit.state import PICTURES
from asmk_engine.images.listing import shown

MOST_OF_CLASS, MOST_UNREAD = 4, 100
STYLE = """
body { margin: 2rem auto; max-width: 66rem; padding: 0 1rem; font: 15px/1.5 system-ui, sans-serif; color: #1f2328;
  background: #fff }
h1 { font-size: 1.6rem } h2 { margin-top: 2.5rem; border-top: 1px solid #d0d7de; padding-top: 1rem; font-size: 1.2rem }
h2, h3, li, td { overflow-wrap: anywhere } img { max-width: 100%; height: auto; display: block; margin: .5rem 0 }
table { border-collapse: collapse } td, th { padding: .15rem 1rem .15rem 0; text-align: left; vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
"""


def page_chunks(report: AuditReport, judgements: Judgements) -> Iterator[bytes]:
    """Yield the page as UTF-8; pictures are given relative to it."""
    for line in _page(report, judgements):
        yield f"{line}\n".encode("utf-8", "backslashreplace")


def _page(report: AuditReport, judgements: Judgements) -> Iterator[str]:
    counts = report.questions.counts
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>Overlap of training and test</title>\n<style>{STYLE}</style>\n</head>\n<body>"
    yield "<h1>Does the training set show what the test queries show?</h1>"
    yield (
        f"<p>{_text(counts.name)}: {_images(counts.images, counts.classes)}; removed: "
        f"{_images(report.decision.images, len(report.decision.removed))}; left: "
        f"{_images(report.images_left, report.classes_left)}.</p>"
    )
    yield from _overlap_table(report)
    yield from _answers(report)
    yield from _automatic((counts, *report.questions.controls))
    yield from _removed(report, judgements)
    yield from _queries(report)
    yield from _unread(report.questions.unread)
    yield "</body>\n</html>"


def _images(images: int, classes: int) -> str:
    return f"{images:,} image{'' if images == 1 else 's'} of {classes:,} class{'' if classes == 1 else 'es'}"


def _overlap_table(report: AuditReport) -> Iterator[str]:
    total = [0, 0, 0, 0]
    yield from _head("test set", "queries", "with overlap", "classes removed", "images removed")
    for row in report.rows:
        numbers = [row.queries, row.overlapping, row.classes, row.images]
        total = [one + other for one, other in zip(total, numbers, strict=True)]
        yield _row(row.name, *_overlap_cells(numbers))
    yield _row("total", *_overlap_cells(total))
    yield "</table>"


def _overlap_cells(numbers: list[int]) -> list[str]:
    queries, overlapping, classes, images = numbers
    share = f"{overlapping:,} ({overlapping / queries:.0%})" if queries else ""
    return [f"{queries:,}" if queries else "", share, f"{classes:,}", f"{images:,}"]


def _answers(report: AuditReport) -> Iterator[str]:
    yield "<h2>Answers</h2>"
    states = report.decision.states
    parts = [f"{states.get(state, 0):,} {state}" for state in ("same", "different", "unsure", "open")]
    yield f"<p>{len(report.questions.keys):,} questions: {', '.join(parts)}. One “same” confirms a pair.</p>"
    if report.judges:
        told = (f"{_text(judge)} answered {count:,}" for judge, count in report.judges.items())
        yield f"<p>{', '.join(told)}.</p>"
    else:
        yield "<p>Nobody has judged yet, so nothing is removed: <code>asmk-engine judge</code> opens the page.</p>"


def _automatic(counts: Iterable[SetCounts]) -> Iterator[str]:
    yield "<h2>Automatic stages</h2>"
    yield "<p>“By chance” counts the pairs that were not found, but pass with the query mirrored.</p>"
    yield from _head("training set", "images", "classes", "pairs verified", "pairs found", "queries found", "by chance")
    for one in counts:
        numbers = (one.images, one.classes, one.pairs, one.found, one.found_queries, one.chance)
        yield _row(one.name, *(f"{number:,}" for number in numbers))
    yield "</table>"


def _removed(report: AuditReport, judgements: Judgements) -> Iterator[str]:
    confirmed: dict[str, list[AuditPair | NamedClass]] = {}
    asked: list[AuditPair | NamedClass] = [*report.questions.pairs, *report.questions.named]
    for question in asked:
        if judgements.state(question.key) == SAME:
            confirmed.setdefault(question.label, []).append(question)
    yield "<h2>Removed classes</h2>"
    for one in report.decision.removed:
        yield f"<h3>{_text(one.label)}</h3><p>{_images(one.images, 1)}, because of {_text(one.by)}.</p>"
        for question in confirmed.get(one.label, [])[:MOST_OF_CLASS]:
            if isinstance(question, NamedClass):
                what, name = question.name, picture_name(question.key)
            else:
                what, name = f"{question.query} and {question.image}", match_picture_name(question.key)
            link = f"{PICTURES}/{name}"
            yield f'<a href="{link}"><img src="{link}" alt="{_text(what)}" loading="lazy"></a>'


def _queries(report: AuditReport) -> Iterator[str]:
    yield "<h2>Queries</h2>"
    yield from _head("query", "same", "different", "unsure", "open", "confirmed classes")
    for one in report.decision.queries:
        numbers = (str(one.states.get(state, 0)) for state in ("same", "different", "unsure", "open"))
        classes = ", ".join(f"{label}: {count}" for label, count in one.classes.items())
        yield _row(one.query, *numbers, classes)
    yield "</table>"


def _unread(unread: dict[str, str]) -> Iterator[str]:
    if not unread:
        return
    yield f"<h2>Left out</h2><p>{len(unread):,} images or queries could not be used.</p><ul>"
    for name, reason in list(unread.items())[:MOST_UNREAD]:
        yield f"<li>{_text(name)}: {_text(reason)}</li>"
    yield "</ul>"


def _head(first: str, *others: str) -> Iterator[str]:
    yield f"<table><tr><th>{first}</th>"
    yield "".join(f'<th class="number">{one}</th>' for one in others) + "</tr>"


def _row(first: str, *others: str) -> str:
    cells = "".join(f'<td class="number">{_text(one)}</td>' for one in others)
    return f"<tr><td>{_text(first)}</td>{cells}</tr>"


def _text(text: str) -> str:
    return html.escape(shown(text))
