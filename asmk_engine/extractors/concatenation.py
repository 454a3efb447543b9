"""Concatenation of several global descriptors of an image, each L2-normalised and multiplied by a weight.

The cosine of two such vectors is the mean of the cosines of their parts, weighted by the squares of the weights.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.extraction.attempts import Extractor, Origin
from asmk_engine.extractors import extractor_from_recipe, network_file
from asmk_engine.features import Features
from asmk_engine.images.boxes import Box
from asmk_engine.images.listing import PathLike
from asmk_engine.recipes import Recipe

EXTRACTOR = "concatenation"
_STANDING = np.zeros((1, 3), np.float32)
_STRENGTH = np.ones(1, np.float32)


def concatenated_recipe(recipes: Sequence[Recipe], weights: Sequence[float]) -> Recipe:
    """Return the recipe of the concatenation of these recipes; raises MismatchError if one is given twice."""
    if len(set(recipes)) < len(recipes):
        twice = next(recipe for recipe in recipes if list(recipes).count(recipe) > 1)
        raise MismatchError(f"[{twice}] would be concatenated with itself, which has no effect; give it once")
    contents = [json.loads(recipe.to_json()) for recipe in recipes]
    parts = [{**content, "weight": weight} for content, weight in zip(contents, weights, strict=True)]
    return Recipe(EXTRACTOR, {"parts": parts})


def joined(parts: Sequence[Features], weights: Sequence[float]) -> Features:
    """Concatenate the descriptors of an image; raises MismatchError unless each part has exactly one."""
    vectors = []
    for features, weight in zip(parts, weights, strict=True):
        if len(features) != 1:
            raise MismatchError(f"an image has {len(features)} descriptors, concatenation takes exactly one")
        vector = features.descriptors[0].astype(np.float64)
        length = float(np.sqrt(np.cumsum(vector * vector)[-1]))
        vectors.append(weight * vector / length if length else vector)
    whole = np.concatenate(vectors)[None]
    length = float(np.sqrt(np.cumsum(whole * whole)[-1]))
    descriptor = np.asarray(whole / length if length else whole, np.float32)
    return Features(descriptor, _STANDING, _STRENGTH, parts[0].image_size)


@dataclasses.dataclass(frozen=True)
class ConcatenatedExtractor:
    """Extracts the concatenated descriptors of several extractors.

    parts    the extractors
    weights  weights of their descriptors
    """

    parts: tuple[Extractor, ...]
    weights: tuple[float, ...]

    @property
    def recipe(self) -> Recipe:
        """The recipe of the concatenation."""
        return concatenated_recipe([part.recipe for part in self.parts], self.weights)

    @property
    def dim(self) -> int:
        """Sum of the dimensions of the parts."""
        return sum(part.dim for part in self.parts)

    @property
    def origin(self) -> Origin:
        """How a worker process constructs an equal extractor."""
        origins = [dataclasses.asdict(part.origin) for part in self.parts]
        return Origin(f"{__name__}:extractor_of_parts", {"origins": origins, "weights": list(self.weights)})

    def extract(self, image: PathLike | np.ndarray, box: Box | None = None) -> Features:
        """Extract the concatenated descriptor of an image or a region; raises as the extractors."""
        return joined([part.extract(image, box=box) for part in self.parts], self.weights)


def extractor_of_parts(origins: Sequence[dict[str, Any]], weights: Sequence[float]) -> ConcatenatedExtractor:
    """Make a concatenated extractor from the origins of its parts, as `Origin.make` does for each."""
    return ConcatenatedExtractor(tuple(cast(Extractor, Origin(**origin).make()) for origin in origins), tuple(weights))


def concatenated_extractor(
    recipe: Recipe, networks: Sequence[Path] = (), device: str = "auto"
) -> ConcatenatedExtractor:
    """Make the extractor of a concatenation; raises InputError for an invalid recipe, or as the parts raise.

    networks  candidate network files of the parts, selected by their sha256
    """
    try:
        parts = [(Recipe(part["extractor"], part["options"], part["weights"]), float(part["weight"]))
                 for part in recipe.options["parts"]]  # fmt: skip
    except (KeyError, TypeError, ValueError):
        raise InputError(f"the parts in [{recipe}] are missing or invalid; give the features of the queries "
                         "instead of images") from None  # fmt: skip
    extractors = tuple(extractor_from_recipe(part, _network(part, networks), device) for part, _ in parts)
    return ConcatenatedExtractor(extractors, tuple(weight for _, weight in parts))


def _network(recipe: Recipe, networks: Sequence[Path]) -> Path | None:
    if recipe.weights is None:
        return None
    return next((candidate for candidate in networks if network_file(recipe, candidate) == candidate), None)
