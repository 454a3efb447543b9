"""Whether a training image shows what a query shows: by the package's verification, or by SIFT and RANSAC.

The control of both: the features of the query are moved to where they are in the mirrored photograph. The map of two
photographs of one thing would then be mirrored, which is refused, so what passes is there by chance. Pairs that were
found do not count: one thing agrees with itself in a strip even if it is mirrored, see `verification.verdict`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from asmk_engine import threads
from asmk_engine.audit.sift import LEAST, sift_matches
from asmk_engine.features import Features, FeatureSet
from asmk_engine.indexes.numbering import image_starts
from asmk_engine.inverted.located import LocatedImages, query_geometry
from asmk_engine.search.opening import plain_searcher
from asmk_engine.verification.match import Match, match_all
from asmk_engine.verification.verdict import evidence_of

ASSIGNMENTS = 5
"""Words of each feature of a query, as a search has by default."""


@dataclass(frozen=True, eq=False)
class ComparedPair:
    """A query and a training image compared: where they match, what speaks for it, and for the query mirrored.

    match     None for an image without features
    evidence  what speaks for the match, 0 for None
    mirrored  what speaks for a match with the query mirrored, the control
    """

    match: Match | None
    evidence: float
    mirrored: float


class Verifier(Protocol):
    """Compares a query with training images.

    least  evidence of a pair that is shown by default
    """

    least: float

    def compare(self, query: Features, names: Sequence[str]) -> list[ComparedPair]:
        """Compare a query with each of these images."""
        ...


class PlacesVerifier:
    """The package's verification, of images in an index of local features; evidence is that of a verdict."""

    def __init__(self, index: Any, count: int) -> None:
        self._index, self._snapshot, self._count = index, index.snapshot, count
        self._located, self._starts = LocatedImages(index), image_starts(index.snapshot.segments)
        self._searcher = plain_searcher(index)
        self.least = float(self._searcher.calibration().maybe)

    def compare(self, query: Features, names: Sequence[str]) -> list[ComparedPair]:
        """Compare a query with each of these images, as `Verifier`."""
        known = self._searcher.image_numbers(names)
        numbers = np.array([known[name] for name in names], np.int64)
        segments = np.searchsorted(self._starts, numbers, side="right") - 1
        geometry = query_geometry(query, self._snapshot.encoder, ASSIGNMENTS)
        others = [*self._located.find(self._snapshot, segments, numbers - self._starts[segments])]
        matches, mirrored = (match_all(one, others, count=self._count) for one in (geometry, geometry.mirrored()))
        both = zip(matches, mirrored, strict=True)
        return [ComparedPair(match, evidence_of([match]), evidence_of([control])) for match, control in both]


class SiftVerifier:
    """SIFT, a kd-tree and RANSAC, of images in a feature set of RootSIFT; evidence is the number of inliers."""

    least = float(LEAST)

    def __init__(self, features: FeatureSet, count: int) -> None:
        self._features, self._count = features, count

    def compare(self, query: Features, names: Sequence[str]) -> list[ComparedPair]:
        """Compare a query with each of these images, as `Verifier`."""

        def compared(name: str) -> ComparedPair:
            if name not in self._features:
                return ComparedPair(None, 0.0, 0.0)
            match, control = sift_matches(query, self._features.read(name))
            return ComparedPair(match, float(match.inliers), float(control.inliers))

        return threads.run(compared, list(names), self._count)
