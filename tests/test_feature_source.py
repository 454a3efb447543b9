"""Sources of features: a class that only follows the protocol is trained on and indexed like a feature set on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from asmk_engine import Codebook, Index
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.features import Features, FeatureSet, FeatureSource, IdentifiedSource, identified
from asmk_engine.flat import CodecOptions, GlobalIndex
from asmk_engine.flat.codec_training import train_codec
from asmk_engine.recipes import Recipe
from asmk_engine.tradeoff.sources import StrongestFeatures
from global_samples import RECIPE as GLOBAL
from global_samples import global_images, write_global
from samples import RECIPE, make_features, random_images, write_features

DIM = 8


@dataclass
class Made:
    """What a user might write: nothing but the members of the protocol."""

    pictures: dict[str, Features]
    recipe: Recipe = RECIPE
    dim: int = DIM
    reads: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return sorted(self.pictures, key=str.encode)

    def count(self, name: str) -> int:
        return len(self.pictures[name])

    def images(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, Features]]:
        for name in self.names if names is None else names:
            self.reads.append(name)
            yield name, self.pictures[name]


def contents(index: Index | GlobalIndex) -> dict[str, bytes]:
    """The files of an index but for the manifest, in which paths and an identity drawn at random stand."""
    return {path.name: path.read_bytes() for path in index.path.glob("*.safetensors")}


def test_a_made_source_equals_a_feature_set_bit_by_bit(tmp_path: Path) -> None:
    pictures = random_images(30, DIM, features=40)
    stored, made = write_features(tmp_path / "f", pictures), Made(pictures)
    books = [Codebook.train(features, 8, seed=3, rounds=3) for features in (stored, made)]
    assert books[0].fingerprint == books[1].fingerprint and books[0].training == books[1].training
    indexes = [Index.create(tmp_path / name, books[0]) for name in ("stored", "made")]
    assert [index.add(features).added for index, features in zip(indexes, (stored, made), strict=True)] == [30, 30]
    assert contents(indexes[0]) == contents(indexes[1])
    assert indexes[0].snapshot.manifest.features == (str(stored.path.resolve()),)
    assert indexes[1].snapshot.manifest.features == ()


def test_a_made_source_of_global_descriptors(tmp_path: Path) -> None:
    pictures = global_images(40)
    stored, made = write_global(tmp_path / "f", pictures), Made(pictures, GLOBAL, 24)
    codecs = [train_codec(features, CodecOptions(pca=6, seed=2)) for features in (stored, made)]
    assert codecs[0].fingerprint == codecs[1].fingerprint
    indexes = [GlobalIndex.create(tmp_path / name, codecs[0]) for name in ("stored", "made")]
    for index, features in zip(indexes, (stored, made), strict=True):
        index.add(features)
    assert contents(indexes[0]) == contents(indexes[1])


def test_the_modes_of_adding_hold_for_a_made_source(tmp_path: Path) -> None:
    pictures = random_images(12, DIM, features=20)
    index = Index.create(tmp_path / "i", Codebook.train(Made(pictures), 2, rounds=1))
    index.add(Made(pictures))
    names = sorted(pictures)
    with pytest.raises(InputError, match="already in the index"):
        index.add(Made(pictures))
    changed = {**pictures, names[0]: make_features(np.ones((3, DIM)))}
    assert index.add(Made(changed), existing="skip").taken == ()
    assert index.add(Made(changed), existing="skip").changed == (names[0],)
    done = index.add(Made(changed), existing="update")
    assert (done.replaced, done.unchanged) == (1, 11)
    del changed[names[1]]
    assert index.add(Made(changed), existing="update", prune=True).removed == 1
    assert sorted(index.names) == [names[0], *names[2:]]


def test_a_feature_set_and_its_views_know_their_identities(tmp_path: Path) -> None:
    stored = write_features(tmp_path / "f", random_images(5, DIM))
    for source in (stored, stored.selected(stored.names[:2]), StrongestFeatures(stored, 3)):
        features: FeatureSource = source
        known: IdentifiedSource = identified(features)
        assert known is source and known.path == stored.path and str(known) == str(stored.path)
    assert not isinstance(StrongestFeatures(stored, 3), FeatureSet)


def test_a_source_that_breaks_its_promises_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    pictures = random_images(4, DIM, features=20)
    index = Index.create(tmp_path / "i", Codebook.train(Made(pictures), 1, rounds=1))

    class Doubled(Made):
        def images(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, Features]]:
            yield from [*super().images(names), *super().images(names)]

    class Short(Made):
        def images(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, Features]]:
            yield from list(super().images(names))[1:]

    class Miscounted(Made):
        def count(self, name: str) -> int:
            return 99

    bad = make_features(np.full((1, DIM), np.nan))
    for source, words in (
        (Doubled(pictures), "came twice"),
        (Short(pictures), "not in both"),
        (Miscounted(pictures), "count says otherwise"),
        (Made({**pictures, "z": bad}), "NaN or infinite"),
        (Made({**pictures, "": make_features(np.ones((1, DIM)))}), "must not be empty"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            index.add(source)
        assert "\n" not in str(caught.value) and index.images == 0
    with pytest.raises(MismatchError, match="dimensions"):
        index.add(Made({"a": make_features(np.ones((1, DIM + 1)))}))
    with pytest.raises(MismatchError, match="trained on"):
        index.add(Made(pictures, Recipe("other")))


def test_features_that_change_while_they_are_read_are_refused(tmp_path: Path) -> None:
    pictures = random_images(4, DIM, features=20)
    index = Index.create(tmp_path / "i", Codebook.train(Made(pictures), 1, rounds=1))

    class Restless(Made):
        def images(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, Features]]:
            for name, image in super().images(names):
                yield name, make_features(image.descriptors + len(self.reads))

    with pytest.raises(MismatchError, match="changed while it was read"):
        index.add(Restless(pictures))
    assert index.images == 0
