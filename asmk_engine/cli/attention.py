"""`asmk-engine attention`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Console, describing_options, extraction_of, quiet_option

if TYPE_CHECKING:
    import numpy as np

    from asmk_engine.extractors import Extractor

activations_option = click.option(
    "--activations",
    is_flag=True,
    help="For a network of global descriptors: the norms of the activations of its backbone instead of its attention, "
    "also where it has none, such as gem.",
)


@click.command()
@click.argument("photograph", metavar="PHOTO", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The picture to write (JPEG or PNG).")
@click.option(
    "--features",
    "most",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="Number of the strongest local features that are drawn as circles.",
)
@click.option(
    "--region-attention",
    "threshold",
    type=click.FloatRange(0, 1),
    metavar="T",
    help="Outline the parts where the attention reaches this share of its range: the regions of "
    "`index --region-attention T`. cider draws the boxes of its own masks without it.",
)
@activations_option
@describing_options
@quiet_option
def attention(
    photograph: Path,
    output: Path,
    most: int,
    threshold: float | None,
    activations: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Draw what an extractor looks at in a photograph.

    Of local features, three pictures: the photograph; the strengths of its features as a map, at each place that of the
    strongest feature seen there, of all scales; the strongest features as circles of their scale. The map is made of
    the features that are kept: for a network it is the attention of the locations that it selects.

    Of a global descriptor, the photograph and every map of attention of its network, at the scale nearest to 1: the
    attention and the masks of cider with their boxes, the tokens of token, the attention that each location gets in
    solar, and so on. A network without spatial attention, such as gem, has only --activations.

    \b
    Examples:
      asmk-engine attention photo.jpg -o attention.jpg
      asmk-engine attention photo.jpg -o attention.png --extractor rootsift --features 300
      asmk-engine attention photo.jpg -o attention.jpg --region-attention 0.5
      asmk-engine attention photo.jpg -o masks.png --extractor cider --weights cider.safetensors
      asmk-engine attention photo.jpg -o norms.png --extractor gem-resnet101 --weights gem.pth --activations
    """
    from asmk_engine.pictures.encoding import check_picture_name, write_picture
    from asmk_engine.pipeline.comparing import name_of, single_extractor

    check_picture_name(output)
    console, extraction = Console(quiet), extraction_of(options)
    with single_extractor(extraction, console) as extractor:
        name = name_of(extraction, extractor.recipe)
        if extractor.recipe.is_global or activations:
            picture = _of_maps(extractor, photograph, name, threshold, activations)
        else:
            picture = _of_features(extractor, photograph, name, most, threshold, console)
        write_picture(output, picture)


def _of_maps(
    extractor: Extractor, photograph: Path, name: str, threshold: float | None, activations: bool
) -> np.ndarray:
    from asmk_engine.pictures.attention_maps import draw_attention_maps
    from asmk_engine.pictures.photographs import ShownPhotograph
    from asmk_engine.pipeline.attending import photograph_attention

    maps = photograph_attention(extractor, photograph, activations=activations)
    return draw_attention_maps(ShownPhotograph.open(photograph), maps, photograph.name, name, threshold)


def _of_features(
    extractor: Extractor, photograph: Path, name: str, most: int, threshold: float | None, console: Console
) -> np.ndarray:
    from asmk_engine.images.listing import shown
    from asmk_engine.pictures.attention import draw_attention
    from asmk_engine.pictures.photographs import ShownPhotograph

    features = extractor.extract(photograph)
    if not len(features):
        console.say(f"{shown(photograph)}: no feature was found")
    return draw_attention(ShownPhotograph.open(photograph), features, photograph.name, name, most, threshold)
