"""`asmk-engine evaluate`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from asmk_engine.cli.common import (
    PATH,
    Console,
    Failures,
    RenamedOption,
    images_option,
    json_option,
    match_options,
    own_extractor_option,
    quiet_option,
    tell,
)
from asmk_engine.cli.diffusion import neighbour_options
from asmk_engine.cli.pair_reranking import pair_reranker_of, reranker_options, tell_summary
from asmk_engine.cli.search_options import SearchOptions
from asmk_engine.cli.searching import (
    check_options,
    expansion_options,
    kind_weights_option,
    rerank_options,
    searcher_of,
)
from asmk_engine.errors import InputError

if TYPE_CHECKING:
    from asmk_engine.cli.searching import AnyIndex, AnySearcher, AnySource
    from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
    from asmk_engine.evaluation.protocol import Report
    from asmk_engine.reranking.ranking import PairReranker
    from asmk_engine.search.evaluation import Rankings

RUN_FORMATS = ("trec", "jsonl", "pairs", "ranks", "gldv2")


@click.command()
@click.argument("index_path", type=PATH, metavar="[INDEX]", required=False)
@click.option(
    "--run",
    "run_path",
    type=PATH,
    help="Ranking file to evaluate instead of an index: TREC run, JSON lines, pairs, .npy array of ranks, or Google "
    "Landmarks submission.",
)
@click.option(
    "--ground-truth",
    "ground_truth_path",
    cls=RenamedOption,
    earlier="--truth",
    type=PATH,
    required=True,
    help="Ground truth: a file such as gnd.json or gnd_roxford5k.pkl, the folder of Oxford5k's list files, or a Google "
    "Landmarks solution.",
)
@click.option(
    "--distractors",
    "distractor_paths",
    type=PATH,
    multiple=True,
    help="Index of distractors, such as R1M, that is searched together with INDEX; its images are never correct. May "
    "be repeated.",
)
@images_option
@own_extractor_option
@click.option(
    "--features",
    "features_path",
    type=PATH,
    help="Feature set with the features of queries that are indexed.  [default: the one recorded in the index]",
)
@click.option(
    "--allow-missing", is_flag=True, help="Count missing images and rankings as not found instead of stopping."
)
@click.option("--save-run", type=PATH, help="Also write the rankings to this file.")
@click.option(
    "--run-format", type=click.Choice(RUN_FORMATS), default="trec", show_default=True, help="Format of --save-run."
)
@click.option(
    "--worst", type=click.IntRange(min=1), metavar="N", help="Also list the N queries with the lowest Medium AP."
)
@click.option(
    "--interval", is_flag=True, help="Also show a 95 % bootstrap confidence interval of mAP over the queries."
)
@match_options
@expansion_options
@kind_weights_option
@rerank_options
@reranker_options
@neighbour_options
@json_option
@quiet_option
def evaluate(
    index_path: Path | None,
    run_path: Path | None,
    ground_truth_path: Path,
    distractor_paths: tuple[Path, ...],
    images_roots: tuple[Path, ...],
    features_path: Path | None,
    allow_missing: bool,
    save_run: Path | None,
    run_format: str,
    worst: int | None,
    interval: bool,
    as_json: bool,
    quiet: bool,
    **search: Any,
) -> None:
    """Measure the accuracy of an index or a ranking file.

    Results are in percent. The ground truth determines the protocol: Revisited Oxford and Paris (Easy, Medium, Hard),
    the original Oxford5k and Paris6k, HOW's validation set, or Google Landmarks v2 (mAP@100 of rankings, µAP of a
    submission of `classify`).

    \b
    Examples:
      asmk-engine evaluate photos.index --ground-truth gnd.json
      asmk-engine evaluate oxford.index --ground-truth gnd_roxford5k.pkl --images oxford/jpg --distractors r1m.index
      asmk-engine evaluate photos.index --ground-truth gnd.json --rerank 50
      asmk-engine evaluate gem.index --ground-truth gnd.json --reranker cvnet --reranker-weights rerank.safetensors
      asmk-engine evaluate photos.index --ground-truth gnd.json --reranker gv --rerank 100
      asmk-engine evaluate photos.index --ground-truth gnd.json --diffusion
      asmk-engine evaluate --run ranking.trec --ground-truth gnd.json
    """
    from asmk_engine.evaluation.ground_truth import read_ground_truth
    from asmk_engine.evaluation.landmarks import is_recognition
    from asmk_engine.search.query_features import query_source

    _check_call(index_path, run_path, distractor_paths, save_run)
    if is_recognition(ground_truth_path):
        if interval or worst:
            raise click.UsageError("--interval and --worst apply to rankings, not to a recognition solution")
        _recognition(ground_truth_path, run_path, allow_missing, as_json)
        return
    ground_truth = read_ground_truth(ground_truth_path)
    if index_path is None:
        report = _evaluate_file(ground_truth, Path(run_path or ""), allow_missing, interval)
    else:
        index = open_joint(index_path, distractor_paths)
        source = query_source(index, features=features_path, images_roots=images_roots)
        options, console = SearchOptions(**search), Console(quiet)
        searcher = searcher_of(index, options, console)
        check_options(index, searcher, options, console)
        reranker = pair_reranker_of(options, source, source.ground_truth_photograph, source.ground_truth_features)
        saved = _Saved(save_run, run_format, index.snapshot.images) if save_run else None
        report = _evaluate_index(ground_truth, source, searcher, allow_missing, saved, interval, console, reranker)
        tell_summary(reranker, console)
    _print(report, ground_truth, worst, as_json)


@dataclass(frozen=True)
class _Saved:
    """Path and format of the written rankings, and the number of ranked images."""

    path: Path
    form: str
    images: int


def open_joint(path: Path, distractors: tuple[Path, ...]) -> AnyIndex:
    """Open an index, joined with indexes of distractors if there are any."""
    from asmk_engine.search.opening import join_indexes, open_any

    index = open_any(path)
    return join_indexes([index], [open_any(one) for one in distractors]) if distractors else index


def _check_call(index: Path | None, run: Path | None, distractors: tuple[Path, ...], save_run: Path | None) -> None:
    if (index is None) == (run is None):
        raise click.UsageError("give either an INDEX or --run FILE")
    if run and (distractors or save_run):
        raise click.UsageError("--distractors and --save-run apply to an INDEX, not to --run")


def _recognition(ground_truth: Path, run: Path | None, allow_missing: bool, as_json: bool) -> None:
    from asmk_engine.evaluation.landmarks import read_guesses, read_recognition
    from asmk_engine.evaluation.recognition import evaluate_recognition

    if run is None:
        raise click.UsageError(
            "this is a recognition solution: write a submission with `classify --format gldv2` and give it with --run"
        )
    report = evaluate_recognition(read_recognition(ground_truth), read_guesses(run), allow_missing=allow_missing)
    click.echo(json.dumps(report.as_dict()) if as_json else report.table())


def _evaluate_file(ground_truth: GroundTruth, run: Path, allow_missing: bool, interval: bool) -> Report:
    from asmk_engine.evaluation.protocol import evaluate_run
    from asmk_engine.evaluation.ranks import evaluate_ranks, is_ranks, read_ranks
    from asmk_engine.evaluation.runs import read_run

    if is_ranks(run):
        return evaluate_ranks(ground_truth, read_ranks(run, ground_truth), interval=interval)
    return evaluate_run(ground_truth, read_run(run), allow_missing=allow_missing, interval=interval)


def _evaluate_index(
    ground_truth: GroundTruth,
    source: AnySource,
    searcher: AnySearcher,
    allow_missing: bool,
    saved: _Saved | None,
    interval: bool,
    console: Console,
    reranker: PairReranker | None,
) -> Report:
    from asmk_engine.evaluation.names import resolve
    from asmk_engine.reranking.evaluation import evaluate_reranked
    from asmk_engine.search.evaluation import evaluate_index

    resolved = resolve(ground_truth, cast(Any, source.index).names, allow_missing=allow_missing)
    if resolved.missing:
        console.say(f"{len(resolved.missing)} images of the ground truth are not indexed and count as not found")
    queries, failed = len(resolved.ground_truth.queries), Failures()
    features = partial(_features_or_none, source, queries, failed) if allow_missing else partial(_features, source)
    try:
        with console.bar("evaluate", "queries") as progress:
            measure = partial(evaluate_reranked, reranker=reranker) if reranker else evaluate_index
            return measure(
                resolved.ground_truth,
                searcher,
                features,
                keep=partial(_save, resolved.ground_truth, saved) if saved else None,
                allow_missing=allow_missing,
                interval=interval,
                progress=progress,
            )
    finally:
        _report_failed(failed, queries, console)


def _features(source: AnySource, query: GroundTruthQuery) -> Any:
    return source.ground_truth_features(query.name, query.box)


def _features_or_none(source: AnySource, queries: int, failed: Failures, query: GroundTruthQuery) -> Any:
    """Return the features of a query, or None if it is missing or cannot be read, which is recorded in `failed`.

    queries  number of queries in total; raises InputError if all of them failed
    """
    if query.in_database and query.name not in source.index:
        return None
    with failed.noting(query.name):
        return _features(source, query)
    if len(failed) == queries:  # before a file without rankings is written; `_report_failed` gives the reasons
        raise InputError("no query could be searched")
    return None


def _report_failed(failed: Failures, queries: int, console: Console) -> None:
    """Report the queries that could not be searched and count as not found; raises InputError if all failed."""
    if len(failed) == queries:
        tell(failed)
    for reason in failed.reasons:
        console.say(f"counts as not found: {reason}")


def _save(ground_truth: GroundTruth, saved: _Saved, rankings: Rankings) -> None:
    from asmk_engine.evaluation.ranks import write_ranks
    from asmk_engine.evaluation.runs import write_run

    if saved.form == "ranks":
        write_ranks(saved.path, ground_truth, rankings, saved.images)
    else:
        write_run(saved.path, rankings, saved.form)


def _print(report: Report, ground_truth: GroundTruth, worst: int | None, as_json: bool) -> None:
    if worst:
        for name, precision in report.worst(report.main, worst):
            click.echo(f"{100 * precision:6.2f}  {name}", err=as_json)
    if not as_json:
        click.echo(report.table())
        return
    per_query = {row: {name: 100 * value for name, value in found.items()} for row, found in report.per_query.items()}
    more = {"protocol": ground_truth.protocol, "unranked": list(report.unranked), "per_query": per_query}
    click.echo(json.dumps({**report.as_dict(), **more}))
