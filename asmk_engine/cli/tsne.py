"""`asmk-engine tsne`."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Console, as_written, json_option, plural, quiet_option, was_given
from asmk_engine.errors import InputError

if TYPE_CHECKING:
    from asmk_engine.pictures.embedding import Embedding
    from asmk_engine.search.vectors import DescriptorTable


@click.command()
@click.argument("source", type=PATH, metavar="SOURCE")
@click.option("-o", "--output", type=PATH, help="The picture to write (PNG, SVG or PDF).")
@click.option("--csv", "table", type=PATH, help="Also write image, x, y and class of each point into this CSV file.")
@click.option(
    "--ground-truth",
    "ground_truth_path",
    type=PATH,
    help="Classes are those of a ground truth as `evaluate` reads it: queries that share a positive are of one class, "
    "with their positives.",
)
@click.option(
    "--protocol",
    type=click.Choice(["easy", "medium", "hard"]),
    default="medium",
    show_default=True,
    help="Which positives of the ground truth have a class: easy ones, both, or hard ones.",
)
@click.option(
    "--labels",
    "labels_path",
    type=PATH,
    help="Classes are those of a CSV with a header as `classify` reads it: image,label or landmark_id,images.  "
    "[default: the folders of the images]",
)
@click.option("--labelled-only", is_flag=True, help="Leave out images without a class, such as distractors.")
@click.option(
    "--perplexity",
    type=click.FloatRange(min=0, min_open=True),
    help="About how many neighbours an image has; less than the number of images.  [default: 30, or a third of the "
    "other images if there are few]",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the map.")
@click.option(
    "--legend", type=click.IntRange(0, 60), default=20, show_default=True, metavar="N",
    help="Number of the most frequent classes with a colour and a line in the legend; others are grey.",
)  # fmt: skip
@json_option
@quiet_option
def tsne(
    source: Path,
    output: Path | None,
    table: Path | None,
    ground_truth_path: Path | None,
    protocol: str,
    labels_path: Path | None,
    labelled_only: bool,
    perplexity: float | None,
    seed: int,
    legend: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Draw a map of global descriptors, coloured by class.

    SOURCE is a feature set or an index of global descriptors. Images that are near each other on the map have similar
    descriptors (van der Maaten and Hinton, JMLR 2008; Song et al., CVPR 2024, Fig. 7); large distances, and the sizes
    of heaps, mean nothing. Needs scikit-learn and matplotlib: pip install 'asmk-engine[plots]'.

    \b
    Examples:
      asmk-engine tsne gem.index -o map.png
      asmk-engine tsne paris.features -o map.pdf --ground-truth gnd_rparis6k.pkl --protocol hard
      asmk-engine tsne gem.index -o map.svg --labels labels.csv --labelled-only --csv points.csv
    """
    from asmk_engine.pictures.embedding import FORMS, check_packages, draw_embedding, embed

    if not (output or table or as_json):
        raise click.UsageError("give at least one of -o, --csv and --json")
    if ground_truth_path and labels_path:
        raise click.UsageError("--ground-truth and --labels exclude each other: classes are of one kind")
    if was_given("protocol") and not ground_truth_path:
        raise click.UsageError("--protocol needs --ground-truth")
    if output and output.suffix.lower() not in FORMS:
        raise InputError(f"{output}: a map is a PNG, SVG or PDF file; give a name that ends in {', '.join(FORMS)}")
    check_packages()
    console = Console(quiet)
    images, classes = _images(source, ground_truth_path, protocol, labels_path, labelled_only, console)
    console.say(f"t-SNE of {plural(len(images.names), 'image')} ...")
    found = embed(images.vectors, perplexity, seed)
    if output:
        title = (
            f"t-SNE of {plural(len(images.names), 'descriptor')} of {images.extractor}, perplexity {found.perplexity:g}"
        )
        form = output.suffix.lower()[1:]
        _write(output, draw_embedding(found.points, images.names, classes, title, form, legend))
    if table:
        _write(table, _table(found, images, classes).encode())
    if as_json:
        click.echo(as_written(json.dumps(_report(found, images, classes)), sys.stdout))


def _images(
    source: Path,
    ground_truth_path: Path | None,
    protocol: str,
    labels_path: Path | None,
    labelled_only: bool,
    console: Console,
) -> tuple[DescriptorTable, Mapping[str, str]]:
    """Return the images to map and the classes of those that have one."""
    from asmk_engine.evaluation.classes import classes_of_folders, classes_of_ground_truth
    from asmk_engine.evaluation.classifiers import resolve_labels
    from asmk_engine.evaluation.ground_truth import read_ground_truth
    from asmk_engine.evaluation.landmarks import read_labels
    from asmk_engine.search.vectors import DescriptorTable, image_vectors

    given: dict[str, str] | None = None
    if ground_truth_path:
        given = classes_of_ground_truth(read_ground_truth(ground_truth_path), protocol)
    elif labels_path:
        given = read_labels(labels_path)
    with console.bar("read", "images") as progress:
        images = image_vectors(source, progress)
    classes = classes_of_folders(images.names)
    if given is not None:
        classes = dict(resolve_labels(given, images.names, allow_missing=True).of)
    if not labelled_only:
        return images, classes
    rows = [row for row, name in enumerate(images.names) if name in classes]
    return DescriptorTable([images.names[row] for row in rows], images.vectors[rows], images.extractor), classes


def _table(found: Embedding, images: DescriptorTable, classes: Mapping[str, str]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["image", "x", "y", "class"])
    for name, (x, y) in zip(images.names, found.points.tolist(), strict=True):
        writer.writerow([name, f"{x:.6g}", f"{y:.6g}", classes.get(name, "")])
    return file.getvalue()


def _report(found: Embedding, images: DescriptorTable, classes: Mapping[str, str]) -> dict[str, Any]:
    each = zip(images.names, found.points.tolist(), strict=True)
    return {
        "extractor": images.extractor,
        "images": len(images.names),
        "perplexity": found.perplexity,
        "seed": found.seed,
        "divergence": found.divergence,
        "points": [{"image": name, "x": x, "y": y, "class": classes.get(name)} for name, (x, y) in each],
    }


def _write(path: Path, data: bytes) -> None:
    from asmk_engine.storage.folder import Folder

    folder = Folder(path.parent)
    folder.make()
    folder.write(path.name, [data])
    folder.sync()
