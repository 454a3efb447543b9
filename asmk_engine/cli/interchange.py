"""`asmk-engine import` and `export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from asmk_engine.cli.common import PATH, Command, Console, plural, quiet_option, read_name_list
from asmk_engine.errors import InputError


def format_option(*forms: str) -> Callable[[Command], Command]:
    """The option --format with these layouts, the first of which is the default."""
    return click.option(
        "--format", "form", type=click.Choice(forms), default=forms[0], show_default=True, help="Layout of the file."
    )


@click.command("import")
@click.argument("path", type=PATH, metavar="FILE")
@click.option(
    "-o", "--output", type=PATH, required=True, help="The feature set, made or added to; the codebook; the new index."
)
@click.option("--name", help="What made the features, such as superpoint.  [default: the name of FILE]")
@click.option("--codebook", type=PATH, help="The codebook of an inverted file of asmk.")
@click.option("--names", type=PATH, help="Names of the images of an inverted file of asmk, one a line, in their order.")
@format_option("hloc", "asmk")
@quiet_option
def import_(
    path: Path, output: Path, name: str | None, codebook: Path | None, names: Path | None, form: str, quiet: bool
) -> None:
    """Take over what another program made.

    hloc: local features become a feature set. Only features of the same --name and dimension go with one codebook.
    This program cannot extract such features itself: ask an index of them by the names of its images.

    asmk: a codebook becomes a codebook, for features imported under the same --name; a binary inverted file becomes an
    index. The pickles of asmk are read without running anything that is in them.

    \b
    Examples:
      asmk-engine import feats-superpoint-n4096-r1024.h5 -o photos.features --name superpoint
      asmk-engine import --format asmk X_codebook.pkl -o x.codebook.h5 --name mast3r
      asmk-engine import --format asmk X.ivf.pkl --codebook x.codebook.h5 --names images.txt -o x.index
    """
    console = Console(quiet)
    if form == "asmk":
        _import_asmk(path, output, name, codebook, names, console)
    elif codebook or names:
        raise InputError(
            "--codebook and --names are for an inverted file of asmk; add --format asmk, or leave them out"
        )
    else:
        _import_hloc(path, output, name, console)


def _import_asmk(
    path: Path, output: Path, name: str | None, codebook: Path | None, names: Path | None, console: Console
) -> None:
    from asmk_engine.compat.conversion import import_asmk
    from asmk_engine.index import Index

    listed = read_name_list(names) if names else None
    made = import_asmk(path, output, name=name, codebook=codebook, names=listed)
    if isinstance(made, Index):
        console.say(f"{output}: {plural(made.images, 'image')}, {plural(made.postings, 'posting')}")
    else:
        console.say(f"{output}: {made}")


def _import_hloc(path: Path, output: Path, name: str | None, console: Console) -> None:
    from asmk_engine.interop.hloc import import_hloc

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
@format_option("hloc")
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
