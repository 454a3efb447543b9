"""`asmk-engine import` and `export`."""

from __future__ import annotations

from pathlib import Path

import click

from asmk_engine.cli.common import PATH, Console, plural, quiet_option

format_option = click.option(
    "--format", "form", type=click.Choice(["hloc"]), default="hloc", show_default=True, help="Layout of the file."
)


@click.command("import")
@click.argument("path", type=PATH, metavar="FILE")
@click.option("-o", "--output", type=PATH, required=True, help="The feature set; made, or added to.")
@click.option("--name", help="What made the features, such as superpoint.  [default: the name of FILE]")
@format_option
@quiet_option
def import_(path: Path, output: Path, name: str | None, form: str, quiet: bool) -> None:
    """Make a feature set of local features from another program.

    Only features of the same --name and dimension go with one codebook. This program cannot extract such features
    itself: ask an index of them by the names of its images.

    \b
    Example:
      asmk-engine import feats-superpoint-n4096-r1024.h5 -o photos.features --name superpoint
    """
    from asmk_engine.interop.hloc import import_hloc

    console = Console(quiet)
    with console.bar("check", "images") as on_check, console.bar("import", "images") as on_image:
        features = import_hloc(path, output, name=name, on_check=on_check, on_image=on_image)
    console.say(
        f"{output}: {plural(len(features), 'image')}, {plural(features.descriptor_count, 'descriptor')} "
        f"of {features.dim} dimensions"
    )


@click.command()
@click.argument("path", type=PATH, metavar="FEATURES")
@click.option("-o", "--output", type=PATH, required=True, help="The file to write.")
@click.option("--half", is_flag=True, help="Write descriptors as float16.")
@format_option
@quiet_option
def export(path: Path, output: Path, half: bool, form: str, quiet: bool) -> None:
    """Write FEATURES as a file for another program.

    \b
    Example:
      asmk-engine export photos.features -o photos.h5
    """
    from asmk_engine.features import FeatureSet
    from asmk_engine.interop.hloc import export_hloc

    console = Console(quiet)
    features = FeatureSet.open(path)
    with console.bar("export", "images") as on_image:
        written = export_hloc(features, output, half=half, on_image=on_image)
    console.say(f"{output}: {plural(written, 'image')}, {plural(features.descriptor_count, 'descriptor')}")
