"""The options of `asmk-engine index` for a global index, and `augment`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Console, names_of, option_group, parse_numbers, plural, quiet_option

if TYPE_CHECKING:
    from asmk_engine.pipeline.global_indexing import GlobalIndexOptions

global_options = option_group(
    click.option("--pca", type=click.IntRange(min=1), metavar="N", help="Reduce descriptors to N dimensions by PCA."),
    click.option("--whiten", is_flag=True, help="Scale the dimensions to equal variance; requires --pca."),
    click.option(
        "--pq",
        type=click.Choice(["8", "1"]),
        help="Product quantisation: store one byte per 8 dimensions, or per dimension.",
    ),
    click.option("--half", is_flag=True, help="Store vectors in half precision."),
    click.option(
        "--train-on",
        type=PATH,
        metavar="FEATURES",
        help="Feature set on which --pca and --pq are trained.  [default: the indexed one]",
    ),
    click.option(
        "--concatenate", is_flag=True, help="Concatenate the descriptors of several feature sets into one per image."
    ),
    click.option(
        "--part-weights",
        callback=lambda c, p, value: parse_numbers(value),
        help="Weights of the concatenated feature sets, such as 1,0.5.  [default: all 1]",
    ),
)


def global_options_of(options: dict[str, Any]) -> GlobalIndexOptions:
    """Take the values of `global_options` out of those of a command, as the pipeline takes them."""
    from asmk_engine.pipeline.global_indexing import GlobalIndexOptions

    values = {key: options.pop(key) for key in names_of(global_options)}
    return GlobalIndexOptions(**values | {"pq": int(values["pq"]) if values["pq"] else None})


@click.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.option("-o", "--output", type=PATH, required=True, help="Folder of the augmented index; must be new.")
@click.option(
    "--neighbours", type=click.IntRange(min=1), default=10, show_default=True, help="Number of nearest images."
)
@click.option(
    "--alpha",
    type=click.FloatRange(min=0),
    default=3.0,
    show_default=True,
    help="Exponent of the similarity that weights an image.",
)
@quiet_option
def augment(index_path: Path, output: Path, neighbours: int, alpha: float, quiet: bool) -> None:
    """Apply database-side augmentation to a global index.

    Writes a new index in which the descriptor of each image of INDEX is a weighted sum of its own and those of its
    nearest images.

    \b
    Example:
      asmk-engine augment gem.index -o gem-augmented.index --neighbours 10
    """
    from asmk_engine.flat import Expansion, GlobalIndex
    from asmk_engine.flat.augmentation import augment as blend

    console = Console(quiet)
    with console.bar("augment", "images") as on_image:
        made = blend(GlobalIndex.open(index_path), output, Expansion(neighbours, alpha), on_image=on_image)
    console.say(f"{output}: {plural(made.images, 'image')}, each combined with its {neighbours} nearest images")
