"""`asmk-engine query`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from asmk_engine.cli.calibrate import added_verification, only_option, selected, tell_calibration
from asmk_engine.cli.cluster_options import cluster_options_of, search_cluster_options
from asmk_engine.cli.common import (
    PATH,
    Console,
    Failures,
    RenamedOption,
    as_written,
    images_option,
    match_options,
    own_extractor_option,
    parse_box,
    quiet_option,
    tell,
)
from asmk_engine.cli.contact_sheet import QuerySheet
from asmk_engine.cli.diffusion import neighbour_options
from asmk_engine.cli.explain import ExplainOptions, explain_options, explained
from asmk_engine.cli.pair_reranking import pair_reranker_of, reranked_answers, reranker_options, tell_summary
from asmk_engine.cli.search_options import SearchOptions
from asmk_engine.cli.searching import (
    TurningSearcher,
    answer,
    check_cluster_search,
    check_options,
    check_printable_pairs,
    expansion_options,
    fusion_options,
    kind_weights_option,
    open_fused,
    opened_for_search,
    rerank_options,
    tell_ambiguous,
    turn_options,
)

if TYPE_CHECKING:
    from asmk_engine.cli.searching import AnySearcher, AnySource, Fused
    from asmk_engine.indexes.answers import Hit
    from asmk_engine.reranking.ranking import PairReranker

FORMATS = ("table", "jsonl", "trec", "pairs")
SHEET_ROWS = 51  # one more than a contact sheet shows, so that it notes that there are more
BATCH_SIZE = 8  # queries searched together: enough for the threads, and the first results still appear soon


@click.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.argument("queries", nargs=-1, metavar="QUERY...")
@click.option(
    "--all", "every", is_flag=True, help="Query with every indexed image; a query is left out of its own ranking."
)
@click.option("--box", metavar="X1,Y1,X2,Y2", help="Query with this region only, in pixels of the upright image.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Number of images per ranking.")
@match_options
@expansion_options
@kind_weights_option
@rerank_options
@reranker_options
@turn_options
@neighbour_options
@fusion_options
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="Format of the output."
)
@click.option(
    "--features",
    "features_path",
    type=PATH,
    help="Feature set with the features of queries given by name.  [default: the one recorded in the index]",
)
@images_option
@own_extractor_option
@click.option(
    "--contact-sheet",
    cls=RenamedOption,
    earlier="--sheet",
    type=PATH,
    help="Also write the queries and their best images as a contact sheet (PNG), with the matched regions of images "
    "that were verified.",
)
@click.option(
    "--attention",
    "with_attention",
    is_flag=True,
    help="In the contact sheet, below each image what the extractor of the index attends to in it, in a region of the "
    "query for --box; up to ten images for each query.",
)
@only_option
@explain_options
@search_cluster_options
@quiet_option
def query(
    index_path: Path,
    queries: tuple[str, ...],
    every: bool,
    box: str | None,
    top: int,
    form: str,
    features_path: Path | None,
    images_roots: tuple[Path, ...],
    contact_sheet: Path | None,
    with_attention: bool,
    other_path: Path | None,
    fusion: str,
    fuse_weight: float,
    only: str | None,
    explain_path: Path | None,
    explain_json: bool,
    quiet: bool,
    **search: Any,
) -> None:
    """Rank the indexed images for each query.

    A QUERY is an image file or the name of an indexed image, which is left out of its own ranking; ./NAME is always the
    file of that name. In tables and TREC runs, white space, control characters and % in names are written as %XX, which
    QUERY accepts too; pairs refuse such names. A query that fails is reported at the end, with exit code 1.

    \b
    Examples:
      asmk-engine query photos.index my-photo.jpg
      asmk-engine query photos.index my-photo.jpg --box 100,50,400,380 --format jsonl
      asmk-engine query photos.index --all --format pairs --top 20 > pairs.txt
      asmk-engine query photos.index my-photo.jpg --rerank 50 --format jsonl
      asmk-engine query photos.index my-photo.jpg --reranker cvnet --reranker-weights rerank.safetensors
      asmk-engine query photos.index my-photo.jpg --only matches
      asmk-engine query photos.index my-photo.jpg --top 5 --explain why/
      asmk-engine query cider.index my-photo.jpg --top 5 --contact-sheet attention.png --attention
      asmk-engine query photos.index scan.png --rotations --mirror --rerank 50
      asmk-engine query gem.index my-photo.jpg --expansion 10 --fuse photos.index
      asmk-engine query photos.index my-photo.jpg --diffusion --rerank 50
      asmk-engine query photos.shards my-photo.jpg --ray 10.0.0.1:6379 --allow-partial
    """
    from asmk_engine.search.query_features import query_source

    explain, cluster = ExplainOptions(explain_path, explain_json), cluster_options_of(search)
    search = added_verification(explain.added_to(search, form, other_path), only, other_path)
    _check_usage(queries, every, box, dict(search, only=only, explain=explain_path or explain_json, fuse=other_path))
    options, console = SearchOptions(**search), Console(quiet)
    check_cluster_search(cluster, search, other_path)
    index, own = opened_for_search(index_path, cluster, options, console)
    source = query_source(index, features=features_path, images_roots=images_roots)
    sheet = QuerySheet(contact_sheet, source, region := parse_box(box), top, with_attention, console)
    searcher: AnySearcher | Fused | TurningSearcher = TurningSearcher(index, options) if options.turns else own
    if other_path:
        searcher = open_fused(source, own, other_path, options, fusion, fuse_weight, images_roots, console)
    check_options(index, searcher, options, console)
    tell_calibration(own, options.reranking, console)
    reranker = pair_reranker_of(options, source, partial(_photograph, source), partial(_query_features, source))
    names = index.names if every else list(queries)
    tell_ambiguous(source, [] if every else names, console)
    if form == "pairs":
        check_printable_pairs({*names, *index.names}, sys.stdout)
    failed, shown = Failures(), cast("list[tuple[str, list[Hit]]]", [])
    answers = selected(_answers(source, searcher, names, region, top, console, failed, reranker), only)
    if explain_path:
        answers = explained(answers, explain_path, source, region, failed)
    for line in _lines(_kept(answers, shown, SHEET_ROWS if contact_sheet else 0), form, explain_json, only):
        click.echo(line)
    sheet.write(shown, failed)
    tell_summary(reranker, console)
    tell(failed)


def _check_usage(queries: tuple[str, ...], every: bool, box: str | None, given: dict[str, Any]) -> None:
    """Raise UsageError for options that exclude each other; a re-ranking network gives no matches and turns nothing."""
    if every == bool(queries):
        raise click.UsageError("give either queries or --all")
    if every and box:
        raise click.UsageError("--box applies to single queries, not to --all")
    for option in ("rerank", "rotations", "mirror"):
        if given[option] and given["fuse"]:
            raise click.UsageError(f"--{option} and --fuse exclude each other; give one of them")
    for option in ("only", "explain", "fuse", "rotations", "mirror"):
        if given["reranker"] and given[option]:
            raise click.UsageError(f"--reranker and --{option} exclude each other; give one of them")


def _photograph(source: AnySource, query: str) -> Path:
    name = source.indexed_name(query)
    return Path(query) if name is None else source.image_path(name)


def _query_features(source: AnySource, query: str, box: Any) -> Any:
    return source.features(query, box)[0]


def _answers(
    source: AnySource,
    searcher: AnySearcher | Fused | TurningSearcher,
    queries: list[str],
    box: tuple[float, float, float, float] | None,
    top: int,
    console: Console,
    failed: Failures,
    reranker: PairReranker | None,
) -> Iterator[tuple[str, list[Hit]]]:
    """Yield the name of each query that succeeds, and its hits without itself."""
    with console.bar("query", "queries") as progress:
        for begin in range(0, len(queries), BATCH_SIZE):
            group = queries[begin : begin + BATCH_SIZE]
            depth = max(top, reranker.options.images if reranker else 0) + 1
            answers = answer(source, searcher, group, box, depth, failed)
            answers = reranked_answers(answers, reranker, source, box, top + 1, failed)
            progress(begin + len(group), len(queries))
            for query, hits in answers:
                name = source.indexed_name(query)
                yield name or query, [hit for hit in hits if hit.name != name][:top]


def _kept(
    answers: Iterable[tuple[str, list[Hit]]], kept: list[tuple[str, list[Hit]]], most: int
) -> Iterator[tuple[str, list[Hit]]]:
    """Yield the answers, and append the first `most` of them to `kept`."""
    for one in answers:
        if len(kept) < most:
            kept.append(one)
        yield one


def _lines(answers: Iterable[tuple[str, list[Hit]]], form: str, contributions: bool, only: str | None) -> Iterator[str]:
    from asmk_engine.evaluation.runs import run_lines

    if form == "table":
        return (line for name, hits in answers for line in _table(name, hits, only))
    lines = run_lines(answers, form, contributions=contributions)
    return (as_written(line, sys.stdout) for line in lines) if form == "jsonl" else lines


def _judgement(hit: Hit) -> str:
    """Return the columns of an image that was verified: verdict, probability and inliers, or dashes."""
    inliers = sum(match.inliers for match in hit.matches if match)
    if hit.verdict is None or hit.probability is None:
        return f"{'-':5}  {'-':>4}  {'-':>12}  "
    percent = min(99, round(100 * hit.probability))  # nothing is certain
    return f"{hit.verdict:5}  {percent:3d}%  {inliers:4d} inliers  "


def _table(name: str, hits: list[Hit], only: str | None) -> Iterator[str]:
    from asmk_engine.escape import escape_name

    yield f"# {escape_name(name)}"
    is_judged = any(hit.verdict for hit in hits)
    for rank, hit in enumerate(hits, 1):
        yield f"{rank:4d}  {hit.score:8.6f}  {_judgement(hit) if is_judged else ''}{escape_name(hit.name)}"
    if not hits and only:
        yield f"   -  no match{' and no maybe' if only == 'maybes' else ''}"
    elif not hits:
        yield "   -  nothing in common with any indexed image"
