"""The regions of an image, from a grid, from the attention of its features, or from given boxes."""

from __future__ import annotations

from asmk_engine.errors import InputError
from asmk_engine.features import Features
from asmk_engine.images.boxes import Box
from asmk_engine.regions.attention import feature_boxes
from asmk_engine.regions.boxes import ImageBoxes
from asmk_engine.regions.grid import grid_boxes
from asmk_engine.regions.options import RegionOptions


def region_boxes(name: str, features: Features, options: RegionOptions, given: ImageBoxes | None) -> list[Box]:
    """Return the regions of an image in pixels, without the whole image.

    given  the boxes, if the regions are given ones

    Raises InputError if the size of the image is unknown, which boxes in pixels alone do not need.
    """
    size = features.image_size
    if not all(size) and (not options.are_given or (given is not None and given.are_shares)):
        raise InputError(f"{name}: its width and height are unknown, which its regions need; give boxes in pixels")
    if options.attention is not None:
        return [one.box for one in feature_boxes(features, options.attention)]
    if options.levels is not None:
        return grid_boxes(size, options.levels)
    return [] if given is None else given.of(name, size, options.least_score)
