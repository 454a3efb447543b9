"""`asmk-engine evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asmk_engine.cli.common import PATH, Console, json_option, match_options, quiet_option

if TYPE_CHECKING:
    from asmk_engine.evaluation.protocol import Report
    from asmk_engine.evaluation.truth import Truth
    from asmk_engine.queries import QuerySource
    from asmk_engine.search import Hit, Searcher


@click.command()
@click.argument("index_path", type=PATH, metavar="[INDEX]", required=False)
@click.option(
    "--run", "run_path", type=PATH, help="Evaluate a ranking file (TREC run or JSON lines) instead of an index."
)
@click.option(
    "--truth", "truth_path", type=PATH, required=True, help="gnd.json, gnd_roxford5k.pkl or gnd_rparis6k.pkl."
)
@click.option("--images", "images_root", type=PATH, help="Folder of the photographs, for queries that are not indexed.")
@click.option("--features", "features_path", type=PATH, help="Feature set that holds the features of indexed queries.")
@click.option(
    "--allow-missing", is_flag=True, help="Go on when images or rankings are missing; they count as not found."
)
@click.option("--save-run", type=PATH, help="Also write the rankings as a TREC run.")
@click.option("--worst", type=click.IntRange(min=1), help="Also list the N queries of lowest Medium AP.")
@match_options
@json_option
@quiet_option
def evaluate(
    index_path: Path | None,
    run_path: Path | None,
    truth_path: Path,
    images_root: Path | None,
    features_path: Path | None,
    allow_missing: bool,
    save_run: Path | None,
    worst: int | None,
    alpha: float,
    threshold: float,
    assignments: int,
    idf: bool,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure INDEX, or a ranking file, against a ground truth: Revisited Easy, Medium and Hard, in percent.

    \b
    Examples:
      asmk-engine evaluate photos.index --truth gnd.json
      asmk-engine evaluate oxford.index --truth gnd_roxford5k.pkl --images oxford/jpg --json
      asmk-engine evaluate --run ranking.trec --truth gnd.json
    """
    from asmk_engine.evaluation.protocol import evaluate_run
    from asmk_engine.evaluation.runs import read_run
    from asmk_engine.evaluation.truth import read_truth
    from asmk_engine.index import Index
    from asmk_engine.queries import QuerySource
    from asmk_engine.search import Searcher, SelectiveMatch

    if (index_path is None) == (run_path is None):
        raise click.UsageError("give either an INDEX or --run FILE")
    truth = read_truth(truth_path)
    if index_path is None:
        report = evaluate_run(truth, read_run(run_path or ""), allow_missing=allow_missing)
    else:
        index = Index.open(index_path)
        source = QuerySource(index, features=features_path, images_root=images_root)
        searcher = Searcher(index, SelectiveMatch(alpha, threshold, idf), assignments=assignments, threads=threads)
        report = _evaluate_index(truth, source, searcher, allow_missing, save_run, Console(quiet))
    _print(report, worst, as_json)


def _evaluate_index(
    truth: Truth, source: QuerySource, searcher: Searcher, allow_missing: bool, save_run: Path | None, console: Console
) -> Report:
    from asmk_engine.evaluation.names import resolve
    from asmk_engine.evaluation.protocol import evaluate as judge
    from asmk_engine.evaluation.runs import write_run

    resolved = resolve(truth, source.index.names, allow_missing=allow_missing)
    if resolved.missing:
        console.say(f"{len(resolved.missing)} images of the ground truth are not indexed and count as not found")
    rankings: dict[str, list[Hit]] = {}
    with console.bar("evaluate", "queries") as progress:
        for done, query in enumerate(resolved.truth.queries):
            if not (allow_missing and query.in_database and query.name not in source.index):
                rankings[query.name] = searcher.search(source.truth_features(query.name, query.box), None)
            progress(done + 1, len(resolved.truth.queries))
    if save_run:
        write_run(save_run, rankings, "trec")
    names = {query: [hit.name for hit in hits] for query, hits in rankings.items()}
    return judge(resolved.truth, names, allow_missing=allow_missing)


def _print(report: Report, worst: int | None, as_json: bool) -> None:
    if worst:
        for name, precision in report.worst("medium", worst):
            click.echo(f"{100 * precision:6.2f}  {name}", err=as_json)
    click.echo(json.dumps(report.as_dict()) if as_json else report.table())
