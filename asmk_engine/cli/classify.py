"""`asmk-engine classify`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from asmk_engine.cli.common import (
    PATH,
    Console,
    Failures,
    images_option,
    match_options,
    own_extractor_option,
    plural,
    quiet_option,
    read_name_list,
    tell,
)
from asmk_engine.cli.search_options import SearchOptions
from asmk_engine.cli.searching import (
    answer,
    check_options,
    expansion_options,
    kind_weights_option,
    searcher_of,
    tell_ambiguous,
)

if TYPE_CHECKING:
    from asmk_engine.cli.searching import AnySearcher, AnySource
    from asmk_engine.evaluation.classifiers import Classifier, Labels
    from asmk_engine.evaluation.model import Prediction

FORMATS = ("table", "jsonl", "gldv2")
METHODS = ("cls1", "cls2", "cls3")
BATCH_SIZE = 8  # queries that are searched together, as in `query`


@click.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.argument("queries", nargs=-1, metavar="QUERY...")
@click.option(
    "--labels",
    "labels_path",
    type=PATH,
    required=True,
    help="CSV with a header: image,label, or landmark_id,images like train_clean.csv of Google Landmarks.",
)
@click.option("--list", "list_path", type=PATH, help="Also classify the images listed in this text file, one per line.")
@click.option("--all", "every", is_flag=True, help="Classify every indexed image by the others, and show the accuracy.")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="cls2",
    show_default=True,
    help="cls1: the nearest image; cls2: the ten nearest, sum of similarities; cls3: sum of their square roots, "
    "times ln(labels * labelled images / images of the label), so that frequent labels count less.",
)
@click.option(
    "--neighbours", type=click.IntRange(min=1), help="Number of images that vote.  [default: 1 or 10, by method]"
)
@click.option(
    "--top", type=click.IntRange(min=1), default=3, show_default=True, help="Number of labels in the table or JSON."
)
@match_options
@expansion_options
@kind_weights_option
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="Output format.")
@click.option("--features", "features_path", type=PATH, help="Feature set with the features of named queries.")
@images_option
@own_extractor_option
@click.option("--allow-missing", is_flag=True, help="Allow indexed images without a label; they do not vote.")
@quiet_option
def classify(
    index_path: Path,
    queries: tuple[str, ...],
    labels_path: Path,
    list_path: Path | None,
    every: bool,
    method: str,
    neighbours: int | None,
    top: int,
    form: str,
    features_path: Path | None,
    images_roots: tuple[Path, ...],
    allow_missing: bool,
    quiet: bool,
    **search: Any,
) -> None:
    """Predict the label of each QUERY, with a confidence.

    The most similar images of INDEX vote with their labels. A QUERY is an image file or the name of an indexed
    image, which does not vote for itself. `gldv2` is the submission format of the recognition task of Google
    Landmarks v2, which `evaluate --run` evaluates.

    \b
    Examples:
      asmk-engine classify photos.index my-photo.jpg --labels labels.csv
      asmk-engine classify photos.index --all --labels labels.csv
      asmk-engine classify gldv2.index --list test.txt --labels train_clean.csv --method cls3 --format gldv2 > out.csv
    """
    from asmk_engine.evaluation.classifiers import CLASSIFIERS, check_weights, resolve_labels
    from asmk_engine.evaluation.landmarks import read_labels
    from asmk_engine.search.opening import open_any
    from asmk_engine.search.query_features import query_source

    given = [*queries, *(read_name_list(list_path) if list_path else [])]
    if every == bool(given):
        raise click.UsageError("give either queries (or --list) or --all")
    classifier = CLASSIFIERS[method] if neighbours is None else replace(CLASSIFIERS[method], neighbours=neighbours)
    index, options, console = open_any(index_path), SearchOptions(**search), Console(quiet)
    labels = resolve_labels(read_labels(labels_path), index.names, allow_missing=allow_missing)
    check_weights(labels, classifier)
    source = query_source(index, features=features_path, images_roots=images_roots)
    searcher = searcher_of(index, options, console)
    check_options(index, searcher, options, console)
    names = index.names if every else given
    if not every:
        tell_ambiguous(source, names, console)
    failed = Failures()
    predictions = _predictions(source, searcher, labels, classifier, names, console, failed)
    if every:
        predictions = _counted(predictions, labels, console)
    for line in _lines(predictions, form, top):
        click.echo(line)
    tell(failed)


def _predictions(
    source: AnySource,
    searcher: AnySearcher,
    labels: Labels,
    classifier: Classifier,
    names: list[str],
    console: Console,
    failed: Failures,
) -> Iterator[tuple[str, list[Prediction]]]:
    from asmk_engine.evaluation.classifiers import classify as vote

    # If some images have no label, the neighbours may be anywhere in the ranking.
    depth = classifier.neighbours + 1 if len(labels.of) == cast(Any, source.index).images else None
    with console.bar("classify", "images") as progress:
        for begin in range(0, len(names), BATCH_SIZE):
            group = names[begin : begin + BATCH_SIZE]
            answers = answer(source, searcher, group, None, depth, failed)
            progress(begin + len(group), len(names))
            for query, hits in answers:
                name = source.indexed_name(query)
                yield name or query, vote((hit for hit in hits if hit.name != name), labels, classifier)


def _counted(
    predictions: Iterator[tuple[str, list[Prediction]]], labels: Labels, console: Console
) -> Iterator[tuple[str, list[Prediction]]]:
    """Yield the predictions for indexed images, and show their accuracy at the end."""
    from asmk_engine.evaluation.recognition import evaluate_labels

    guesses: dict[str, Prediction | None] = {}
    for name, found in predictions:
        guesses[name] = found[0] if found else None
        yield name, found
    ground_truth = {name: frozenset([labels.of[name]]) if name in labels.of else frozenset[str]() for name in guesses}
    scores = evaluate_labels(ground_truth, guesses)
    shown = f"accuracy {100 * scores.accuracy:.2f} %, µAP {100 * scores.micro_average_precision:.2f} %"
    console.say(f"{plural(scores.labelled, 'image')}, each classified by the others: {shown}")


def _lines(predictions: Iterator[tuple[str, list[Prediction]]], form: str, top: int) -> Iterator[str]:
    from asmk_engine.evaluation.recognition import submission_lines

    if form == "gldv2":
        return submission_lines(predictions)
    if form == "jsonl":
        return (_json(name, found[:top]) for name, found in predictions)
    return (line for name, found in predictions for line in _table(name, found[:top]))


def _json(name: str, found: list[Prediction]) -> str:
    labels = [{"label": one.label, "confidence": one.confidence} for one in found]
    return json.dumps({"query": name, "labels": labels})


def _table(name: str, found: list[Prediction]) -> Iterator[str]:
    from asmk_engine.escape import escape_name

    yield f"# {escape_name(name)}"
    yield from (f"{one.confidence:10.6f}  {escape_name(one.label)}" for one in found)
    if not found:
        yield "         -  nothing in common with any labelled image"
