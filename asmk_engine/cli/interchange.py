"""`asmk-engine import` and `export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asmk_engine.cli.common import PATH, Command, Console, RenamedOption, plural, quiet_option, read_name_list
from asmk_engine.errors import InputError

if TYPE_CHECKING:
    from asmk_engine.features import FeatureSet


def format_option(*forms: str) -> Callable[[Command], Command]:
    """Return the option --format with these file formats, the first of which is the default."""
    return click.option(
        "--format", "form", type=click.Choice(forms), default=forms[0], show_default=True, help="Format of the file."
    )


@click.command("import")
@click.argument("path", type=PATH, metavar="FILE")
@click.option(
    "-o",
    "--output",
    type=PATH,
    required=True,
    help="Feature set to create or extend, codebook to write, or index to create.",
)
@click.option("--name", help="Name of the method of the features, such as superpoint.  [default: the name of FILE]")
@click.option("--codebook", type=PATH, help="asmk: codebook of the inverted file, already imported.")
@click.option("--names", type=PATH, help="asmk, how: text file of the names of the images, one per line, in order.")
@click.option(
    "--ground-truth",
    cls=RenamedOption,
    earlier="--truth",
    type=PATH,
    help="how: ground truth that names the images and queries.",
)
@click.option("--queries", type=PATH, help="how: feature set of the queries to create or extend.")
@format_option("hloc", "asmk", "how")
@quiet_option
def import_(
    path: Path,
    output: Path,
    name: str | None,
    codebook: Path | None,
    names: Path | None,
    ground_truth: Path | None,
    queries: Path | None,
    form: str,
    quiet: bool,
) -> None:
    """Import features, codebooks or indexes of other programs.

    hloc: an HDF5 file of local features becomes a feature set. A codebook accepts only features of the same --name and
    dimension. This program cannot extract such features itself: query an index of them by the names of its images.

    asmk: a codebook becomes a codebook for features imported under the same --name; a binary inverted file becomes an
    index. The pickles of asmk are read without executing any code in them.

    how: the published pickles of HOW features become feature sets, one of the database and one of the queries, for
    codebooks imported under the same --name. They contain no keypoints.

    \b
    Examples:
      asmk-engine import feats-superpoint-n4096-r1024.h5 -o photos.features --name superpoint
      asmk-engine import --format asmk X_codebook.pkl -o x.codebook.h5 --name mast3r
      asmk-engine import --format asmk X.ivf.pkl --codebook x.codebook.h5 --names images.txt -o x.index
      asmk-engine import --format how roxford5k_how_r18_1000.pkl --ground-truth gnd_roxford5k.pkl --name how_r18 \\
          -o oxford.features --queries oxford-queries.features
    """
    console = Console(quiet)
    _check_options(
        form, {"--codebook": codebook, "--names": names, "--ground-truth": ground_truth, "--queries": queries}
    )
    if form == "asmk":
        _import_asmk(path, output, name, codebook, names, console)
    elif form == "how":
        _import_how(path, output, name, names, ground_truth, queries, console)
    else:
        _import_hloc(path, output, name, console)


_TAKEN = {"hloc": (), "asmk": ("--codebook", "--names"), "how": ("--names", "--ground-truth", "--queries")}


def _check_options(form: str, given: dict[str, Path | None]) -> None:
    """Raise InputError for options that belong to another format."""
    wrong = [option for option, value in given.items() if value is not None and option not in _TAKEN[form]]
    if wrong:
        right = [other for other, taken in _TAKEN.items() if set(wrong) <= set(taken)]
        cure = f"add --format {' or '.join(right)}, or leave that out" if right else "leave that out"
        raise InputError(f"--format {form} does not accept {' or '.join(wrong)}; {cure}")


def _import_asmk(
    path: Path, output: Path, name: str | None, codebook: Path | None, names: Path | None, console: Console
) -> None:
    from asmk_engine.compat.conversion import import_asmk
    from asmk_engine.inverted.index import Index

    listed = read_name_list(names) if names else None
    made = import_asmk(path, output, name=name, codebook=codebook, names=listed)
    if isinstance(made, Index):
        console.say(f"{output}: {plural(made.images, 'image')}, {plural(made.postings, 'posting')}")
    else:
        console.say(f"{output}: {made}")


def _import_how(
    path: Path,
    output: Path,
    name: str | None,
    names: Path | None,
    ground_truth: Path | None,
    queries: Path | None,
    console: Console,
) -> None:
    from asmk_engine.evaluation.ground_truth import read_ground_truth
    from asmk_engine.interop.how_features import import_how

    if names and ground_truth:
        raise InputError("--names and --ground-truth both give the names of the images; give only one of them")
    known = read_ground_truth(ground_truth) if ground_truth else None
    listed = read_name_list(names) if names else known.images if known else None
    query_names = [query.name for query in known.queries] if known and queries else None
    with console.bar("import", "images") as on_image:
        made = import_how(
            path, output, queries=queries, name=name, names=listed, query_names=query_names, on_image=on_image
        )
    for place, features in zip((output, queries), made, strict=True):
        if features is not None:
            console.say(f"{place}: {_counts(features)}")


def _import_hloc(path: Path, output: Path, name: str | None, console: Console) -> None:
    from asmk_engine.interop.hloc import import_hloc

    with console.bar("check", "images") as on_check, console.bar("import", "images") as on_image:
        features = import_hloc(path, output, name=name, on_check=on_check, on_image=on_image)
    console.say(f"{output}: {_counts(features)}")


def _counts(features: FeatureSet) -> str:
    descriptors = plural(features.descriptor_count, "descriptor")
    return f"{plural(len(features), 'image')}, {descriptors} of {features.dim} dimensions"


@click.command()
@click.argument("path", type=PATH, metavar="FEATURES")
@click.option("-o", "--output", type=PATH, required=True, help="File to write.")
@click.option("--half", is_flag=True, help="Write descriptors as float16.")
@format_option("hloc")
@quiet_option
def export(path: Path, output: Path, half: bool, form: str, quiet: bool) -> None:
    """Export a feature set to a file for another program.

    hloc: an HDF5 file with keypoints and descriptors per image.

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
