"""Photographs as queries: files and pixels, described by the extractor that described the images of an index."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np
from PIL import Image

from asmk_engine.extractors import Extractor, extractor_from_recipe
from asmk_engine.extractors.concatenation import EXTRACTOR as CONCATENATION
from asmk_engine.extractors.concatenation import concatenated_extractor
from asmk_engine.features import Features
from asmk_engine.images.boxes import Box
from asmk_engine.images.decoding import pixels_of_image
from asmk_engine.recipes import Recipe

Photograph = str | os.PathLike[str] | Image.Image | np.ndarray
"""A file, an image of Pillow, or uint8 pixels [H, W, 3], RGB, or [H, W], upright."""


def is_photograph(given: object) -> TypeGuard[Photograph]:
    """Return whether a query is a photograph, rather than features, a signature, or several queries."""
    return isinstance(given, str | os.PathLike | Image.Image | np.ndarray)


def described(photograph: Photograph, extractor: Extractor, box: Box | None) -> Features:
    """Return the features of a photograph, or of a region of it; raises as `Extractor.extract`."""
    if isinstance(photograph, Image.Image):
        return extractor.extract(pixels_of_image(photograph), box=box)
    return extractor.extract(photograph if isinstance(photograph, np.ndarray) else Path(photograph), box=box)


def extractor_of(recipe: Recipe, network: Path | None, feature_places: Iterable[Sequence[Path]]) -> Extractor:
    """Return the extractor of an index; raises as `extractor_from_recipe`.

    network         the network file in the index, if there is one
    feature_places  possible paths of its feature sets, in which the networks of a concatenation may lie
    """
    if recipe.extractor != CONCATENATION:
        return extractor_from_recipe(recipe, network)
    folders = dict.fromkeys(path.parent for places in feature_places for path in places)
    return concatenated_extractor(recipe, [file for folder in folders for file in sorted(folder.glob("*.safetensors"))])
