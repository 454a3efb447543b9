"""`asmk-engine audit` and `judge`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import (
    PATH,
    Console,
    extraction_of,
    extraction_options,
    json_option,
    plural,
    quiet_option,
    threads_option,
)
from asmk_engine.cli.server_options import announcement, prepare_server, server_options

if TYPE_CHECKING:
    from asmk_engine.audit import AuditReport

LAYOUTS = ("auto", "folders", "csv", "photos", "sfm120k", "gldv2", "list")


@click.command()
@click.argument("training", type=PATH, metavar="TRAIN")
@click.argument("tests", nargs=-1, required=True, type=PATH, metavar="TEST...")
@click.option("-o", "--output", type=PATH, required=True, help="Folder of the audit.")
@click.option("--layout", type=click.Choice(LAYOUTS), default="auto", show_default=True, help="Layout of TRAIN.")
@click.option("--images", "training_images", type=PATH, help="Folder of the photographs of TRAIN, if it is a table.")
@click.option("--test-images", "test_images", type=PATH, multiple=True,
              help="Folder of the photographs of a TEST that is a table or ground truth; may be repeated.")  # fmt: skip
@click.option("--top", type=click.IntRange(1, 100_000), default=100, show_default=True, metavar="K",
              help="Training images that are verified for each query, the most similar ones.")  # fmt: skip
@click.option("--verify", "verification", type=click.Choice(["places", "sift"]), default="places", show_default=True,
              help="places: as --rerank of `query` does; sift: SIFT, a kd-tree and RANSAC.")  # fmt: skip
@click.option("--evidence", type=click.FloatRange(min=0, min_open=True),
              help="Least evidence of a pair that people see: of places that of a verdict, of sift the number of "
              "inliers.  [default: that of `maybe`, or 12 inliers]")  # fmt: skip
@click.option("--local-extractor", help="Extractor of the local features that verify candidates of global descriptors.")
@click.option(
    "--word", "words", multiple=True, help="Also ask about classes whose name has this word; may be repeated."
)
@click.option("--class-names", type=PATH, help="CSV with the name of each class, such as train_label_to_category.csv.")
@click.option("--control", "controls", multiple=True, type=PATH,
              help="Another training set, of which is only counted what is found; may be repeated.")  # fmt: skip
@click.option("--every-class", is_flag=True,
              help="Remove every confirmed class of a query, not only the most frequent one.")  # fmt: skip
@click.option("--published", is_flag=True, help="Show the numbers of RGLDv2-clean beside those found.")
@extraction_options
@threads_option
@json_option
@quiet_option
def audit(
    training: Path,
    tests: tuple[Path, ...],
    output: Path,
    layout: str,
    training_images: Path | None,
    test_images: tuple[Path, ...],
    class_names: Path | None,
    controls: tuple[Path, ...],
    local_extractor: str | None,
    published: bool,
    threads: int | None,
    as_json: bool,
    quiet: bool,
    **others: Any,
) -> None:
    """Find the classes of a training set that test queries show.

    The nearest images of each query are verified, people look at what is left (`judge`), and the most frequent class
    of each query among the confirmed images is removed whole. TRAIN is a folder with a folder for each class, or a
    table; TEST a folder of photographs, a list, a table, or a ground truth, whose queries count. OUTPUT gets
    report.html, report.json, removed.txt for --exclude of the trainings, and cleaned.csv, the training set that is
    left. Run it again after a stop, and after judging: it goes on where it was.

    \b
    Examples:
      asmk-engine audit train/ queries/ -o audit/
      asmk-engine judge audit/
      asmk-engine audit train_clean.csv gnd_roxford5k.pkl gnd_rparis6k.pkl -o audit/ --images gldv2/ \\
        --test-images oxford/ --test-images paris/ --word Oxford --word Paris \\
        --class-names train_label_to_category.csv
    """
    from asmk_engine.audit import AuditInputs, AuditOptions, TrainingSource, run_audit
    from asmk_engine.pipeline.extractor_choice import ExtractionOptions

    names = ("top", "verification", "evidence", "every_class", "words")
    options = AuditOptions(**{name: others.pop(name) for name in names})
    inputs = AuditInputs(TrainingSource(training, layout, training_images, class_names), tests, test_images, controls)
    console = Console(quiet)
    local = ExtractionOptions(local_extractor, workers=others["workers"])
    report = run_audit(
        inputs, output, options, extraction=extraction_of(others), local=local, threads=threads, display=console
    )
    if as_json:
        click.echo(json.dumps(report.as_dict()))
    _tell(report, console)
    if published:
        from asmk_engine.audit.published import beside_published

        for line in beside_published(report):
            click.echo(line, err=as_json)


def _counted(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"


def _tell(report: AuditReport, console: Console) -> None:
    counts, states = report.questions.counts, report.decision.states
    console.say(
        f"{report.folder}: {plural(counts.pairs, 'pair')} verified, {counts.found} found of "
        f"{_counted(counts.found_queries, 'query', 'queries')}, {counts.chance} by chance"
    )
    for one in report.questions.controls:
        console.say(f"control {one.name}: {one.pairs} verified, {one.found} found, {one.chance} by chance")
    if report.questions.unread:
        name, reason = next(iter(report.questions.unread.items()))
        console.say(f"{plural(len(report.questions.unread), 'image')} left out, such as {name!r}: {reason}")
    for row in report.rows:
        of_queries = (
            f"{row.overlapping} of {_counted(row.queries, 'query', 'queries')} overlap, " if row.queries else ""
        )
        console.say(
            f"{row.name}: {of_queries}{_counted(row.classes, 'class', 'classes')} of {row.images} images removed"
        )
    if not report.is_in_landmark_form:
        console.say("names of images have spaces, so the list that is left is only in cleaned-images.csv")
    console.say(f"{report.images_left} images of {_counted(report.classes_left, 'class', 'classes')} are left")
    if states.get("open"):
        console.say(f"{plural(states['open'], 'question')} nobody answered: asmk-engine judge {report.folder}")


@click.command()
@click.argument("folder", type=PATH, metavar="AUDIT")
@server_options
@quiet_option
def judge(
    folder: Path,
    no_browser: bool,
    quiet: bool,
    **access: Any,
) -> None:
    """Open a page where people judge the pairs of an audit.

    Each judge gives a name and sees every pair: s is the same thing, d a different one, u unsure. Several may judge at
    a time, and one who says "same" confirms a pair. An answer is on disk before the next pair is shown. Ctrl-C stops
    the server and writes the report of AUDIT again. Only AUDIT itself is needed, no photographs.

    \b
    Examples:
      asmk-engine judge audit/
      asmk-engine judge audit/ --host 0.0.0.0 --token "$(openssl rand -hex 16)" --no-browser
    """
    prepare_server()
    from asmk_engine.audit.report import report_again
    from asmk_engine.audit.state import read_state
    from asmk_engine.serve.judging import run_judging
    from asmk_engine.serve.options import ServeOptions
    from asmk_engine.serve.running import bound_socket

    console = Console(quiet)
    questions, options = read_state(folder).questions, ServeOptions(**access)
    bound = bound_socket(options)
    console.say(f"{folder}: {plural(len(questions.keys), 'question')}; Ctrl-C stops the server")
    run_judging(folder, questions, options, bound, announcement(options, bound, no_browser))
    _tell(report_again(folder), console)
