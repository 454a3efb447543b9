"""The options for regions of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, option_group, was_given

if TYPE_CHECKING:
    from asmk_engine.regions.options import RegionOptions

region_options = option_group(
    click.option(
        "--regions",
        type=click.Choice(["aggregate", "separate"]),
        help="Describe each image by the whole image and its regions: joined in one signature (R-ASMK), or one each, "
        "the best of which counts (D2R-ASMK).  [default: as the index; a new one has none]",
    ),
    click.option(
        "--region-grid",
        type=click.IntRange(1, 6),
        default=2,
        show_default=True,
        metavar="LEVELS",
        help="The regions are the squares of R-MAC at so many levels; more levels have more and smaller squares.",
    ),
    click.option(
        "--region-attention",
        type=click.FloatRange(0, 1),
        metavar="T",
        help="The regions are the boxes around the parts of an image in which the strengths of its features reach this "
        "share of their range instead, such as 0.5.",
    ),
    click.option(
        "--boxes",
        type=PATH,
        help="The regions are these boxes instead: a CSV table with image,x1,y1,x2,y2 and perhaps score, in pixels, "
        "COCO's JSON, or a folder of .boxes files of Detect-to-Retrieve.",
    ),
    click.option(
        "--box-score", type=float, default=0.1, show_default=True, metavar="SCORE",
        help="Least score of a box.",
    ),
)  # fmt: skip


def region_options_of(options: dict[str, Any]) -> tuple[RegionOptions | None, Path | None]:
    """Take the options of regions out of those of a command; a usage error if one has no effect."""
    from asmk_engine.regions.options import RegionOptions

    mode, levels, boxes, score = (options.pop(key) for key in ("regions", "region_grid", "boxes", "box_score"))
    attention = options.pop("region_attention")
    if sum([boxes is not None, was_given("region_grid"), attention is not None]) > 1:
        raise click.UsageError("give one of --region-grid, --region-attention and --boxes: regions are of one kind")
    if mode is None:
        if any(map(was_given, ("region_grid", "region_attention", "box_score"))):
            raise click.UsageError("--region-… and --box-score need --regions: add --regions aggregate, for example")
        return None, boxes
    if boxes is None and was_given("box_score"):
        raise click.UsageError("--box-score needs --boxes: other regions have no scores")
    if attention is not None:
        return RegionOptions(mode, None, attention=attention), None
    return (RegionOptions(mode, None, score) if boxes is not None else RegionOptions(mode, levels)), boxes
