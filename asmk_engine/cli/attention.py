"""`asmk-engine attention`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from asmk_engine.cli.common import PATH, Console, describing_options, extraction_of, quiet_option
from asmk_engine.errors import InputError


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
    help="Number of the strongest features that are drawn as circles.",
)
@click.option(
    "--region-attention",
    "threshold",
    type=click.FloatRange(0, 1),
    metavar="T",
    help="Outline on the photograph the regions that `index --region-attention T` makes of it.",
)
@describing_options
@quiet_option
def attention(photograph: Path, output: Path, most: int, threshold: float | None, quiet: bool, **options: Any) -> None:
    """Draw what an extractor looks at in a photograph.

    Three pictures side by side: the photograph; the strengths of its features as a map, at each place that of the
    strongest feature seen there, of all scales; the strongest features as circles of their scale. The map is made of
    the features that are kept, for every extractor of local features: for a network it is the attention of the
    locations that it selects.

    \b
    Examples:
      asmk-engine attention photo.jpg -o attention.jpg
      asmk-engine attention photo.jpg -o attention.png --extractor rootsift --features 300
      asmk-engine attention photo.jpg -o attention.jpg --region-attention 0.5
    """
    from asmk_engine.images.listing import shown
    from asmk_engine.pictures.attention import draw_attention
    from asmk_engine.pictures.encoding import check_picture_name, write_picture
    from asmk_engine.pictures.photographs import ShownPhotograph
    from asmk_engine.pipeline.comparing import name_of, single_extractor

    check_picture_name(output)
    console, extraction = Console(quiet), extraction_of(options)
    with single_extractor(extraction, console) as extractor:
        if extractor.recipe.is_global:
            raise InputError(
                f"{extractor.recipe.extractor}: a global descriptor has no places, so there is nothing to draw; give "
                "an extractor of local features, such as --extractor rootsift"
            )
        features = extractor.extract(photograph)
    name = name_of(extraction, extractor.recipe)
    picture = draw_attention(ShownPhotograph.open(photograph), features, photograph.name, name, most, threshold)
    write_picture(output, picture)
    if not len(features):
        console.say(f"{shown(photograph)}: no feature was found")
