"""`asmk-engine neighbours`, and the options of searches that need its table: diffusion and augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Console, human_bytes, option_group, plural, quiet_option, threads_option
from asmk_engine.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from asmk_engine.cli.search_options import SearchOptions

FEW_IMAGES = 20_000
"""Up to this number of images, a missing neighbour table is built when it is first needed."""

neighbour_options = option_group(
    click.option(
        "--diffusion",
        is_flag=True,
        help="Rank by diffusion over the nearest neighbours of the indexed images, see `neighbours`.",
    ),
    click.option(
        "--diffusion-neighbours",
        type=click.IntRange(min=1),
        default=5,
        show_default=True,
        metavar="K",
        help="Number of nearest images of which diffusion joins the mutual ones.",
    ),
    click.option(
        "--diffusion-alpha",
        type=click.FloatRange(0, 0.999, min_open=True),
        default=0.6,
        show_default=True,
        help="Share that diffusion passes on along the edges: the greater, the further.",
    ),
    click.option(
        "--augmentation",
        type=click.IntRange(min=1),
        metavar="K",
        help="Average the score of each image with those of its K nearest images, see `neighbours`. "
        "K = 3 gained 1 to 2 points of Medium mAP on photographs, half of it within chance, and little after --rerank.",
    ),
    click.option(
        "--augmentation-power",
        type=click.FloatRange(min=0),
        help="Exponent of the similarity that weights a nearest image in the average.  [default: 0.35; 12 for global "
        "descriptors]",
    ),
)


def with_neighbours(searcher: Any, options: SearchOptions, console: Console) -> Any:
    """Return the searcher that uses the neighbour table if --diffusion or --augmentation was given, else the same one.

    A table that is missing is built if the index has few images; else raises NotFoundError.
    """
    if not (options.diffusion or options.augmentation):
        return searcher
    from asmk_engine.diffusion import AugmentingSearcher, Diffusion, DiffusionSearcher, NeighbourAugmentation

    found: Any
    if options.augmentation:
        width, option = options.augmentation, "--augmentation"
        found = AugmentingSearcher(searcher, NeighbourAugmentation(width, options.augmentation_power))
    else:
        width, option = options.diffusion_neighbours, "--diffusion-neighbours"
        found = DiffusionSearcher(searcher, Diffusion(width, options.diffusion_alpha))
    _provide_table(searcher.index, width, option, options.threads, console)
    return found


def check_neighbour_options(options: SearchOptions) -> None:
    """Raise UsageError for options that exclude each other."""
    if options.diffusion and options.augmentation:
        raise click.UsageError("--diffusion and --augmentation exclude each other; give one of them")
    given = "--diffusion" if options.diffusion else "--augmentation" if options.augmentation else None
    if given and (options.rotations or options.mirror):
        raise click.UsageError(f"{given} excludes --rotations and --mirror; leave it or them out")


def _provide_table(index: Any, width: int, option: str, threads: int | None, console: Console) -> None:
    """Build the neighbour table of an index of few images if it is missing; raises InputError if it is too narrow."""
    from asmk_engine.diffusion.base import neighbour_table
    from asmk_engine.storage.folder import Folder

    try:
        table = neighbour_table(Folder(index.path), index.snapshot)
    except NotFoundError as error:
        if index.images > FEW_IMAGES:
            raise
        console.say(f"{str(error).rpartition(';')[0]}; it is built now, for {plural(index.images, 'image')}")
        table = build(index, max(width, default_width()), threads, console)
    if table.width < min(width, index.images - 1):
        raise InputError(
            f"{index.path}: its neighbour table has {table.width} neighbours of an image, {option} is {width}; build "
            f"it with `asmk-engine neighbours {index.path} --k {width}`"
        )


def default_width() -> int:
    """Return the number of neighbours that a table holds by default."""
    from asmk_engine.diffusion.building import NEIGHBOURS_STORED

    return NEIGHBOURS_STORED


def build(index: Any, width: int, threads: int | None, console: Console) -> Any:
    """Build the neighbour table of an index, with a progress bar."""
    from asmk_engine.diffusion import build_neighbours

    with console.bar("neighbours", "images") as on_image:
        return build_neighbours(index, width, threads=threads, on_image=on_image)


@click.command()
@click.argument("index_path", type=PATH, metavar="INDEX")
@click.option(
    "--k", "width", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Neighbours of an image."
)
@threads_option
@quiet_option
def neighbours(index_path: Path, width: int, threads: int | None, quiet: bool) -> None:
    """Find the nearest images of each indexed image.

    `query --diffusion` and `query --augmentation` need them. They are stored in INDEX, 8 bytes for each, and belong to
    its present images: any change of INDEX removes them. The time grows with the square of the number of images. An
    interrupted run resumes. The photographs and their features are not needed.

    \b
    Examples:
      asmk-engine neighbours photos.index
      asmk-engine query photos.index my-photo.jpg --diffusion
      asmk-engine query photos.index my-photo.jpg --augmentation 3
    """
    from asmk_engine.search.opening import open_index

    index, console = open_index(index_path), Console(quiet)
    table = build(index, width, threads, console)
    console.say(
        f"{index_path}: {plural(table.width, 'neighbour')} of each of {plural(index.images, 'image')}, "
        f"{human_bytes(table.file.size)}, for commit {index.snapshot.manifest.commit}"
    )
