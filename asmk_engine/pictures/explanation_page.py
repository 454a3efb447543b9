"""The page of an explanation: a static file without scripts, in which all names are escaped."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from asmk_engine.images.listing import shown

STYLE = """
body { margin: 2rem auto; max-width: 64rem; padding: 0 1rem; font: 15px/1.5 system-ui, sans-serif; color: #1f2328;
  background: #fff }
h1 { font-size: 1.6rem } h2 { margin-top: 3rem; border-top: 1px solid #d0d7de; padding-top: 1rem; font-size: 1.2rem }
h3 { font-size: 1rem; margin: 2rem 0 .3rem } h2, h3, li, td { overflow-wrap: anywhere }
p { margin: .2rem 0 } .reason { color: #9a3412 }
img { max-width: 100%; height: auto; display: block; margin: .5rem 0 }
.pair { display: flex; gap: 1rem; flex-wrap: wrap } .pair a { flex: 1 1 20rem }
table { border-collapse: collapse } td, th { padding: .15rem 1rem .15rem 0; text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
"""


@dataclass(frozen=True)
class ExplainedHit:
    """A hit with its rank and score, the numbers of its matches, why its photograph is missing, and its pictures."""

    rank: int
    name: str
    score: float
    numbers: tuple[str, ...]
    turn: str
    reason: str
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class ExplainedQuery:
    """A query, why its photograph is missing, and its hits."""

    name: str
    reason: str
    hits: tuple[ExplainedHit, ...]


def page_bytes(queries: Sequence[ExplainedQuery]) -> bytes:
    """Return the page of queries and their hits as UTF-8; pictures are given relative to it."""
    return "".join(f"{line}\n" for line in _page(queries)).encode()


def _page(queries: Sequence[ExplainedQuery]) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>Why these photographs match</title>\n<style>{STYLE}</style>\n</head>\n<body>"
    yield "<h1>Why these photographs match</h1>"
    if len(queries) > 1:
        yield "<ol>"
        yield from (f'<li><a href="#q{number}">{_text(one.name)}</a></li>' for number, one in enumerate(queries, 1))
        yield "</ol>"
    for number, query in enumerate(queries, 1):
        yield from _query(query, number)
    yield "</body>\n</html>"


def _query(query: ExplainedQuery, number: int) -> Iterator[str]:
    yield f'<h2 id="q{number}">{_text(query.name)}</h2>'
    if query.reason:
        yield f'<p class="reason">The photograph cannot be shown: {_text(query.reason)}</p>'
    if not query.hits:
        yield "<p>Nothing in common with any indexed image.</p>"
        return
    yield "<table><tr><th>rank</th><th>score</th><th>image</th></tr>"
    for hit in query.hits:
        link = f'<a href="#q{number}h{hit.rank}">{_text(hit.name)}</a>'
        yield f'<tr><td class="number">{hit.rank}</td><td class="number">{hit.score:.4f}</td><td>{link}</td></tr>'
    yield "</table>"
    for hit in query.hits:
        yield from _hit(hit, number)


def _hit(hit: ExplainedHit, number: int) -> Iterator[str]:
    yield f'<h3 id="q{number}h{hit.rank}">{hit.rank}. {_text(hit.name)}</h3>'
    turned = f"; the query was turned: {_text(hit.turn)}" if hit.turn else ""
    yield f"<p>score {hit.score:.4f}{turned}</p>"
    for place, line in enumerate(hit.numbers, 1):
        kind = f"features of kind {place}: " if len(hit.numbers) > 1 else ""
        yield f"<p>{kind}{_text(line)}</p>"
    if hit.reason:
        yield f'<p class="reason">The photograph cannot be shown: {_text(hit.reason)}</p>'
    first, *others = hit.pictures
    yield _picture(first, "query and image side by side, matched features joined by lines")
    if others:
        alternatives = ("the image moved onto the query, both blended", "query and image alternately")
        yield '<div class="pair">'
        yield from (_picture(path, text) for path, text in zip(others, alternatives, strict=True))
        yield "</div>"


def _picture(path: str, alternative: str) -> str:
    link = html.escape(quote(path))
    return f'<a href="{link}"><img src="{link}" alt="{alternative}" loading="lazy"></a>'


def _text(text: str) -> str:
    return html.escape(shown(text))
