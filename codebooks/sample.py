"""Uniform sampling of the descriptors of a source of features, in one pass and bounded memory."""

from __future__ import annotations

import numpy as np

from asmk_engine.codebooks.recall import HELD_OUT_SHARE
from asmk_engine.errors import InputError
from asmk_engine.features import FeatureSource, label
from asmk_engine.iteration import Progress


def sample_descriptors(
    features: FeatureSource, count: int, rng: np.random.Generator, progress: Progress | None = None
) -> np.ndarray:
    """Draw `count` descriptors uniformly without replacement; all of them if there are no more.

    The total is known before the pass, so the positions are drawn first: the distribution of reservoir sampling, with
    one read of every part. Images are read in the name order of their parts, so the draw depends only on the seed.
    Raises InputError if no image has a feature.

    progress  receives (done, total) in images
    returns   [min(count, total), D] float32
    """
    return sample_and_hold_out(features, count, 0, rng, progress)[0]


def sample_and_hold_out(
    features: FeatureSource, count: int, apart: int, rng: np.random.Generator, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw `count` descriptors as `sample_descriptors` does, and up to `apart` of the others.

    At most one descriptor in HELD_OUT_SHARE is set apart. The sample is smaller than `count` if fewer are left, and
    otherwise the same as without any set apart.

    returns  [n, D] and [m, D] float32
    """
    total = sum(features.count(name) for name in features.names)
    if total == 0:
        raise InputError(f"{label(features)}: no image has a feature; a codebook needs photographs with some texture")
    apart = min(apart, total // HELD_OUT_SHARE)
    places = _draw(total, min(count, total - apart), rng)
    others = _draw(total - len(places), apart, rng)
    # The r-th descriptor that was not drawn is at place r plus the number of those drawn before it.
    others += np.searchsorted(places - np.arange(len(places)), others, side="right")
    return _read(features, (places, others), progress)


def _draw(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw distinct numbers below `total`, in order, [count] int64."""
    return np.sort(rng.choice(total, count, replace=False)) if count < total else np.arange(total)


def _read(
    features: FeatureSource, wanted: tuple[np.ndarray, np.ndarray], progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """Read the descriptors at two lists of increasing places, numbered over all images in the order of the names."""
    names = features.names
    ends = dict(zip(names, np.cumsum([features.count(name) for name in names]), strict=True))
    found = tuple(np.empty((len(places), features.dim), np.float32) for places in wanted)
    for done, (name, image) in enumerate(features.images()):
        begin = ends[name] - len(image)
        for places, sample in zip(wanted, found, strict=True):
            first, last = np.searchsorted(places, (begin, ends[name]))
            sample[first:last] = image.descriptors[places[first:last] - begin]
        if progress:
            progress(done + 1, len(names))
    return found[0], found[1]
