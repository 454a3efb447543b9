"""`asmk-engine reproduce`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Console, RenamedOption, json_option, quiet_option, threads_option
from asmk_engine.cli.reproduced_tables import DRAWN, Drawn, TableRequest, photographs_of, show_tables

if TYPE_CHECKING:
    from asmk_engine.reproduction.datasets import Datasets
    from asmk_engine.reproduction.experiment import PublishedRow
    from asmk_engine.reproduction.extraction import Settings

MOST_FEATURES = 1_000_000  # of the extractors


class PhotographsPath(click.ParamType):
    """A folder of photographs; without a value, `DRAWN`."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | Drawn:
        """Return the path of a text, and `DRAWN` unchanged."""
        return value if isinstance(value, Drawn) else Path(value)


@click.command()
@click.argument("experiment", required=False)
@click.option("--data", type=PATH, help="Folder of the published datasets; needed files must all be there.")
@click.option(
    "-o",
    "--output",
    type=PATH,
    help="Output folder; with --table or a rehearsal of several, the folder that contains theirs.  [default: "
    "EXPERIMENT.reproduction; a table: this folder; a rehearsal of several: one that is removed at the end]",
)
@click.option("--distractors", is_flag=True, help="Also run the tests that add a million distractors.")
@click.option(
    "--rehearse",
    "photos",
    type=PhotographsPath(),
    is_flag=False,
    flag_value=DRAWN,
    metavar="[PHOTOS]",
    help="Run every stage on this folder of images instead; without a folder, on a few drawn ones. Without EXPERIMENT, "
    "run all experiments of the --table, or of all tables.",
)
@click.option(
    "--ground-truth",
    "ground_truth_path",
    cls=RenamedOption,
    earlier="--truth",
    type=PATH,
    help="Ground truth of a rehearsal on your own images.",
)
@click.option(
    "--weights",
    type=PATH,
    multiple=True,
    help="Weights file to use instead of the published weights; in a rehearsal, any network of that kind. Once for "
    "each extractor of the experiment, then for each network of --rerank, in the order in which EXPERIMENT --rerank "
    "lists them.",
)
@click.option(
    "--rerank",
    multiple=True,
    metavar="NAME",
    help="Also rank the first images anew, by this part of the experiment, or by all of them; may be repeated.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many codebooks to learn, each with its own seed; the report has mean and standard deviation.",
)
@click.option(
    "--curve",
    is_flag=True,
    help="Measure with the strongest 200, 400, ... 2000 features instead, from one extraction: a CSV and a figure of "
    "the score against the words per image.",
)
@click.option("--strongest", help="Numbers of features of a --curve, such as 400,600,800.")
@click.option(
    "--table",
    "table_name",
    metavar="NAME",
    help="Print a whole published table, such as s000-6, with what was measured beside it; an unknown name lists all.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("table", "csv", "json", "markdown")),
    default="table",
    show_default=True,
    help="Format of the --table.",
)
@click.option("--device", default="auto", show_default=True, help="Device of the networks: auto, cpu, cuda or cuda:0.")
@click.option("--workers", type=click.IntRange(min=0), help="Number of worker processes.  [default: one per processor]")
@threads_option
@json_option
@quiet_option
def reproduce(experiment: str | None, as_json: bool, quiet: bool, **given: Any) -> None:
    """Reproduce a published result and compare the scores.

    Runs all stages of EXPERIMENT, from the photographs to the ranking. Scores are compared only where weights,
    method and data are the published ones; else the report says what differs.

    Without arguments, list the experiments; with EXPERIMENT alone, list the files it needs and where they are
    published. Nothing is downloaded. EXPERIMENT may also be your own .toml file. An interrupted run resumes.

    \b
    Examples:
      asmk-engine reproduce
      asmk-engine reproduce how-r18-1000
      asmk-engine reproduce how-r18-1000 --data datasets/ --seeds 5
      asmk-engine reproduce how-r18-1000 --rehearse photos/ --ground-truth gnd.json
      asmk-engine reproduce cvnet-r50-gldv2 --data datasets/ --rerank cvnet
      asmk-engine reproduce ablation-1 --data datasets/ --curve --strongest 400,600,800,1000,1200,1400 --seeds 5
      asmk-engine reproduce --table s000-6
      asmk-engine reproduce --rehearse
    """
    _check_usage(experiment, given)
    console = Console(quiet)
    if experiment is not None:
        _run(experiment, given, console, as_json)
    elif given["photos"] is not None or given["table_name"] is not None:
        show_tables(TableRequest(**{key: given[key] for key in TableRequest.__annotations__}), console, as_json)
    else:
        _list_experiments(as_json)


def _check_usage(experiment: str | None, given: dict[str, Any]) -> None:
    """Raise UsageError for options that contradict each other."""
    if isinstance(given["photos"], Path) != (given["ground_truth_path"] is not None):
        raise click.UsageError("--rehearse PHOTOS and --ground-truth FILE go together")
    if given["photos"] is not None and given["data"] is not None:
        raise click.UsageError("give either --data, or --rehearse with --ground-truth")
    if given["strongest"] is not None and not given["curve"]:
        raise click.UsageError("--strongest is for --curve")
    if given["table_name"] is not None and (experiment is not None or given["data"] is not None):
        raise click.UsageError("--table prints what was measured before: leave out EXPERIMENT and --data")
    if given["rerank"] and (experiment is None or given["curve"]):
        raise click.UsageError(
            "--rerank is for EXPERIMENT, without --curve; tables show it, rehearsals of several have it"
        )
    if given["form"] != "table" and given["table_name"] is None:
        raise click.UsageError("--format is for --table")


def _run(experiment: str, given: dict[str, Any], console: Console, as_json: bool) -> None:
    """Run one experiment, or say what it needs."""
    from asmk_engine.reproduction.catalogue import open_experiment
    from asmk_engine.reproduction.extraction import Settings
    from asmk_engine.reproduction.rerank_plan import chosen, networks_of

    row, weights, data, curve = open_experiment(experiment), given["weights"], given["data"], given["curve"]
    most = len(row.describe) + len(networks_of(chosen(row.rerank, given["rerank"], row.name)))
    if len(weights) > most:
        raise click.UsageError(f"{row.name} takes {most} --weights at most")
    if data is None and given["photos"] is None:
        _show_needs(row, given, as_json)
        return
    work = given["output"] or Path(f"{row.name}.{'curve' if curve else 'reproduction'}")
    same = {key: given[key] for key in ("distractors", "device", "workers", "threads", "seeds", "rerank")}
    settings, counts = Settings(work, data, weights=weights, **same), _numbers(given["strongest"])
    with photographs_of(given["photos"], given["ground_truth_path"]) as rehearsed:
        datasets = rehearsed or _published_data(row, settings, console)
        if curve:
            _curve(row, datasets, settings, counts, console, as_json)
        else:
            _report(row, datasets, settings, console, as_json)


def _list_experiments(as_json: bool) -> None:
    from asmk_engine.reproduction.catalogue import experiment_names, open_experiment

    rows = [open_experiment(name) for name in experiment_names()]
    if as_json:
        click.echo(json.dumps([{"recipe": row.name, "title": row.title, "source": row.source} for row in rows]))
        return
    width = max(len(row.name) for row in rows)
    for row in rows:
        click.echo(f"{row.name:<{width}}  {row.title}")


def _show_needs(row: PublishedRow, given: dict[str, Any], as_json: bool) -> None:
    from asmk_engine.reproduction.files import listing, needs
    from asmk_engine.reproduction.training_sets import training_lines

    wanted = needs(row, Path("DIR"), given["distractors"], given["weights"], given["rerank"])
    if as_json:
        keys = ("name", "address", "note", "terms")
        click.echo(json.dumps([{key: getattr(need, key) for key in keys} for need in wanted]))
        return
    click.echo(f"{row.name}: {row.title}")
    click.echo(f"published in: {row.source}")
    for line in _published(row):
        click.echo(f"  {line}")
    for line in training_lines(row.trained_on) if row.trained_on else []:
        click.echo(f"  {line}")
    for difference in row.differences:
        click.echo(f"  differs: {difference}")
    for reason in row.incomparable:
        click.echo(f"  cannot be compared: {reason}")
    for line in _rerankings(row):
        click.echo(f"  {line}")
    click.echo(f"needs, in the folder DIR given with --data:\n{chr(10).join(listing(wanted, looked=False))}")


def _rerankings(row: PublishedRow) -> Iterator[str]:
    """Yield one line for each way in which an experiment ranks anew, and one for each reason against comparing."""
    for part in row.rerank:
        yield f"--rerank {part.title}: the first {' or '.join(map(str, part.counts))} images anew, by {part.by}"
        yield from (f"  cannot be compared: {reason}" for reason in part.incomparable)


def _published(row: PublishedRow) -> Iterator[str]:
    """Yield the published numbers of an experiment as lines of text."""
    for test in row.tests:
        scores = [f"{key} {_with(value, test.deviations.get(key, 0))}" for key, value in test.published.items()]
        words = [f"words per image {_with(test.words, test.words_deviation)}"] if test.words else []
        yield f"{test.name}: {', '.join(scores + words)}"
    if row.means:
        yield "means: " + ", ".join(f"{key} {value}" for key, value in row.means.items())
    if row.memory:
        yield f"memory of the largest index: {row.memory} GiB"


def _with(value: float, deviation: float) -> str:
    return f"{value} ± {deviation}" if deviation else str(value)


def _published_data(row: PublishedRow, settings: Settings, console: Console) -> Datasets:
    """Return the published data sets if all that is needed is there."""
    from asmk_engine.reproduction.datasets import Published
    from asmk_engine.reproduction.files import check_there, listing, needs

    place = settings.data or Path()
    wanted = needs(row, place, settings.distractors, settings.weights, settings.rerank)
    if not all(need.there for need in wanted):
        console.say("\n".join(listing(wanted)))
    check_there(row, wanted)
    return Published(place)


def _report(row: PublishedRow, datasets: Datasets, settings: Settings, console: Console, as_json: bool) -> None:
    from asmk_engine.reproduction.report import as_dict, as_markdown, write_report
    from asmk_engine.reproduction.stages import run

    outcome, device = run(row, datasets, settings, console), settings.device
    path = write_report(outcome, settings.work, device)
    click.echo(json.dumps(as_dict(outcome, device)) if as_json else as_markdown(outcome, device))
    console.say(f"{path}: the report")


def _curve(
    row: PublishedRow,
    datasets: Datasets,
    settings: Settings,
    strongest: tuple[int, ...],
    console: Console,
    as_json: bool,
) -> None:
    from asmk_engine.reproduction.curve import STRONGEST, as_dict, csv_text, run_curve, write_curve

    points = run_curve(row, datasets, settings, console, strongest or STRONGEST)
    click.echo(json.dumps(as_dict(points)) if as_json else csv_text(points, settings.seeds), nl=as_json)
    for path in write_curve(points, settings.work, row.title, settings.seeds):
        console.say(str(path))


def _numbers(text: str | None) -> tuple[int, ...]:
    """Return the numbers of a list such as `400,600`; UsageError for anything else."""
    parts = [part.strip() for part in text.split(",")] if text is not None else []
    if not all(part.isdecimal() and 0 < int(part) <= MOST_FEATURES for part in parts):
        raise click.UsageError(f"--strongest {text}: expected numbers from 1 to {MOST_FEATURES}, such as 400,600,800")
    return tuple(int(part) for part in parts)
