"""Whether a training image shows what a query shows: by the package's verification, or by SIFT and RANSAC.

The control of both: the features of the query are moved to where they are in the mirrored photograph. The map of two
photographs of one thing would then be mirrored, which is refused, so what passes is there by chance. Pairs that were
found do not count: one thing agrees with itself in a strip even if it is mirrored, see `verification.verdict`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from asmk_engine import threads
from asmk_engine.audit.sift import LEAST, sift_match
from asmk_engine.features import Features, FeatureSet
from asmk_engine.indexes.numbering import image_starts
from asmk_engine.inverted.located import LocatedImages, query_geometry
from asmk_engine.search.opening import plain_searcher
from asmk_engine.verification.match import Match, match_all
from asmk_engine.verification.verdict import evidence_of

ASSIGNMENTS = 5
"""Words of each feature of a query, as a search has by default."""


class Verifier(Protocol):
    """Compares a query with training images.

    least  evidence of a pair that is shown by default
    """

    least: float

    def matches(self, query: Features, names: Sequence[str], *, is_mirrored: bool = False) -> list[Match | None]:
        """Return where each image matches the query; None for an image without features."""
        ...

    def evidence(self, match: Match | None) -> float:
        """Return what speaks for a match, 0 for None."""
        ...


class PlacesVerifier:
    """The package's verification, of images in an index of local features; evidence is that of a verdict."""

    def __init__(self, index: Any, count: int) -> None:
        self._index, self._snapshot, self._count = index, index.snapshot, count
        self._located, self._starts = LocatedImages(index), image_starts(index.snapshot.segments)
        self._searcher = plain_searcher(index)
        self.least = float(self._searcher.calibration().maybe)

    def matches(self, query: Features, names: Sequence[str], *, is_mirrored: bool = False) -> list[Match | None]:
        """Return where each image matches, as `Verifier`."""
        known = self._searcher.image_numbers(names)
        numbers = np.array([known[name] for name in names], np.int64)
        segments = np.searchsorted(self._starts, numbers, side="right") - 1
        geometry = query_geometry(query, self._snapshot.encoder, ASSIGNMENTS)
        others = self._located.find(self._snapshot, segments, numbers - self._starts[segments])
        return match_all(geometry.mirrored() if is_mirrored else geometry, others, count=self._count)

    def evidence(self, match: Match | None) -> float:
        """Return the evidence of a verdict."""
        return evidence_of([match])


class SiftVerifier:
    """SIFT, a kd-tree and RANSAC, of images in a feature set of RootSIFT; evidence is the number of inliers."""

    least = float(LEAST)

    def __init__(self, features: FeatureSet, count: int) -> None:
        self._features, self._count = features, count

    def matches(self, query: Features, names: Sequence[str], *, is_mirrored: bool = False) -> list[Match | None]:
        """Return where each image matches, as `Verifier`."""

        def compared(name: str) -> Match | None:
            if name not in self._features:
                return None
            return sift_match(query, self._features.read(name), is_mirrored=is_mirrored)

        return threads.run(compared, list(names), self._count)

    def evidence(self, match: Match | None) -> float:
        """Return the number of inliers."""
        return 0.0 if match is None else float(match.inliers)
