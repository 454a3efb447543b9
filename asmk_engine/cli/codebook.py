"""`asmk-engine build-codebook`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from asmk_engine.cli.cluster_options import machines_of, ray_option
from asmk_engine.cli.common import PATH, Console, option_group, quiet_option


class WordCount(click.ParamType):
    """`auto` or a whole number above 0."""

    name = "auto|N"

    def convert(self, value: object, param: click.Parameter | None, context: click.Context | None) -> int | str:
        """Return the number, or `auto`."""
        if isinstance(value, int):
            return value
        if value == "auto":
            return "auto"
        if str(value).isdecimal() and int(str(value)) > 0:
            return int(str(value))
        self.fail(f"{value!r} is neither auto nor a whole number above 0", param, context)


training_options = option_group(
    click.option(
        "--words",
        type=WordCount(),
        default="auto",
        show_default=True,
        help="Number of visual words. auto: the largest power of two with at least 200 features per word, at most "
        "65536.",
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the random choices."
    ),
    click.option(
        "--rounds", type=click.IntRange(min=1), default=10, show_default=True, help="Number of k-means iterations."
    ),
    click.option(
        "--whitening",
        type=click.Choice(["auto", "pca", "none"]),
        default="auto",
        show_default=True,
        help="Projection learned before clustering. auto: none for features of a network, which are already reduced, "
        "else pca.",
    ),
    click.option(
        "--backend",
        type=click.Choice(["auto", "faiss", "torch", "graph"]),
        default="auto",
        show_default=True,
        help="Nearest-word search in k-means. faiss, torch: exact. graph: approximate, through links between near "
        "words, and faster. auto: graph for 16384 or more words, else faiss if installed, else torch.",
    ),
    click.option(
        "--assignment",
        type=click.Choice(["auto", "exact", "graph"]),
        default="auto",
        show_default=True,
        help="How features are assigned to words. exact: compare with all words. graph: follow links between near "
        "words, as widely as held-out features show to be needed. auto: graph for 16384 or more words if it finds 99% "
        "of the nearest words and 98% of the nearest five, else exact; a stated graph is used in any case.",
    ),
)


@click.command("build-codebook")
@click.argument("features", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="Codebook file to write.")
@click.option("--half", is_flag=True, help="Round the words to half precision; the file takes half the space.")
@training_options
@ray_option
@quiet_option
def build_codebook(features: Path, output: Path, half: bool, quiet: bool, **options: Any) -> None:
    """Learn a codebook of visual words from FEATURES.

    FEATURES is a feature set of local features, as `extract` writes it. `index` trains a codebook by itself if none is
    given.

    \b
    Examples:
      asmk-engine build-codebook photos.features -o my.codebook.h5
      asmk-engine build-codebook photos.features -o my.codebook.h5 --words 65536 --ray 10.0.0.1:6379
    """
    from asmk_engine.features import FeatureSet
    from asmk_engine.pipeline.codebook_training import CodebookOptions, train_codebook

    console = Console(quiet)
    found, machines = FeatureSet.open(features), machines_of(options, console)
    codebook = train_codebook(found, CodebookOptions(**options), console, machines)
    codebook = codebook.rounded() if half else codebook
    codebook.save(output, half=half)
    console.say(f"{output}: {codebook}")
