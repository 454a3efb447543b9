"""What verification needs of the images of an index: places and codes of their features, or their descriptors.

The geometry is stored beside the postings, or made again from a remembered feature set; descriptors are always read
from there.
"""

from __future__ import annotations

import abc
import contextlib
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import AsmkWarning, NotFoundError
from asmk_engine.features import Features
from asmk_engine.indexes.answers import decoded
from asmk_engine.indexes.named_images import NamedImages
from asmk_engine.inverted.signatures import AssignedFeatures
from asmk_engine.inverted.snapshot import Snapshot
from asmk_engine.verification.geometry import ImageGeometry, geometry_of, image_geometry
from asmk_engine.verification.mutual import ImageVectors, MutualNeighbours, image_vectors
from asmk_engine.verification.reranking import Comparison

Part = TypeVar("Part", ImageGeometry, ImageVectors)


class FoundImages(abc.ABC, Generic[Part]):
    """Finds something of indexed images, and keeps what was made from features in memory.

    index  an index, several as one, or one kind of features of an index
    most   number of images that are kept
    lacks  what is missing if it cannot be found
    cure   what to do then
    """

    most: ClassVar[int]
    lacks: ClassVar[str]
    cure: ClassVar[str]

    def __init__(self, index: Any) -> None:
        self._named = NamedImages(index)
        self._made: weakref.WeakKeyDictionary[Snapshot, OrderedDict[tuple[int, int], Part | None]] = (
            weakref.WeakKeyDictionary()
        )

    def find(self, snapshot: Snapshot, segments: np.ndarray, numbers: np.ndarray) -> Iterator[Part | None]:
        """Yield what is found of images, None for those without, and at the end warn of those that should have it.

        segments, numbers  [m] int64, positions of the segments and numbers in them

        Raises NotFoundError, at the end, if all should have it and none has.
        """
        missing: list[str] = []
        yield from self.find_some(snapshot, segments, numbers, missing)
        self.tell(self._named.index.path, missing, len(segments))

    def find_some(
        self, snapshot: Snapshot, segments: np.ndarray, numbers: np.ndarray, missing: list[str]
    ) -> Iterator[Part | None]:
        """Yield as `find`, without a word about those that should have it: their names are added to `missing`."""
        for place in zip(segments.tolist(), numbers.tolist(), strict=True):
            found = self.image(snapshot, place)
            if found is None and snapshot.segments[place[0]].word_counts[place[1]]:  # else it has no features
                missing.append(_name(snapshot, place))
            yield found

    @abc.abstractmethod
    def _make(self, features: Features, codebook: Codebook) -> Part:
        """Make it from the features of an image."""

    def _stored(self, snapshot: Snapshot, place: tuple[int, int]) -> Part | None:
        """Return what the index stores of an image."""
        return None

    def image(self, snapshot: Snapshot, place: tuple[int, int]) -> Part | None:
        """Return what is found of one image, None if there is nothing.

        place  the position of its segment, and its number in it
        """
        if (stored := self._stored(snapshot, place)) is not None:
            return stored
        made = self._made.setdefault(snapshot, OrderedDict())
        with contextlib.suppress(KeyError):  # other threads add and drop images at the same time
            made.move_to_end(place)
            return made[place]
        features = self._named.of_set(_name(snapshot, place))
        found = None if features is None else self._make(features, snapshot.encoder)
        made[place] = found
        if len(made) > self.most:
            with contextlib.suppress(KeyError):
                made.popitem(last=False)
        return found

    @classmethod
    def tell(cls, path: Path, missing: Sequence[str], count: int) -> None:
        """Warn of images of which nothing is found, and raise NotFoundError if these are all.

        path   of the index
        count  number of images that were wanted
        """
        if not missing:
            return
        if len(missing) == count:
            raise NotFoundError(f"{path}: has {cls.lacks} of {missing[0]!r}; {cls.cure}")
        warnings.warn(
            f"{path}: has {cls.lacks} of {len(missing)} of the {count} images to verify, such as {missing[0]!r}; "
            f"{cls.cure}",
            AsmkWarning,
            stacklevel=3,
        )


class LocatedImages(FoundImages[ImageGeometry]):
    """Finds the geometry of indexed images."""

    most = 2000  # some 30 kB each
    lacks = "neither the geometry nor the features"
    cure = "index with --geometry, or bring the feature set back"

    def _make(self, features: Features, codebook: Codebook) -> ImageGeometry:
        return image_geometry(features, codebook)

    def _stored(self, snapshot: Snapshot, place: tuple[int, int]) -> ImageGeometry | None:
        stored = snapshot.segments[place[0]].geometry
        return stored.image(place[1]) if stored is not None and stored.kept[place[1]] else None


class DescribedImages(FoundImages[ImageVectors]):
    """Finds the descriptors of indexed images."""

    most = 200  # some 500 kB each
    lacks = "no descriptors"
    cure = "bring the feature set back, which alone holds them, or compare places"

    def _make(self, features: Features, codebook: Codebook) -> ImageVectors:
        return image_vectors(features, codebook)


def finder_of(comparison: Comparison) -> type[FoundImages[Any]]:
    """Return the class that finds what a comparison of images needs."""
    return DescribedImages if isinstance(comparison, MutualNeighbours) else LocatedImages


def _name(snapshot: Snapshot, place: tuple[int, int]) -> str:
    return decoded(snapshot.segments[place[0]].names_as_bytes(np.array([place[1]]))[0])


def query_geometry(features: Any, codebook: Codebook, multiple_assignment: int) -> ImageGeometry:
    """Return the geometry of a query, with several words for each feature; assigned features keep theirs."""
    if isinstance(features, AssignedFeatures):
        return geometry_of(features, features.projected, features.words, codebook)
    return image_geometry(features, codebook, min(multiple_assignment, codebook.words))
