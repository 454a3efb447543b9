"""`asmk-engine extract`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Console, Failures, extraction_options, intake_options, quiet_option
from asmk_engine.cli.networks import choose_extractor
from asmk_engine.cli.reports import Left, allowed_removal, report_extraction, report_found, report_left, report_removal

if TYPE_CHECKING:
    from asmk_engine.extraction.intake import Held
    from asmk_engine.extraction.run import ExtractionSummary
    from asmk_engine.images.listing import ImageList
    from asmk_engine.recipes import Recipe


@click.command()
@click.argument("images", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="Feature set (a folder) to create or extend.")
@click.option("--update", is_flag=True, help="Replace images by images of the same name from another folder.")
@click.option("--prune", is_flag=True, help="Remove images whose files are gone from the given folders.")
@intake_options
@extraction_options
@quiet_option
def extract(
    images: tuple[Path, ...],
    output: Path,
    update: bool,
    prune: bool,
    yes: bool,
    prefix: str,
    all_files: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Extract the features of images into a feature set.

    IMAGES are image files, folders, or text files that list images. Another run extracts only new and changed images.
    An image that cannot be read is skipped and listed at the end.

    \b
    Examples:
      asmk-engine extract photos/ -o photos.features
      asmk-engine extract photos/ more/one.png list.txt -o photos.features --max-features 2000
      asmk-engine extract photos/ -o deep.features --extractor how-squeezenet --weights squeezenet1_1-b8a52dc0.pth
    """
    from asmk_engine.features import FeatureSet
    from asmk_engine.images.listing import find_images

    console, failures, left = Console(quiet), Failures(), Left()
    found = find_images(images, prefix=prefix, every_file=all_files)
    if prune and is_feature_set(output):
        known = FeatureSet.open(output)
        origins = [(name, known.root(name)) for name in known.names]
        prune = allowed_removal(origins, found, failures, console, yes=yes) is not None
    summary = run_extraction(found, output, console, prune=prune, trusting=yes, update=update, **options)
    report_removal(summary.forgotten, console)
    left.note(summary.intake)
    report_extraction(summary, output, console)
    report_found(found, failures, console)
    report_left(left, failures, console)
    failures.tell()


def run_extraction(
    found: ImageList,
    output: Path,
    console: Console,
    *,
    prune: bool,
    trusting: bool,
    update: bool,
    held: Held | None = None,
    workers: int | None,
    strict: bool,
    recipe: Recipe | None = None,
    network: Path | None = None,
    **options: Any,
) -> ExtractionSummary:
    """Extract features and show a progress bar.

    prune, trusting, update, held  as for `extract_images`
    recipe, network                used if no extractor and no option is given; by default those of the existing set
    """
    from asmk_engine.extraction.run import extract_images
    from asmk_engine.features import FeatureSet
    from asmk_engine.training.initial import keeping, network_beside

    known = FeatureSet.open(output).recipe if is_feature_set(output) else None
    if recipe is None and known is not None:
        recipe, network = known, network_beside(output)
    with keeping(network_beside(output), known.weights if known else None):
        chosen = choose_extractor(found.images, output, console, recipe=recipe, network=network, **options)
    with console.bar("extract", "images") as progress:
        return extract_images(
            chosen, found, output, workers=workers, strict=strict, prune=prune, trusting=trusting,
            update=update, held=held, progress=progress,
        )  # fmt: skip


def is_feature_set(path: Path) -> bool:
    """Return whether a path is a folder of feature parts."""
    from asmk_engine.errors import StorageError
    from asmk_engine.features import part_names

    try:
        return os.path.isdir(path) and bool(part_names(path))
    except StorageError:  # an unreadable folder is reported by the search for images in it
        return False
