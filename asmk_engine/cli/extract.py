"""`asmk-engine extract`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Console, extraction_options, plural, quiet_option
from asmk_engine.cli.networks import choose_extractor

if TYPE_CHECKING:
    from asmk_engine.extraction import ExtractionSummary
    from asmk_engine.features import FeatureSet
    from asmk_engine.recipes import Recipe

SHOWN_FAILURES = 20


@click.command()
@click.argument("images", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The feature set; made, or added to.")
@click.option("--prune", is_flag=True, help="Forget images that are no longer there.")
@extraction_options
@quiet_option
def extract(images: tuple[Path, ...], output: Path, prune: bool, quiet: bool, **options: Any) -> None:
    """Find and describe the local features of IMAGES: files, folders, or text files that list images.

    A second run does only what is missing or changed. An image that cannot be read is skipped and listed at the end.

    \b
    Examples:
      asmk-engine extract photos/ -o photos.features
      asmk-engine extract photos/ more/one.png list.txt -o photos.features --max-features 2000
      asmk-engine extract photos/ -o deep.features --extractor how-squeezenet --weights squeezenet1_1-b8a52dc0.pth
    """
    run_extraction(images, output, Console(quiet), prune=prune, **options)


def run_extraction(
    images: Sequence[Path],
    output: Path,
    console: Console,
    *,
    prune: bool,
    workers: int | None,
    strict: bool,
    recipe: Recipe | None = None,
    network: Path | None = None,
    **options: Any,
) -> FeatureSet:
    """Extract with a progress bar, say what was skipped, and open the feature set.

    recipe, network  how to extract when no extractor and no option is named; by default as the set was made so far
    """
    from asmk_engine.extraction import extract_images
    from asmk_engine.features import FeatureSet
    from asmk_engine.training.initial import keeping, network_beside

    known = FeatureSet.open(output).recipe if is_feature_set(output) else None
    if recipe is None and known is not None:
        recipe, network = known, network_beside(output)
    with keeping(network_beside(output), known.weights if known else None):
        chosen = choose_extractor(images, output, console, recipe=recipe, network=network, **options)
    with console.bar("extract", "images") as progress:
        summary = extract_images(chosen, images, output, workers=workers, strict=strict, prune=prune, progress=progress)
    report(summary, output, console)
    return FeatureSet.open(output)


def report(summary: ExtractionSummary, output: Path, console: Console) -> None:
    """Say what was done, and each image that was skipped with its reason."""
    for name, reason in list(summary.failed.items())[:SHOWN_FAILURES]:
        console.say(f"skipped {name!r}: {reason}")
    if len(summary.failed) > SHOWN_FAILURES:
        more = len(summary.failed) - SHOWN_FAILURES
        console.say(f"… and {more} more; `asmk-engine info {output} --failures` lists all")
    rate = summary.images_per_second
    console.say(
        f"{output}: {plural(summary.extracted, 'image')} extracted ({rate:.1f} images/s), "
        f"{summary.unchanged} unchanged, {len(summary.failed)} skipped"
    )


def is_feature_set(path: Path) -> bool:
    """Whether a path is a folder of feature parts."""
    from asmk_engine.features import part_names

    return path.is_dir() and bool(part_names(path))
