"""`asmk-engine extract`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from asmk_engine.cli.common import PATH, Console, extraction_of, extraction_options, intake_options, quiet_option, tell


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
    from asmk_engine.pipeline.extraction import IntakeOptions, existing, extract_features

    report = extract_features(
        images,
        output,
        intake=IntakeOptions(prefix, all_files, existing(update), prune, yes),
        extraction=extraction_of(options),
        display=Console(quiet),
    )
    tell(report.failures)
