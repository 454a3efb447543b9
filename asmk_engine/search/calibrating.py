"""Calibration of an index: images of it are queries, and their answers are verified as they are and mirrored."""

from __future__ import annotations

import hashlib
import heapq
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.diffusion.similarities import similarities_of
from asmk_engine.errors import AsmkWarning, InputError
from asmk_engine.fused.index import FusedIndex
from asmk_engine.fused.queries import KindView
from asmk_engine.indexes.base import Collection
from asmk_engine.indexes.calibrations import StoredCalibration, write_calibration
from asmk_engine.indexes.manifest import GLOBAL_KIND
from asmk_engine.indexes.named_images import NamedImages
from asmk_engine.indexes.searcher import Places
from asmk_engine.inverted.located import LocatedImages, query_geometry
from asmk_engine.iteration import Progress, counted
from asmk_engine.storage.folder import Folder
from asmk_engine.threads import thread_count
from asmk_engine.verification.geometry import ImageGeometry
from asmk_engine.verification.match import Match, match_all
from asmk_engine.verification.verdict import constants_of, evidence_of, learned

SAMPLED = 300
"""Images that are queries by default."""
ANSWERS = 50
"""First answers that are verified, as with the number of images that is recommended for re-ranking."""
ASSIGNMENTS = 5
"""Words of each feature of a query, as a search has by default."""


def calibrate(
    index: Any, images: int = SAMPLED, *, threads: int | None = None, on_image: Progress | None = None
) -> StoredCalibration:
    """Learn what the evidence of verified answers means in an index, and store it there, see `verification.verdict`.

    No labels, photographs or descriptors are needed: the geometry comes from the index or from the feature set that it
    remembers.

    Parameters
    ----------
    index : Index or FusedIndex
        The index, at its last commit.
    images : int, default 300
        Number of images that are queries; the same ones whatever the order of the index and its segments.
    threads : int, optional
        Threads, all available by default; the result does not depend on them.
    on_image : callable, optional
        Receives progress as (done, total) in images.

    Returns
    -------
    StoredCalibration

    Raises
    ------
    InputError
        If `images` is less than 1, the index has no local features, or `index` is several indexes searched as one.
    NotFoundError
        If neither the geometry nor the features of images are there.
    StorageError
        If the calibration cannot be written.
    """
    if images < 1:
        raise InputError(f"{images} images are to be queries; give 1 or more ({SAMPLED} is the default)")
    if not isinstance(index, Collection):
        raise InputError(f"{index.path}: several indexes searched as one have no calibration; calibrate each of them")
    index.refresh()
    kinds, snapshot = _kinds(index), index.snapshot
    if not kinds:
        raise InputError(
            f"{index.path}: global descriptors have no places, so no answer is verified and no verdict can be learned; "
            "index local features"
        )
    names = sampled_names(snapshot.names(), images)
    pairs = list(_evidences(index, kinds, counted(names, len(names), on_image), thread_count(threads)))
    targets, decoys = np.array([pair for of_image in pairs for pair in of_image]).reshape(-1, 2).T
    constants = constants_of([kind.codebook.recipe.extractor for kind in kinds])
    found = learned(targets, decoys, constants, len(names))
    stored = StoredCalibration(found, snapshot.manifest.commit, snapshot.images)
    write_calibration(Folder(index.path), snapshot.manifest, stored)
    return stored


def sampled_names(names: Iterable[str], most: int) -> list[str]:
    """Return at most so many of the names, as if at random, whatever their order: those of the smallest sha256."""
    return heapq.nsmallest(most, names, key=lambda name: hashlib.sha256(name.encode()).digest())


class _PlacedKind:
    """One kind of local features of an index: what finds the geometry of queries and answers.

    index  the index, or its view of one kind of features
    view   the commit of this kind
    """

    def __init__(self, index: Any, view: Any) -> None:
        self.codebook: Codebook = view.encoder
        self._view, self._named, self._located = view, NamedImages(index), LocatedImages(index)

    def query(self, name: str, places: Places) -> ImageGeometry | None:
        """Return the geometry of an image as that of a query, from its features if there is a feature set."""
        features = self._named.of_set(name)
        if features is not None:
            return query_geometry(features, self.codebook, ASSIGNMENTS)
        [found] = self._located.find(self._view, *places)  # to its end, where it says what is missing
        return found

    def matches(self, query: ImageGeometry | None, places: Places, threads: int) -> list[list[Match | None]]:
        """Return the matches of images with a query as it is, and with the query mirrored."""
        if query is None:
            return [[None] * len(places[0])] * 2
        others = list(self._located.find(self._view, *places))
        return [match_all(geometry, others, count=threads) for geometry in (query, query.mirrored())]


def _kinds(index: Collection[Any, Any]) -> list[_PlacedKind]:
    """Return the kinds of local features of an index."""
    snapshot = index.snapshot
    if isinstance(index, FusedIndex):
        views = zip(index.snapshot.manifest.kinds, index.snapshot.views, strict=True)
        return [
            _PlacedKind(KindView(index, number), view)
            for number, (entry, view) in enumerate(views)
            if entry.kind != GLOBAL_KIND
        ]
    return [] if snapshot.manifest.kind == GLOBAL_KIND else [_PlacedKind(index, snapshot)]


def _evidences(
    index: Collection[Any, Any], kinds: list[_PlacedKind], names: Iterable[str], threads: int
) -> Iterator[list[tuple[float, float]]]:
    """Yield for each image the evidence of its first answers as they are, and with the image mirrored."""
    snapshot = index.snapshot
    similarities = similarities_of(index, snapshot, threads)
    for name in names:
        segment, number = snapshot.find_all([name])[name]
        own = np.array([segment]), np.array([number])
        near = similarities.nearest(segment, number, number + 1, ANSWERS + 1, threads)[0]
        near = near.without(segment, number, ANSWERS)
        places = near.segments, near.numbers
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AsmkWarning)  # of answers without geometry: the others are enough
            found = [kind.matches(kind.query(name, own), places, threads) for kind in kinds if len(places[0])]
        straight, mirrored = ([*zip(*(one[side] for one in found), strict=True)] for side in (0, 1))
        both = zip(straight, mirrored, strict=True)
        yield [(evidence_of(one), evidence_of(other)) for one, other in both if any(one)]
