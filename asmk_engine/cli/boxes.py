"""`asmk-engine boxes`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.attention import activations_option
from asmk_engine.cli.common import (
    PATH,
    Console,
    Failures,
    as_written,
    describing_options,
    extraction_of,
    json_option,
    plural,
    quiet_option,
    tell,
)
from asmk_engine.errors import InputError

if TYPE_CHECKING:
    from asmk_engine.extractors import Extractor
    from asmk_engine.images.listing import ImageFile
    from asmk_engine.regions.attention_maps import MaskBox


@click.command()
@click.argument("images", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", type=PATH, help="Write the boxes into this file instead of printing them.")
@click.option(
    "--region-attention",
    "threshold",
    type=click.FloatRange(0, 1),
    metavar="T",
    help="Boxes around the parts where the attention reaches this share of its range.  [default: the masks of cider; "
    "0.5 for others]",
)
@click.option("--mask", type=click.IntRange(min=1), metavar="I", help="Only the boxes of the I-th mask of cider.")
@click.option(
    "--most", type=click.IntRange(min=1), default=8, show_default=True, help="Number of the largest boxes of a mask."
)
@click.option("--prefix", default="", metavar="NAME", help="Prepend NAME/ to the names of these images.")
@activations_option
@json_option
@describing_options
@quiet_option
def boxes(
    images: tuple[Path, ...],
    output: Path | None,
    threshold: float | None,
    mask: int | None,
    most: int,
    prefix: str,
    activations: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Find boxes of what an extractor looks at in images.

    IMAGES are image files, folders, or text files that list images. The attention of each, as `attention` draws it, is
    compared with a threshold, and each connected part above it becomes a box with the mean attention in it, from 0 to
    1, as its score. For cider these are the boxes of its masks (Song et al., CVPR 2024, Fig. 5); --json says of which.

    The table is one that `index --boxes` reads, with the names that the images have in an index of the same IMAGES. An
    image that cannot be read is reported at the end, with exit code 1.

    \b
    Examples:
      asmk-engine boxes photo.jpg --extractor cider --weights cider.safetensors
      asmk-engine boxes photos/ -o boxes.csv --extractor cider --weights cider.safetensors --mask 2
      asmk-engine index photos/ -o photos.index --regions aggregate --boxes boxes.csv
    """
    from asmk_engine.images.listing import find_images
    from asmk_engine.pipeline.attending import check_attention
    from asmk_engine.pipeline.comparing import name_of, single_extractor
    from asmk_engine.regions.box_files import write_boxes

    console, extraction, failed = Console(quiet), extraction_of(options), Failures()
    listed = find_images(images, prefix=prefix)
    for place, reason in (*listed.failures.items(), *listed.unlisted.items()):
        failed.add(f"{place}: {reason}")
    with single_extractor(extraction, console) as extractor:
        _check_mask(extractor, mask, threshold)
        check_attention(extractor, activations=activations)
        found = _found(extractor, listed.images, threshold, most, activations, console, failed)
        name = name_of(extraction, extractor.recipe)
    kept = {key: [one for one in each if mask in (None, one.mask)] for key, each in found.items()}
    _check_any(kept, mask, failed)
    if as_json:
        text = json.dumps({"extractor": name, "images": [_entry(key, each) for key, each in kept.items()]}) + "\n"
    else:
        text = write_boxes({key: [one.scored for one in each] for key, each in kept.items()})
    _deliver(text, output)
    count = sum(map(len, kept.values()))
    console.say(f"{count} box{'' if count == 1 else 'es'} in {plural(len(kept), 'image')}")
    tell(failed)


def _check_mask(extractor: Extractor, mask: int | None, threshold: float | None) -> None:
    if mask is None:
        return
    if threshold is not None:
        raise click.UsageError("--mask and --region-attention exclude each other: a threshold makes one mask")
    if extractor.recipe.extractor != "cider":
        raise InputError(
            f"{extractor.recipe.extractor}: --mask is for cider, which alone has masks; leave it out, or give "
            "--region-attention T"
        )


def _found(
    extractor: Extractor,
    images: list[ImageFile],
    threshold: float | None,
    most: int,
    activations: bool,
    console: Console,
    failed: Failures,
) -> dict[str, list[MaskBox]]:
    """Return the boxes of each image by its name; images that fail are noted."""
    from asmk_engine.iteration import counted
    from asmk_engine.pipeline.attending import photograph_attention
    from asmk_engine.regions.attention_maps import mask_boxes

    found = {}
    with console.bar("boxes", "images") as progress:
        for image in counted(images, len(images), progress):
            with failed.noting(image.name):
                maps = photograph_attention(extractor, image.path, activations=activations)
                found[image.name] = mask_boxes(maps[0], threshold, most) if maps else []
    return found


def _check_any(found: Mapping[str, list[MaskBox]], mask: int | None, failed: Failures) -> None:
    """Raise the first error if no image could be used, and InputError for a mask that there is not."""
    if not found:
        tell(failed)
    if mask is not None and found and not any(found.values()):
        raise InputError(f"--mask {mask}: the network has fewer masks; leave it out, and --json shows their numbers")


def _entry(name: str, found: list[MaskBox]) -> dict[str, Any]:
    each = [
        {
            "box": [round(value, 2) for value in one.scored.box],
            "score": round(one.scored.score, 6),
            "mask": one.mask,
            "threshold": round(one.threshold, 6),
        }
        for one in found
    ]
    return {"image": name, "boxes": each}


def _deliver(text: str, output: Path | None) -> None:
    from asmk_engine.storage.folder import Folder

    if output is None:
        click.echo(as_written(text, sys.stdout) if text.startswith("{") else text, nl=False)
        return
    folder = Folder(output.parent)
    folder.make()
    folder.write(output.name, [text.encode()])
    folder.sync()
