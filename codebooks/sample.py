"""Uniform sampling of the descriptors of a feature set, in one pass and bounded memory."""

from __future__ import annotations

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.features import FeatureSet
from asmk_engine.iteration import Progress


def sample_descriptors(
    features: FeatureSet, count: int, rng: np.random.Generator, progress: Progress | None = None
) -> np.ndarray:
    """Draw `count` descriptors uniformly without replacement; all of them if there are no more.

    The total is known before the pass, so the positions are drawn first: the distribution of reservoir sampling, with
    one read of every part. Images are read in the name order of their parts, so the draw depends only on the seed.
    Raises InputError if no image has a feature.

    progress  receives (done, total) in images
    returns   [min(count, total), D] float32
    """
    names = [name for name, _ in _counts(features)]
    lengths = np.array([length for _, length in _counts(features)], np.int64)
    total = int(lengths.sum())
    if total == 0:
        raise InputError(f"{features.path}: no image has a feature; a codebook needs photographs with some texture")
    places = np.sort(rng.choice(total, min(count, total), replace=False)) if count < total else np.arange(total)
    ends = dict(zip(names, np.cumsum(lengths), strict=True))
    sample = np.empty((len(places), features.dim), np.float32)
    for done, (name, image) in enumerate(features.images()):
        begin = ends[name] - len(image)
        first, last = np.searchsorted(places, (begin, ends[name]))
        sample[first:last] = image.descriptors[places[first:last] - begin]
        if progress:
            progress(done + 1, len(names))
    return sample


def _counts(features: FeatureSet) -> list[tuple[str, int]]:
    return [(name, features.count(name)) for name in features.names]
