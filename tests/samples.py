"""Small synthetic inputs shared by the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import asmk_engine
from asmk_engine.codebooks import Codebook
from asmk_engine.features import Features, FeatureSet, FeatureWriter, Source
from asmk_engine.images.decoding import view_image
from asmk_engine.images.roots import Root
from asmk_engine.recipes import Recipe

# For processes of their own: they shall import the package that is being tested, be it a checkout or a wheel.
ROOT = str(Path(asmk_engine.__file__).resolve().parents[1])
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH", "")]))}

RECIPE = Recipe("synthetic", {"seed": 0})


def load_image(path: Path) -> np.ndarray:
    """All pixels of an image file, upright: [H, W, 3] uint8, RGB."""
    return view_image(path, 1 << 30).pixels


def make_features(descriptors: np.ndarray) -> Features:
    """Features with these descriptors and keypoints on a diagonal."""
    count = len(descriptors)
    keypoints = np.tile(np.arange(count, dtype=np.float32)[:, None], (1, 3))
    scores = np.linspace(1, 0.5, count, dtype=np.float32)
    return Features(np.ascontiguousarray(descriptors, np.float32), keypoints, scores, (640, 480))


def random_images(count: int, dim: int, seed: int = 0, features: int = 12) -> dict[str, Features]:
    """Named images of 0 to `features` clustered descriptors each."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(8, dim))
    images = {}
    for number in range(count):
        size = int(rng.integers(0, features + 1))
        descriptors = centres[rng.integers(0, 8, size)] + 0.7 * rng.normal(size=(size, dim))
        images[f"folder/image {number:03d}.jpg"] = make_features(descriptors)
    return images


def random_codebook(words: int, dim: int, seed: int = 1, recipe: Recipe = RECIPE) -> Codebook:
    """A codebook with random centroids and no projection."""
    rng = np.random.default_rng(seed)
    centroids = rng.normal(size=(words, dim)).astype(np.float32)
    return Codebook(np.zeros(dim, np.float32), np.eye(dim, dtype=np.float32), centroids, recipe, {"rounds": 0})


def as_ordinary_user(command: list[str], seconds: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a command for which permissions count, also where the tests run as root; skips where that cannot be."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("permissions do not apply to root, and there is no setpriv")
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=seconds, check=False)


def write_features(
    path: Path,
    images: dict[str, Features],
    *,
    recipe: Recipe = RECIPE,
    dim: int | None = None,
    source: Source | None = None,
    root: Root | None = None,
) -> FeatureSet:
    """A feature set on disk that holds these images."""
    dim = dim or next(iter(images.values())).descriptors.shape[1]
    with FeatureWriter(path, recipe, dim) as writer:
        for name, features in images.items():
            writer.add(name, features, source, root)
    return FeatureSet.open(path)
