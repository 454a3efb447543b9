"""`asmk-engine reproduce`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asmk_engine.cli.common import PATH, Console, RenamedOption, json_option, quiet_option, threads_option

if TYPE_CHECKING:
    from asmk_engine.reproduction.datasets import Datasets
    from asmk_engine.reproduction.experiment import PublishedRow
    from asmk_engine.reproduction.extraction import Settings

MOST_FEATURES = 1_000_000  # of the extractors


@click.command()
@click.argument("experiment", required=False)
@click.option("--data", type=PATH, help="Folder of the published datasets; needed files must all be there.")
@click.option("-o", "--output", type=PATH, help="Output folder.  [default: EXPERIMENT.reproduction]")
@click.option("--distractors", is_flag=True, help="Also run the tests that add a million distractors.")
@click.option("--rehearse", "photos", type=PATH, help="Run every stage on this folder of images instead.")
@click.option(
    "--ground-truth",
    "ground_truth_path",
    cls=RenamedOption,
    earlier="--truth",
    type=PATH,
    help="Ground truth of a rehearsal.",
)
@click.option(
    "--weights",
    type=PATH,
    multiple=True,
    help="Weights file to use instead of the published weights; in a rehearsal, any network of that kind. Once for "
    "each extractor of the experiment, in their order.",
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
@click.option("--device", default="auto", show_default=True, help="Device of the networks: auto, cpu, cuda or cuda:0.")
@click.option("--workers", type=click.IntRange(min=0), help="Number of worker processes.  [default: one per processor]")
@threads_option
@json_option
@quiet_option
def reproduce(
    experiment: str | None,
    data: Path | None,
    output: Path | None,
    distractors: bool,
    photos: Path | None,
    ground_truth_path: Path | None,
    weights: tuple[Path, ...],
    seeds: int,
    curve: bool,
    strongest: str | None,
    device: str,
    workers: int | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
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
      asmk-engine reproduce ablation-1 --data datasets/ --curve --strongest 400,600,800,1000,1200,1400 --seeds 5
    """
    from asmk_engine.reproduction.catalogue import open_experiment
    from asmk_engine.reproduction.extraction import Settings

    if (photos is None) != (ground_truth_path is None):
        raise click.UsageError("--rehearse PHOTOS and --ground-truth FILE go together")
    if photos is not None and data is not None:
        raise click.UsageError("give either --data, or --rehearse with --ground-truth")
    if strongest is not None and not curve:
        raise click.UsageError("--strongest is for --curve")
    if experiment is None:
        _list_experiments(as_json)
        return
    row = open_experiment(experiment)
    if len(weights) > len(row.describe):
        raise click.UsageError(f"{row.name} takes {len(row.describe)} --weights at most")
    if data is None and photos is None:
        _show_needs(row, distractors, weights, as_json)
        return
    work = output or Path(f"{row.name}.{'curve' if curve else 'reproduction'}")
    settings = Settings(work, data, distractors, weights, device, workers, threads, seeds)
    console, counts = Console(quiet), _numbers(strongest)
    datasets = _datasets(row, settings, photos, ground_truth_path, console)
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


def _show_needs(row: PublishedRow, distractors: bool, weights: tuple[Path, ...], as_json: bool) -> None:
    from asmk_engine.reproduction.files import listing, needs

    wanted = needs(row, Path("DIR"), distractors, weights)
    if as_json:
        click.echo(json.dumps([{"name": need.name, "address": need.address, "note": need.note} for need in wanted]))
        return
    click.echo(f"{row.name}: {row.title}")
    click.echo(f"published in: {row.source}")
    for line in _published(row):
        click.echo(f"  {line}")
    for difference in row.differences:
        click.echo(f"  differs: {difference}")
    for reason in row.incomparable:
        click.echo(f"  cannot be compared: {reason}")
    click.echo(f"needs, in the folder DIR given with --data:\n{chr(10).join(listing(wanted, looked=False))}")


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


def _datasets(
    row: PublishedRow, settings: Settings, photos: Path | None, ground_truth: Path | None, console: Console
) -> Datasets:
    """Return the photographs of a rehearsal, or the published data sets if all that is needed is there."""
    from asmk_engine.reproduction.datasets import Published, Rehearsed
    from asmk_engine.reproduction.files import check_there, listing, needs

    if photos is not None and ground_truth is not None:
        return Rehearsed(photos, ground_truth)
    place = settings.data or Path()
    wanted = needs(row, place, settings.distractors, settings.weights)
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
