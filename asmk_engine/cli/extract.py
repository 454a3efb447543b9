"""`asmk-engine extract`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from asmk_engine.cli.cluster_options import actor_options, machines_of
from asmk_engine.cli.common import (
    PATH,
    Console,
    ImagePlace,
    extraction_of,
    extraction_options,
    intake_options,
    quiet_option,
    tell,
)


@click.command()
@click.argument("images", nargs=-1, required=True, type=ImagePlace())
@click.option("-o", "--output", type=PATH, required=True, help="Feature set (a folder) to create or extend.")
@click.option("--update", is_flag=True, help="Replace images by images of the same name from another folder.")
@click.option("--prune", is_flag=True, help="Remove images whose files are gone from the given folders.")
@intake_options
@extraction_options
@actor_options
@quiet_option
def extract(
    images: tuple[Path | str, ...],
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

    IMAGES are image files, folders, or text files that list images; or URLs of object storage. Another run extracts
    only new and changed images. An image that cannot be read is skipped and listed at the end. With --ray a cluster
    describes the images, and this process writes the same feature set.

    \b
    Examples:
      asmk-engine extract photos/ -o photos.features
      asmk-engine extract photos/ more/one.png list.txt -o photos.features --max-features 2000
      asmk-engine extract photos/ -o deep.features --extractor how-squeezenet --weights squeezenet1_1-b8a52dc0.pth
      asmk-engine extract s3://bucket/photos -o photos.features --ray 10.0.0.1:6379
    """
    from asmk_engine.pipeline.extraction import IntakeOptions, existing, extract_features

    console = Console(quiet)
    machines = machines_of(options, console)
    report = extract_features(
        images,
        output,
        intake=IntakeOptions(prefix, all_files, existing(update), prune, yes),
        extraction=extraction_of(options, machines),
        display=console,
    )
    tell(report.failures)
