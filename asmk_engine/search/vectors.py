"""The global descriptors of all images of a feature set or an index, as one array."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.features import FeatureSet, part_names
from asmk_engine.flat.codec import Codec
from asmk_engine.iteration import Progress, counted
from asmk_engine.search.opening import open_index

BLOCK_BYTES = 16 << 20


@dataclass(frozen=True, eq=False)
class DescriptorTable:
    """The descriptors of images, in the order of their names.

    names      [n]
    vectors    [n, D] float32, of length 1 or zero
    extractor  what made them
    """

    names: list[str]
    vectors: np.ndarray
    extractor: str


def image_vectors(path: Path | str, progress: Progress | None = None) -> DescriptorTable:
    """Read the global descriptors of all images of a feature set or an index.

    Those of an index are projected by its codec, and as exact as it stores them; of an index of several kinds of
    features they are those of the first kind of global descriptors.

    Raises InputError for local features and for an image with another number of descriptors than one, and what
    opening raises.
    """
    path = Path(path)
    if path.is_dir() and part_names(path):
        return _of_features(FeatureSet.open(path), progress)
    return _of_index(open_index(path), path)


def _of_features(features: FeatureSet, progress: Progress | None) -> DescriptorTable:
    _check_global(features.recipe.is_global, features.recipe.extractor, features.path)
    names = sorted(name for name in features.names if features.count(name))
    vectors = np.zeros((len(names), features.dim), np.float32)
    rows = {name: row for row, name in enumerate(names)}
    for name, image in counted(features.images(names), len(names), progress):
        if len(image) != 1:
            raise InputError(f"{features.path}: {name!r} has {len(image)} descriptors, expected one; extract it again")
        vectors[rows[name]] = image.descriptors[0]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return DescriptorTable(names, vectors / np.where(lengths > 0, lengths, 1), features.recipe.extractor)


def _of_index(index: Any, path: Path) -> DescriptorTable:
    commits = getattr(index.snapshot, "views", (index.snapshot,))
    commit: Any = next((one for one in commits if isinstance(one.encoder, Codec)), None)
    _check_global(commit is not None, index.recipe.extractor, path)
    names: list[str] = []
    parts = [np.zeros((0, commit.encoder.dim), np.float32)]
    for segment in commit.segments:
        live = segment.live_numbers()
        names += [segment.name(number) for number in live.tolist()]
        step = max(1, BLOCK_BYTES // (4 * commit.encoder.dim))
        blocks = (live[begin : begin + step] for begin in range(0, len(live), step))
        parts += [commit.encoder.decode(segment.rows_of(block)) for block in blocks]
    vectors = np.concatenate(parts)
    has_all = commit is index.snapshot  # of several kinds, an image may lack one, which is a zero vector then
    order = sorted(np.flatnonzero(has_all | vectors.any(1)).tolist(), key=names.__getitem__)
    return DescriptorTable([names[place] for place in order], vectors[order], commit.encoder.recipe.extractor)


def _check_global(is_global: bool, extractor: str, path: Path) -> None:
    if not is_global:
        raise InputError(
            f"{path}: local features of {extractor}, many for each image; expected one descriptor for each, such as "
            "gem, cider or how-global extract"
        )
