"""The geometry of the images of an index: stored beside the postings, or made again from a remembered feature set."""

from __future__ import annotations

import warnings
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import AsmkWarning, NotFoundError
from asmk_engine.indexes.answers import decoded
from asmk_engine.indexes.named_images import NamedImages
from asmk_engine.inverted.snapshot import Snapshot
from asmk_engine.verification.geometry import ImageGeometry, image_geometry

KEPT = 2000
"""Geometries made from features that are kept in memory, some 30 kB each."""


class LocatedImages:
    """Finds the geometry of indexed images.

    index  an index, several as one, or one kind of features of an index
    """

    def __init__(self, index: Any) -> None:
        self._named = NamedImages(index)
        self._made: weakref.WeakKeyDictionary[Snapshot, OrderedDict[tuple[int, int], ImageGeometry | None]] = (
            weakref.WeakKeyDictionary()
        )

    def find(self, snapshot: Snapshot, segments: np.ndarray, numbers: np.ndarray) -> Iterator[ImageGeometry | None]:
        """Yield the geometry of images, None for those without, and at the end warn of those that should have one.

        segments, numbers  [m] int64, positions of the segments and numbers in them

        Raises NotFoundError, at the end, if all should have a geometry and none has.
        """
        missing = []
        for place in zip(segments.tolist(), numbers.tolist(), strict=True):
            geometry = self.image(snapshot, place)
            if geometry is None and snapshot.segments[place[0]].word_counts[place[1]]:  # else it has no features
                missing.append(place)
            yield geometry
        if missing:
            self._tell(snapshot, missing, len(segments))

    def image(self, snapshot: Snapshot, place: tuple[int, int]) -> ImageGeometry | None:
        """Return the geometry of one image, None if it has none.

        place  the position of its segment, and its number in it
        """
        stored = snapshot.segments[place[0]].geometry
        if stored is not None and stored.kept[place[1]]:
            return stored.image(place[1])
        made = self._made.setdefault(snapshot, OrderedDict())
        if place not in made:
            features = self._named.of_set(_name(snapshot, place))
            made[place] = None if features is None else image_geometry(features, snapshot.encoder)
            if len(made) > KEPT:
                made.popitem(last=False)
        made.move_to_end(place)
        return made[place]

    def _tell(self, snapshot: Snapshot, missing: Sequence[tuple[int, int]], count: int) -> None:
        path, name = self._named.index.path, _name(snapshot, missing[0])
        cure = "index with --geometry, or bring the feature set back"
        if len(missing) == count:
            raise NotFoundError(f"{path}: has neither the geometry nor the features of {name!r}; {cure}")
        warnings.warn(
            f"{path}: has neither the geometry nor the features of {len(missing)} of the {count} images to verify, "
            f"such as {name!r}; {cure}",
            AsmkWarning,
            stacklevel=2,
        )


def _name(snapshot: Snapshot, place: tuple[int, int]) -> str:
    return decoded(snapshot.segments[place[0]].names_as_bytes(np.array([place[1]]))[0])


def query_geometry(features: Any, codebook: Codebook, multiple_assignment: int) -> ImageGeometry:
    """Return the geometry of a query, with several words for each feature."""
    return image_geometry(features, codebook, min(multiple_assignment, codebook.words))
