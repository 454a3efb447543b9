"""`asmk-engine reproduce`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asmk_engine.cli.common import PATH, Console, RenamedOption, json_option, quiet_option, threads_option

if TYPE_CHECKING:
    from asmk_engine.reproduction.experiment import PublishedRow


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
    device: str,
    workers: int | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Reproduce a published result: run all stages of EXPERIMENT and compare the measured with the published scores.

    Without arguments, list the experiments; with EXPERIMENT alone, list the files it needs and where they are
    published. Nothing is downloaded. EXPERIMENT may also be your own .toml file. An interrupted run resumes.

    \b
    Examples:
      asmk-engine reproduce
      asmk-engine reproduce how-r18-1000
      asmk-engine reproduce how-r18-1000 --data datasets/
      asmk-engine reproduce how-r18-1000 --rehearse photos/ --ground-truth gnd.json
    """
    from asmk_engine.reproduction.experiment import open_experiment

    if (photos is None) != (ground_truth_path is None):
        raise click.UsageError("--rehearse PHOTOS and --ground-truth FILE go together")
    if photos is not None and data is not None:
        raise click.UsageError("give either --data, or --rehearse with --ground-truth")
    if experiment is None:
        _list_experiments(as_json)
        return
    row = open_experiment(experiment)
    if len(weights) > len(row.describe):
        raise click.UsageError(f"{row.name} takes {len(row.describe)} --weights at most")
    if data is None and photos is None:
        _show_needs(row, distractors, weights, as_json)
        return
    _run(row, data, photos, ground_truth_path, output, distractors, weights, device, workers, threads, as_json, quiet)


def _list_experiments(as_json: bool) -> None:
    from asmk_engine.reproduction.experiment import experiment_names, open_experiment

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
    for test in row.tests:
        scores = ", ".join(f"{key} {value}" for key, value in test.published.items())
        click.echo(f"  {test.name}: {scores}")
    for difference in row.differences:
        click.echo(f"  differs: {difference}")
    click.echo(f"needs, in the folder DIR given with --data:\n{chr(10).join(listing(wanted, looked=False))}")


def _run(
    row: PublishedRow,
    data: Path | None,
    photos: Path | None,
    ground_truth: Path | None,
    output: Path | None,
    distractors: bool,
    weights: tuple[Path, ...],
    device: str,
    workers: int | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    from asmk_engine.reproduction.datasets import Datasets, Published, Rehearsed
    from asmk_engine.reproduction.extraction import Settings
    from asmk_engine.reproduction.files import check_there, listing, needs
    from asmk_engine.reproduction.report import as_dict, as_markdown, write_report
    from asmk_engine.reproduction.stages import run

    console = Console(quiet)
    datasets: Datasets
    if photos is not None and ground_truth is not None:
        datasets = Rehearsed(photos, ground_truth)
    else:
        place = data or Path()
        wanted = needs(row, place, distractors, weights)
        if not all(need.there for need in wanted):
            console.say("\n".join(listing(wanted)))
        check_there(row, wanted)
        datasets = Published(place)
    work = output or Path(f"{row.name}.reproduction")
    settings = Settings(work, data, distractors, weights, device, workers, threads)
    outcome = run(row, datasets, settings, console)
    path = write_report(outcome, work, device)
    click.echo(json.dumps(as_dict(outcome, device)) if as_json else as_markdown(outcome, device))
    console.say(f"{path}: the report")
