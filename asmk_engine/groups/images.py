"""The images of one commit of an index as nodes of a graph: their names, nearest images and geometry by number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from asmk_engine.diffusion.similarities import Similarities, similarities_of
from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.flat.index import GlobalIndex
from asmk_engine.fused.index import FusedIndex
from asmk_engine.fused.queries import FusedFeatures, KindView
from asmk_engine.groups.comparison import Geometries
from asmk_engine.indexes.answers import decoded
from asmk_engine.indexes.base import Collection
from asmk_engine.indexes.manifest import GLOBAL_KIND
from asmk_engine.indexes.named_images import NamedImages
from asmk_engine.indexes.numbering import image_starts
from asmk_engine.indexes.ranking import BestImages
from asmk_engine.inverted.located import LocatedImages
from asmk_engine.iteration import evenly
from asmk_engine.verification.geometry import ImageGeometry, image_geometry

SEARCHED_TOGETHER = 64
LOOKED_AT = 20
"""Images that are looked at before a run, to see that there is any geometry."""


class ComparedImages:
    """The images of an index at its present commit, numbered over all segments, deleted ones among them.

    index         of one or several kinds of features
    images_roots  folders of the photographs, by default those recorded in the index
    Raises InputError for several indexes searched as one.
    """

    def __init__(self, index: Any, threads: int, images_roots: Sequence[Path | str] = ()) -> None:
        if not isinstance(index, Collection):
            raise InputError(f"{index.path}: several indexes searched as one have no common images; give one index")
        self.index, self.threads = index, threads
        self.snapshot: Any = index.snapshot
        self.starts = image_starts(self.snapshot.segments)
        self.count = sum(segment.images for segment in self.snapshot.segments)
        numbers = [
            start + segment.live_numbers()
            for start, segment in zip(self.starts.tolist(), self.snapshot.segments, strict=True)
        ]
        self.live = np.concatenate([np.empty(0, np.int64), *numbers])
        self._kinds = _local_kinds(index, self.snapshot)
        self._similarities: Similarities | None = None
        self._files = NamedImages(index, images_roots=images_roots)

    def check_places(self) -> None:
        """Raise InputError for features without places, and NotFoundError if the places are not at hand."""
        if not self._kinds:
            raise InputError(
                f"{self.index.path}: global descriptors have no places, so nothing can be verified; index local "
                "features for this"
            )
        looked = evenly(self.live.tolist(), LOOKED_AT)
        described = [number for number in looked if self._has_words(number)]
        if described and not any(_is_there(self.geometries(number)) for number in described):
            raise NotFoundError(
                f"{self.index.path}: has neither the geometry nor the features of {self.name(described[0])!r} and "
                "others, so nothing can be verified; index with --geometry, or bring the feature set back"
            )

    def _has_words(self, number: int) -> bool:
        place, own = self.place(number)
        return any(view.segments[place].word_counts[own] for _, view in self._kinds)

    def place(self, number: int) -> tuple[int, int]:
        """Return the position of the segment of an image, and its number in it."""
        place = int(np.searchsorted(self.starts, number, side="right")) - 1
        return place, number - int(self.starts[place])

    def name(self, number: int) -> str:
        """Return the name of an image."""
        place, own = self.place(number)
        return decoded(self.snapshot.segments[place].names_as_bytes(np.array([own]))[0])

    def names(self, numbers: np.ndarray) -> list[str]:
        """Return the names of images, [n] int64."""
        return [self.name(number) for number in numbers.tolist()]

    def photograph(self, number: int) -> Path:
        """Return the file of an image; raises NotFoundError or MismatchError if it is gone or another one."""
        return self._files.image_path(self.name(number))

    def geometries(self, number: int) -> Geometries:
        """Return the geometry of an image; not to be called from several threads."""
        place = self.place(number)
        return tuple(located.image(view, place) for located, view in self._kinds)

    def is_unplaced(self, number: int, geometries: Geometries) -> bool:
        """Return whether an image has features, but none of these geometries of it."""
        return not _is_there(geometries) and self._has_words(number)

    @property
    def views(self) -> list[Any]:
        """The commit as each kind of local features sees it."""
        return [view for _, view in self._kinds]

    def size(self, number: int) -> tuple[int, int]:
        """Return width and height of an image in pixels, 0, 0 if they are unknown."""
        known = [found.image_size for found in self.geometries(number) if found is not None]
        return max(known, default=(0, 0))

    def nearest(self, begin: int, end: int, top: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield for each live image from `begin` to `end` its number and its nearest images, without itself.

        Numbers [n] int64 and similarities [n] float64, the best first, at most `top`, all above 0.
        """
        for place, segment in enumerate(self.snapshot.segments):
            start = int(self.starts[place])
            first, last = max(begin - start, 0), min(end - start, segment.images)
            for one in range(first, last, SEARCHED_TOGETHER):
                until = min(one + SEARCHED_TOGETHER, last)
                found = self.similarities.nearest(place, one, until, top + 1, self.threads)
                for number, best in zip(range(one, until), found, strict=True):
                    if segment.deleted is None or not segment.deleted[number]:
                        yield (start + number, *self._numbered(best.without(place, number, top)))

    def _numbered(self, best: BestImages) -> tuple[np.ndarray, np.ndarray]:
        kept = best.scores > 0
        return (self.starts[best.segments] + best.numbers)[kept], best.scores[kept]

    def nearest_of(self, query: Any, top: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the nearest images of features that are not in the index, as `nearest` does.

        query  as a searcher of the index takes it
        """
        similarities = self.similarities
        return self._numbered(similarities.of_query(similarities.divided(query, 1)[1], top, self.threads))

    def geometries_of(self, query: Any) -> Geometries:
        """Return the geometry of such features for each kind of local features."""
        parts = query.parts if isinstance(query, FusedFeatures) else (query,)
        entries = getattr(self.snapshot.manifest, "kinds", ()) if len(parts) > 1 else ()
        local = [part for number, part in enumerate(parts) if not entries or entries[number].kind != GLOBAL_KIND]
        return tuple(
            None if part is None or not len(part) else image_geometry(part, view.encoder)
            for part, view in zip(local, self.views, strict=True)
        )

    @property
    def similarities(self) -> Similarities:
        """The similarities of the images; those of several kinds are measured when first needed."""
        if self._similarities is None:
            self._similarities = similarities_of(self.index, self.snapshot, self.threads)
        return self._similarities


def _local_kinds(index: Any, snapshot: Any) -> list[tuple[LocatedImages, Any]]:
    """Return what finds the geometry of each kind of local features, and the commit as that kind sees it."""
    if isinstance(index, GlobalIndex):
        return []
    if not isinstance(index, FusedIndex):
        return [(LocatedImages(index), snapshot)]
    return [
        (LocatedImages(cast(Any, KindView(index, number))), view)
        for number, (entry, view) in enumerate(zip(snapshot.manifest.kinds, snapshot.views, strict=True))
        if entry.kind != GLOBAL_KIND
    ]


def _is_there(geometries: Sequence[ImageGeometry | None]) -> bool:
    return any(found is not None for found in geometries)
