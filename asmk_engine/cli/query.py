"""`asmk-engine query`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Console, match_options, parse_box, quiet_option
from asmk_engine.cli.searching import (
    SearchOptions,
    answer,
    check_options,
    expansion_options,
    fusion_options,
    open_fused,
    searcher_of,
)

if TYPE_CHECKING:
    from asmk_engine.cli.searching import AnySearcher, Fused
    from asmk_engine.queries import QuerySource
    from asmk_engine.search import Hit

FORMATS = ("table", "jsonl", "trec", "pairs")
TOGETHER = 8  # queries that are answered together: enough for the threads, and the first answers still come soon


@click.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.argument("queries", nargs=-1, metavar="QUERY...")
@click.option(
    "--all", "every", is_flag=True, help="Query with every indexed image; a query is left out of its own answer."
)
@click.option("--box", help="Ask with a region only: x1,y1,x2,y2 in pixels of the upright image.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Images in an answer.")
@match_options
@expansion_options
@fusion_options
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="Form of the answer."
)
@click.option("--features", "features_path", type=PATH, help="Feature set that holds the features of named queries.")
@click.option("--images", "images_root", type=PATH, help="Folder of the indexed photographs, when they have moved.")
@click.option("--sheet", type=PATH, help="Also write a contact sheet of queries and first hits (PNG).")
@quiet_option
def query(
    index_path: Path,
    queries: tuple[str, ...],
    every: bool,
    box: str | None,
    top: int,
    form: str,
    features_path: Path | None,
    images_root: Path | None,
    sheet: Path | None,
    other_path: Path | None,
    fusion: str,
    fuse_weight: float,
    quiet: bool,
    **search: Any,
) -> None:
    """Rank the images of INDEX for each QUERY: an image file, or the name of an indexed image.

    A QUERY that is the name of an indexed image is left out of its own answer. In tables and TREC runs, white space,
    control characters and % in names are written as %XX; in pairs such names are refused.

    \b
    Examples:
      asmk-engine query photos.index my-photo.jpg
      asmk-engine query photos.index my-photo.jpg --box 100,50,400,380 --format jsonl
      asmk-engine query photos.index --all --format pairs --top 20 > pairs.txt
      asmk-engine query gem.index my-photo.jpg --expansion 10 --fuse photos.index
    """
    from asmk_engine.descriptors import open_index
    from asmk_engine.evaluation.runs import pair_name
    from asmk_engine.queries import QuerySource

    if every == bool(queries):
        raise click.UsageError("give either queries or --all")
    if every and box:
        raise click.UsageError("--box goes with single queries, not with --all")
    options, console = SearchOptions(**search), Console(quiet)
    index = open_index(index_path)
    source = QuerySource(index, features=features_path, images_root=images_root)
    own = searcher_of(index, options)
    searcher: AnySearcher | Fused = own
    if other_path:
        searcher = open_fused(source, own, other_path, options, fusion, fuse_weight, images_root)
    check_options(index, searcher, options, console)
    asked = index.names if every else list(queries)
    if form == "pairs":
        for name in {*asked, *index.names}:
            pair_name(name)
    answers: Iterable[tuple[str, list[Hit]]] = _answers(source, searcher, asked, parse_box(box), top, console)
    if sheet:
        answers = _with_sheet(list(answers), source, sheet, parse_box(box))
    for line in _lines(answers, form):
        click.echo(line)


def _answers(
    source: QuerySource,
    searcher: AnySearcher | Fused,
    asked: list[str],
    box: tuple[float, float, float, float] | None,
    top: int,
    console: Console,
) -> Iterator[tuple[str, list[Hit]]]:
    with console.bar("query", "queries") as progress:
        for begin in range(0, len(asked), TOGETHER):
            names = asked[begin : begin + TOGETHER]
            answers = answer(source, searcher, names, box, top + 1)
            progress(begin + len(names), len(asked))
            for name, hits in zip(names, answers, strict=True):
                yield name, [hit for hit in hits if not (name in source.index and hit.name == name)][:top]


def _with_sheet(
    answers: list[tuple[str, list[Hit]]], source: QuerySource, path: Path, box: tuple[float, float, float, float] | None
) -> list[tuple[str, list[Hit]]]:
    from asmk_engine.report.sheet import write_sheet

    rows = [(source.likely_path(name), [(source.likely_path(hit.name), hit) for hit in hits]) for name, hits in answers]
    write_sheet(path, rows, box=box)
    return answers


def _lines(answers: Iterable[tuple[str, list[Hit]]], form: str) -> Iterator[str]:
    from asmk_engine.evaluation.runs import run_lines

    if form == "table":
        return (line for name, hits in answers for line in _table(name, hits))
    return run_lines(answers, form)


def _table(name: str, hits: list[Hit]) -> Iterator[str]:
    from asmk_engine.escape import escape_name

    yield f"# {escape_name(name)}"
    yield from (f"{rank:4d}  {hit.score:8.6f}  {escape_name(hit.name)}" for rank, hit in enumerate(hits, 1))
    if not hits:
        yield "   -  nothing in common with any indexed image"
