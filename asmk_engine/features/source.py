"""What features are read from: feature sets on disk, views of them, arrays in memory, or an object of the caller."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.escape import list_names
from asmk_engine.features.model import Features, Source, check_features, check_name, fingerprint_features
from asmk_engine.images.roots import UNKNOWN, Root
from asmk_engine.recipes import Recipe


@dataclass(frozen=True)
class Identities:
    """The identities of some images: fingerprints [n] uint64, and numbers [n] in a table of roots, 0 for unknown."""

    fingerprints: np.ndarray
    roots: tuple[Root, ...]
    numbers: np.ndarray


@runtime_checkable
class FeatureSource(Protocol):
    """Anything that yields the features of named images.

    `Codebook.train`, `Index.add`, `train_codec` and the other functions that take features need nothing more than
    these members. `FeatureSet` has them, and so has any class of your own that defines them; nothing is inherited.
    `str(source)` names it in messages.

    Examples
    --------
    >>> import numpy as np
    >>> from asmk_engine import Codebook, Features, FeatureSource
    >>> from asmk_engine.recipes import Recipe
    >>> class Noise:
    ...     recipe, dim, names = Recipe("noise"), 8, ["a", "b"]
    ...     def count(self, name):
    ...         return 200
    ...     def images(self, names=None):
    ...         for name in self.names if names is None else names:
    ...             rng = np.random.default_rng(ord(name))
    ...             yield name, Features.from_descriptors(rng.normal(size=(200, 8)))
    >>> source: FeatureSource = Noise()
    >>> Codebook.train(source).words
    2
    """

    @property
    def recipe(self) -> Recipe:
        """How the descriptors were made; features of different recipes never mix."""

    @property
    def dim(self) -> int:
        """The dimension of a descriptor."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the images, each once; a sample is drawn in this order."""

    def count(self, name: str) -> int:
        """Return the number of features of an image."""

    def images(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, Features]]:
        """Iterate over names and features of some images, all if None, each once and in any order."""


@runtime_checkable
class IdentifiedSource(FeatureSource, Protocol):
    """A source that also knows where the content of each image comes from, which an index records."""

    @property
    def path(self) -> Path | None:
        """The folder that holds the features, or None for features in memory."""

    def identities(self, names: Sequence[str]) -> Identities:
        """Return fingerprints and roots of some images, in the order of `names`."""

    def source(self, name: str) -> Source:
        """Return the file of an image; its fingerprint is that of the features if there is none."""

    def root(self, name: str) -> Root:
        """Return the root of an image, `roots.UNKNOWN` if it has none."""

    def roots(self) -> tuple[Root, ...]:
        """Return all known roots of images."""


def identified(features: FeatureSource) -> IdentifiedSource:
    """Return the source itself if it knows the identities of its images, else one that fingerprints their features.

    Raises InputError or MismatchError if features, names or counts of the source are not what its members promise.
    """
    return features if isinstance(features, IdentifiedSource) else FingerprintedFeatures(features)


class FingerprintedFeatures:
    """A source whose images are identified by the fingerprints of their features, read and checked in one pass."""

    path: Path | None = None

    def __init__(self, features: FeatureSource) -> None:
        self._features = features
        self._sources: dict[str, Source] = {}
        for name, image in features.images():
            check_features(check_name(name), image, features.dim)
            if name in self._sources:
                raise InputError(f"{label(features)}: image {name!r} came twice; names must be unique")
            if len(image) != features.count(name):
                raise InputError(f"{label(features)}: {name!r} has {len(image)} features, but count says otherwise")
            self._sources[name] = Source(0, 0, fingerprint_features(image))
        if unknown := sorted(self._sources.keys() ^ set(features.names)):
            raise InputError(f"{label(features)}: in its names or its images, but not in both: {list_names(unknown)}")

    def __str__(self) -> str:
        return label(self._features)

    @property
    def recipe(self) -> Recipe:
        """The recipe of the source."""
        return self._features.recipe

    @property
    def dim(self) -> int:
        """The dimension of a descriptor."""
        return self._features.dim

    @property
    def names(self) -> Sequence[str]:
        """The names of the images."""
        return self._features.names

    def count(self, name: str) -> int:
        """Return the number of features of an image."""
        return self._features.count(name)

    def images(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, Features]]:
        """Iterate over names and features. Raises MismatchError if they changed since they were fingerprinted."""
        for name, image in self._features.images(names):
            if name not in self._sources or fingerprint_features(image) != self._sources[name].fingerprint:
                raise MismatchError(f"{self}: {name!r} changed while it was read; every pass must be equal")
            yield name, image

    def identities(self, names: Sequence[str]) -> Identities:
        """Return the fingerprints; no root is known."""
        return without_roots([self._sources[name].fingerprint for name in names])

    def source(self, name: str) -> Source:
        """Return a source that has only a fingerprint."""
        return self._sources[name]

    def root(self, name: str) -> Root:
        """Return the unknown root."""
        return UNKNOWN

    def roots(self) -> tuple[Root, ...]:
        """Return no root."""
        return ()


def without_roots(fingerprints: Sequence[int]) -> Identities:
    """Return the identities of images that have fingerprints but no root."""
    return Identities(np.array(fingerprints, np.uint64), (UNKNOWN,), np.zeros(len(fingerprints), np.int64))


def label(features: FeatureSource) -> str:
    """Return the name of a source in messages, in one line: the path of a feature set."""
    return " ".join(str(features).split())[:200]


def descriptor_count(features: FeatureSource) -> int:
    """Return the number of descriptors of all images."""
    return sum(features.count(name) for name in features.names)
