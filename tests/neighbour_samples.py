"""Small indexes of every kind, and the similarities of their images, computed slowly from the formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import naive
from asmk_engine import Features, FusedIndex, GlobalIndex, Index
from asmk_engine.flat import Codec
from fused_histories import POOL
from global_samples import RECIPE as GLOBAL_RECIPE
from samples import RECIPE, make_features, random_codebook

DIM, WORDS = 24, 16


def local_index(path: Path, images: dict[str, Features], pieces: int = 1, deleted: int = 0) -> Index:
    """An index of so many segments, some of whose images are deleted."""
    index = Index.create(path, random_codebook(WORDS, DIM))
    extra = {f"gone {number}.jpg": image for number, image in enumerate(list(images.values())[:deleted])}
    names = [*extra, *images]
    for piece in np.array_split(np.array(names, object), pieces):
        index.add([(name, {**extra, **images}[name]) for name in piece], recipe=RECIPE)
    index.delete(extra)
    return index


def global_index(path: Path, images: dict[str, Features], pieces: int = 1, precision: str = "single") -> GlobalIndex:
    index = GlobalIndex.create(path, Codec(GLOBAL_RECIPE, DIM, precision))
    for piece in np.array_split(np.array([*images], object), pieces):
        index.add([(name, images[name]) for name in piece], recipe=GLOBAL_RECIPE)
    return index


def bits(features: Features) -> dict[int, list[int]]:
    """Word → code of an image, each descriptor with one word."""
    centroids = random_codebook(WORDS, DIM).centroids
    words = [naive.nearest_words(descriptor, centroids, 1) for descriptor in features.descriptors]
    sums = naive.aggregate(features.descriptors, words, centroids)
    return {word: naive.binarise(vector) for word, vector in sums.items()}


def local_twin(images: dict[str, Features]) -> dict[tuple[str, str], float]:
    codes = {name: bits(features) for name, features in images.items()}
    return {
        (one, other): naive.asmk_score(codes[one], codes[other]) if codes[one] and codes[other] else 0.0
        for one in codes
        for other in codes
    }


def global_twin(images: dict[str, Features]) -> dict[tuple[str, str], float]:
    vectors = {name: features.descriptors[0].astype(np.float64) for name, features in images.items()}
    return {(one, other): float(vectors[one] @ vectors[other]) for one in vectors for other in vectors}


def fused_similar(index: FusedIndex) -> tuple[dict[tuple[str, str], float], list[float]]:
    """The similarities of the images of a fused index, and the scales of the kinds, from those of each kind."""
    parts = {name: found[0] or make_features(np.empty((0, DIM))) for name, found in POOL.items()}
    codes = {name: bits_of(features) for name, features in parts.items()}
    kinds = [
        {(a, b): naive.asmk_score(codes[a], codes[b]) if codes[a] and codes[b] else 0.0 for a in POOL for b in POOL}
    ]
    vectors: dict[str, np.ndarray] = {}
    for segment in index.snapshot.segments:
        stored = index.snapshot.encoder.kinds[1].encoder.decode(segment.parts[1].vectors[:])
        vectors |= {segment.name(number): stored[number].astype(np.float64) for number in range(segment.images)}
    kinds.append({(a, b): float(vectors[a] @ vectors[b]) for a in POOL for b in POOL})
    scales = [float(np.mean([max(0.0, *(kind[a, b] for b in POOL if b != a)) for a in POOL])) for kind in kinds]
    weights = [0.75, 0.25]
    pairs = [(a, b) for a in POOL for b in POOL]
    return {p: sum(w * kind[p] / c for w, kind, c in zip(weights, kinds, scales, strict=True)) for p in pairs}, scales


def bits_of(features: Features) -> dict[int, list[int]]:
    """As `bits`, for the codebook of the fused index."""
    centroids = random_codebook(8, DIM).centroids
    words = [naive.nearest_words(descriptor, centroids, 1) for descriptor in features.descriptors]
    return {word: naive.binarise(v) for word, v in naive.aggregate(features.descriptors, words, centroids).items()}
