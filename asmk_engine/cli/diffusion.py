"""`asmk-engine neighbours`, and the options of diffusion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Console, human_bytes, option_group, plural, quiet_option, threads_option
from asmk_engine.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from asmk_engine.cli.searching import AnySearcher, SearchOptions

FEW_IMAGES = 20_000
"""Up to this number of images, a missing neighbour table is built when it is first needed."""

diffusion_options = option_group(
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
)


def with_diffusion(searcher: AnySearcher, options: SearchOptions, console: Console) -> Any:
    """Return the searcher that ranks by diffusion if --diffusion was given, else the searcher itself.

    A neighbour table that is missing is built if the index has few images; else raises NotFoundError.
    """
    if not options.diffusion:
        return searcher
    if options.rerank or options.rotations or options.mirror:
        raise click.UsageError("--diffusion excludes --rerank, --rotations and --mirror; leave it or them out")
    from asmk_engine.diffusion import Diffusion, DiffusionSearcher
    from asmk_engine.diffusion.search import neighbour_table
    from asmk_engine.storage.folder import Folder

    index: Any = searcher.index
    plain: Any = searcher
    found = DiffusionSearcher(plain, Diffusion(options.diffusion_neighbours, options.diffusion_alpha))
    try:
        table = neighbour_table(Folder(index.path), index.snapshot)
    except NotFoundError as error:
        if index.images > FEW_IMAGES:
            raise
        console.say(f"{str(error).rpartition(';')[0]}; it is built now, for {plural(index.images, 'image')}")
        table = build(index, max(options.diffusion_neighbours, default_width()), options.threads, console)
    if table.width < min(options.diffusion_neighbours, index.images - 1):
        raise InputError(
            f"{index.path}: its neighbour table has {table.width} neighbours of an image, --diffusion-neighbours is "
            f"{options.diffusion_neighbours}; build it with `asmk-engine neighbours {index.path} "
            f"--k {options.diffusion_neighbours}`"
        )
    return found


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

    `query --diffusion` needs them. They are stored in INDEX, 8 bytes for each, and belong to its present images: any
    change of INDEX removes them. The time grows with the square of the number of images. An interrupted run resumes.
    The photographs and their features are not needed.

    \b
    Examples:
      asmk-engine neighbours photos.index
      asmk-engine query photos.index my-photo.jpg --diffusion
    """
    from asmk_engine.search.opening import open_index

    index, console = open_index(index_path), Console(quiet)
    table = build(index, width, threads, console)
    console.say(
        f"{index_path}: {plural(table.width, 'neighbour')} of each of {plural(index.images, 'image')}, "
        f"{human_bytes(table.file.size)}, for commit {index.snapshot.manifest.commit}"
    )
