"""Similarities between the images of one index, taken from what the index stores, so that no features are needed.

    local features      s(x, y) = K(x, y), the ASMK score of the two signatures, each descriptor with one word
    global descriptors  s(x, y) = the dot product of the two vectors
    several kinds       s(x, y) = sum over the kinds k of w_k s_k(x, y) / c_k,
                        c_k = mean over images x of the best s_k(x, y) of another image y

An image has the similarity 1 to itself in each kind, whichever image it is, and s(x, y) = s(y, x), so that similarities
of different images can be compared. The score of a search has neither property: multiple assignment gives the query
more words, and a fused score is divided by the best score of its query. Hence c_k, one number for the whole index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np

from asmk_engine.diffusion.stored import StoredSignatures
from asmk_engine.errors import InputError
from asmk_engine.features import Features
from asmk_engine.flat.index import GlobalIndex
from asmk_engine.flat.search import GlobalSearcher
from asmk_engine.flat.snapshot import GlobalSnapshot
from asmk_engine.fused.index import FusedIndex
from asmk_engine.fused.queries import FusedFeatures, KindView
from asmk_engine.fused.scores import shares, weighted
from asmk_engine.fused.snapshot import FusedSnapshot
from asmk_engine.indexes.manifest import GLOBAL_KIND
from asmk_engine.indexes.ranking import BestImages, Part, best_images
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.inverted.signatures import Signature, make_signature
from asmk_engine.inverted.snapshot import Snapshot
from asmk_engine.iteration import evenly

SCALE_IMAGES = 1000
"""Number of images from which the scale of a kind of features is measured."""


class Similarities(Protocol):
    """Finds the nearest images of the images of one commit, and of queries.

    own        the similarity of an image to itself
    is_global  whether all features are global descriptors
    scales     the numbers c_k of the kinds of features of a fused index, else empty
    """

    own: float
    is_global: bool
    scales: tuple[float, ...]

    def nearest(self, place: int, begin: int, end: int, top: int, threads: int) -> list[BestImages]:
        """Return the `top` nearest images of images `begin` to `end` (exclusive) of a segment, itself among them."""
        ...

    def divided(self, query: Any, multiple_assignment: int) -> tuple[Any, Any]:
        """Return a query as a searcher with so many assignments takes it, and as `of_query` does."""
        ...

    def of_query(self, query: Any, top: int, threads: int) -> BestImages:
        """Return the `top` nearest images of a query, by the similarities that images have to each other."""
        ...


class LocalSimilarities:
    """Similarities of an index of local features, or of one kind of a fused index."""

    own: float = 1.0
    is_global = False
    scales: tuple[float, ...] = ()

    def __init__(self, searcher: Searcher, snapshot: Snapshot) -> None:
        self._searcher, self._snapshot = searcher, snapshot
        self._stored = [StoredSignatures(segment, snapshot.encoder.dim) for segment in snapshot.segments]

    def nearest(self, place: int, begin: int, end: int, top: int, threads: int) -> list[BestImages]:
        """See `Similarities.nearest`."""
        signatures = self._stored[place].between(begin, end)
        size = self._searcher.group_size
        groups = (signatures[first : first + size] for first in range(0, len(signatures), size))
        return [best for group in groups for best in self._searcher.best_of(self._snapshot, group, top, threads)]

    def all_of(self, place: int, number: int, threads: int) -> list[Part]:
        """Return the similarities of all images to one, in any order."""
        [signature] = self._stored[place].between(number, number + 1)
        return self._searcher.all_images(self._snapshot, signature, threads)

    def divided(self, query: Features | Signature, multiple_assignment: int) -> tuple[Signature, Signature]:
        """See `Similarities.divided`; a signature is taken as it is."""
        if isinstance(query, Signature):
            return query, query
        codebook = self._snapshot.encoder
        projected = codebook.project(query.descriptors)
        words = codebook.assign_projected(projected, min(multiple_assignment, codebook.words))
        return make_signature(projected, words, codebook), make_signature(projected, words[:, :1].copy(), codebook)

    def of_query(self, query: Signature, top: int, threads: int) -> BestImages:
        """See `Similarities.of_query`."""
        return self._searcher.best_of(self._snapshot, [query], top, threads)[0]

    def all_of_query(self, query: Signature, threads: int) -> list[Part]:
        """Return the similarities of all images to a query, in any order."""
        return self._searcher.all_images(self._snapshot, query, threads)


class GlobalSimilarities:
    """Similarities of a global index, or of one kind of a fused index."""

    own: float = 1.0
    is_global = True
    scales: tuple[float, ...] = ()

    def __init__(self, searcher: GlobalSearcher, snapshot: GlobalSnapshot) -> None:
        self._searcher, self._snapshot = searcher, snapshot

    def nearest(self, place: int, begin: int, end: int, top: int, threads: int) -> list[BestImages]:
        """See `Similarities.nearest`."""
        size = self._searcher.group_size
        groups = ((first, min(first + size, end)) for first in range(begin, end, size))
        return [
            best
            for group in groups
            for best in self._searcher.nearest(
                self._vectors(place, *group), top, snapshot=self._snapshot, threads=threads
            )
        ]

    def all_of(self, place: int, number: int, threads: int) -> list[Part]:
        """Return the similarities of all images to one, in any order."""
        return self._searcher.all_nearest(self._snapshot, self._vectors(place, number, number + 1)[0], threads)

    def divided(self, query: Features, multiple_assignment: int) -> tuple[Features, Features]:
        """See `Similarities.divided`."""
        return query, query

    def of_query(self, query: Features, top: int, threads: int) -> BestImages:
        """See `Similarities.of_query`."""
        return self._searcher.best_of(self._snapshot, [query], top, threads)[0]

    def all_of_query(self, query: Features, threads: int) -> list[Part]:
        """Return the similarities of all images to a query, in any order."""
        return self._searcher.all_images(self._snapshot, query, threads)

    def _vectors(self, place: int, begin: int, end: int) -> np.ndarray:
        return self._snapshot.encoder.decode(self._snapshot.segments[place].rows(begin, end))


class FusedSimilarities:
    """Similarities of an index of several kinds of features, with the weights that it stores.

    scales  c_k of each kind; measured if None
    """

    def __init__(
        self, index: FusedIndex, snapshot: FusedSnapshot, threads: int, scales: Sequence[float] | None = None
    ) -> None:
        self._snapshot = snapshot
        entries = snapshot.manifest.kinds
        self._shares = shares([entry.weight for entry in entries], len(entries))
        self._kinds: list[Any] = []
        for number, (entry, commit) in enumerate(zip(entries, snapshot.views, strict=True)):
            view, given = cast(Any, KindView(index, number)), cast(Any, commit)
            made = GlobalSimilarities(GlobalSearcher(view), given) if entry.kind == GLOBAL_KIND else None
            self._kinds.append(made or LocalSimilarities(Searcher(view), given))
        self.is_global = all(entry.kind == GLOBAL_KIND for entry in entries)
        self.scales = tuple(scales or (self._scale(kind, threads) for kind in self._kinds))
        self.own = sum(share / scale for share, scale in zip(self._shares, self.scales, strict=True))

    def nearest(self, place: int, begin: int, end: int, top: int, threads: int) -> list[BestImages]:
        """See `Similarities.nearest`."""
        found = ([kind.all_of(place, number, threads) for kind in self._kinds] for number in range(begin, end))
        return [self._best(one, top) for one in found]

    def divided(self, query: FusedFeatures, multiple_assignment: int) -> tuple[FusedFeatures, FusedFeatures]:
        """See `Similarities.divided`."""
        pairs = [
            (part, part) if part is None or not len(part) else kind.divided(part, multiple_assignment)
            for part, kind in zip(query.parts, self._kinds, strict=True)
        ]
        wide, narrow = tuple(one for one, _ in pairs), tuple(other for _, other in pairs)
        return FusedFeatures(wide, query.fingerprint), FusedFeatures(narrow, query.fingerprint)

    def of_query(self, query: FusedFeatures, top: int, threads: int) -> BestImages:
        """See `Similarities.of_query`."""
        found = [
            kind.all_of_query(part, threads) if part is not None and len(part) else []
            for part, kind in zip(query.parts, self._kinds, strict=True)
        ]
        return self._best(found, top)

    def _best(self, found: Sequence[Sequence[Part]], top: int) -> BestImages:
        """Return the best images by the sum over the kinds, whose similarities are given."""
        scaled = [one for one in zip(self._shares, self.scales, found, strict=True) if one[0]]
        return best_images(self._snapshot.segments, [*weighted(self._snapshot.segments, scaled)], top)

    def _scale(self, kind: LocalSimilarities | GlobalSimilarities, threads: int) -> float:
        """Measure c_k on images at even distances; 1 if no image has a similar one."""
        segments = self._snapshot.segments
        places = [(place, number) for place, one in enumerate(segments) for number in one.live_numbers().tolist()]
        best = []
        for place, number in evenly(places, SCALE_IMAGES):
            others = [_without(part, place, number) for part in kind.all_of(place, number, threads)]
            best.append(max((float(scores.max(initial=0.0)) for _, _, scores in others), default=0.0))
        return float(np.mean(best)) if any(best) else 1.0


def _without(part: Part, place: int, number: int) -> Part:
    """Return images and scores without one image."""
    kept = (part[1] != number) | (part[0] != place)
    return part[0], part[1][kept], part[2][kept]


def similarities_of(index: Any, snapshot: Any, threads: int, scales: Sequence[float] | None = None) -> Similarities:
    """Return the similarities of the images of a commit; raises InputError for several indexes searched as one.

    scales  those of a fused index, if they are known
    """
    if isinstance(index, FusedIndex):
        return FusedSimilarities(index, snapshot, threads, scales)
    if isinstance(index, GlobalIndex):
        return GlobalSimilarities(GlobalSearcher(index), snapshot)
    if isinstance(index, Index):
        if index.regions is not None:
            raise InputError(f"{index.path}: {NOT_REGIONAL}")
        return LocalSimilarities(Searcher(index), snapshot)
    raise InputError(f"{index.path}: {NOT_JOINT}")


NOT_REGIONAL = (
    "an index of regions scores queries only, so images have no neighbours in it; index them again without --regions"
)
NOT_JOINT = (
    "several indexes searched as one have no neighbour table; add all images to one, or leave diffusion or "
    "augmentation out"
)
