"""What a re-ranking transformer is told of an image, as arrays, without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.features import Features
from asmk_engine.networks.reranking.transformer_options import scale_numbers, scale_unit


@dataclass(frozen=True)
class ScaleUnit:
    """How the scale of a feature in pixels tells the image scale at which it was found.

    stride    side of a location of the feature map, in pixels of the image as it was described
    max_side  images with a longer side than this were shrunk to it; 0 for no limit
    """

    stride: float = 16.0
    max_side: int = 1024


@dataclass(frozen=True)
class ImageTokens:
    """One image: its global descriptor and its strongest local ones.

    whole   [global_dim] float32
    locals  [m, dim] float32, m of 0 or more
    scales  [m] int64, numbers of the scales, 0 to 6
    """

    whole: np.ndarray
    locals: np.ndarray
    scales: np.ndarray


def image_tokens(whole: Features, local: Features | None, unit: ScaleUnit, most: int) -> ImageTokens:
    """Return what a transformer is told of an image.

    whole  features of one descriptor, the global one
    local  local features, of which the strongest `most` count; None for none

    Raises InputError unless there is one global descriptor.
    """
    if len(whole) != 1:
        raise InputError(f"an image has {len(whole)} global descriptors; expected one")
    vector = whole.descriptors[0].astype(np.float32)
    if local is None or not len(local):
        dim = 0 if local is None else local.descriptors.shape[1]
        return ImageTokens(vector, np.empty((0, dim), np.float32), np.empty(0, np.int64))
    strongest = local.strongest(most)
    length = scale_unit(unit.stride, strongest.image_size, unit.max_side)
    numbers = scale_numbers(strongest.keypoints[:, 2], length)
    return ImageTokens(vector, strongest.descriptors.astype(np.float32), numbers)
