"""Images with places of all kinds, and an index that keeps their geometry; shared by its tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.features import Features
from asmk_engine.inverted.geometry_file import (
    ALL_FEATURES,
)
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.snapshot import geometry_by_place
from asmk_engine.verification.geometry import ImageGeometry
from naive_geometry_file import naive_size
from samples import random_codebook, write_features

DIM, WORDS = 24, 8
CODEBOOK = random_codebook(WORDS, DIM)


def photographs(count: int, seed: int = 0, features: int = 12, *, angles: bool = False) -> dict[str, Features]:
    """Images of 0 to `features` features, in it and at its edges, of any scale; every fourth is of unknown size.

    angles  whether features have angles, of more than a turn too
    """
    rng = np.random.default_rng(seed)
    found = {}
    for number in range(count):
        size = int(rng.integers(0, features + 1))
        width, height = (int(side) for side in rng.integers(1, 5000, 2))
        places = np.stack([rng.uniform(-0.5, side - 0.5, size) for side in (width, height)], 1)
        columns = [places, 2 ** rng.uniform(-3, 12.8, (size, 1))]
        if angles:
            columns.append(rng.uniform(-8, 8, (size, 1)))
        keypoints = np.concatenate(columns, 1).astype(np.float32)
        image = Features.from_descriptors(rng.normal(size=(size, DIM)).astype(np.float32), keypoints)
        found[f"image {number:03d}.jpg"] = replace(image, image_size=(0, 0) if number % 4 == 3 else (width, height))
    return found


def made(path: Path, images: dict[str, Features], geometry: int | str | None = "all", postings: int = 1 << 24) -> Index:
    """An index of these images."""
    index = Index.create(path, CODEBOOK, geometry=geometry)
    index.add(write_features(path.with_suffix(".features"), images, dim=DIM), segment_postings=postings)
    return index


def found(index: Index, name: str) -> ImageGeometry | None:
    place = index.snapshot.find(name)
    assert place is not None
    return geometry_by_place(index.snapshot, *place)


def words_and_codes(features: Features, codebook: Codebook = CODEBOOK) -> tuple[list[int], list[int]]:
    """The word of each feature and the signs of its residual, one by one."""
    words, codes = [], []
    for descriptor in codebook.project(features.descriptors):
        word = min(range(codebook.words), key=lambda k: float(((descriptor - codebook.centroids[k]) ** 2).sum()))
        signs = descriptor - codebook.centroids[word] > 0
        words.append(word)
        codes.append(sum(1 << bit for bit in range(len(signs)) if signs[bit]))
    return words, codes


def check_same(geometry: ImageGeometry | None, features: Features, most: int = ALL_FEATURES) -> None:
    """The geometry is that of the features, to within what is rounded."""
    assert geometry is not None
    features = features.strongest(most)
    words, codes = words_and_codes(features)
    order = sorted(range(len(words)), key=words.__getitem__)
    assert geometry.words.tolist() == [words[i] for i in order] and geometry.words.dtype == np.uint32
    assert [int(code) for code in geometry.codes[:, 0]] == [codes[i] for i in order]
    assert geometry.features.tolist() == list(range(len(features))) and geometry.features.dtype == np.int32
    assert geometry.image_size == naive_size(features) and geometry.dim == DIM
    places, expected = geometry.places, features.keypoints[order]
    assert places.dtype == np.float32 and places.shape == (len(features), 4)
    error = np.abs(places[:, :2] - expected[:, :2])
    assert (error <= np.array(geometry.image_size) / 65535 / 2 + 1e-3).all()
    assert (np.abs(np.log2(places[:, 2]) - np.log2(expected[:, 2])) <= 1 / 32 + 1e-5).all()
    if expected.shape[1] == 3:
        assert np.isnan(places[:, 3]).all()
    else:
        turns = (places[:, 3] - expected[:, 3]) / (2 * np.pi)
        assert (np.abs(turns - np.rint(turns)) <= 1 / 510 + 1e-5).all()
