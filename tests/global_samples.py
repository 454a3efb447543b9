"""Small synthetic global descriptors shared by the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asmk_engine.features import Features, FeatureSet
from asmk_engine.recipes import Recipe
from samples import make_features, write_features

RECIPE = Recipe("gem", {"p": 3.0}, "ab" * 32)
DIM = 24


def global_images(count: int, dim: int = DIM, seed: int = 0, prefix: str = "image") -> dict[str, Features]:
    """Named images of one clustered unit vector each, the first two of them equal, the third zero."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(5, dim))
    vectors = centres[rng.integers(0, 5, count)] + 0.8 * rng.normal(size=(count, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if count > 2:
        vectors[1], vectors[2] = vectors[0], 0.0
    return {f"{prefix} {number:03d}.jpg": make_features(vector[None]) for number, vector in enumerate(vectors)}


def write_global(
    path: Path, images: dict[str, Features], recipe: Recipe = RECIPE, dim: int | None = None
) -> FeatureSet:
    """A feature set of global descriptors."""
    return write_features(path, images, recipe=recipe, dim=dim)
