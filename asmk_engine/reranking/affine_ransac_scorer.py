"""Re-ranking by the geometric verification of the DELF and DELG code: the number of inliers decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.features import Features
from asmk_engine.images.boxes import Box
from asmk_engine.reranking.described import AnyFeatures, Kinds, PairImages
from asmk_engine.reranking.ranking import PairReranking
from asmk_engine.verification.affine_ransac import AffineRansac, ransac_match_all


@dataclass(frozen=True)
class AffineRansacScorer:
    """Scores pairs by their inliers; see `PairScorer`.

    images   where features are found
    kinds    which of them are local; raises InputError if there are none
    options  thresholds and random numbers
    threads  number of threads, None for one for each processor
    """

    images: PairImages
    kinds: Kinds
    options: AffineRansac = field(default_factory=AffineRansac)
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.kinds.local is None:
            raise InputError("the index has no local features, which alone have places; index some, or leave gv out")

    def scores(self, query: str, box: Box | None, candidates: Sequence[str]) -> np.ndarray:
        """Return the numbers of inliers [n] float64; 0, with a warning, for an image that cannot be compared."""
        one = self._local(self.images.query(query, box))
        others = [found or one.strongest(0) for found in self.images.candidates(candidates, self._local)]
        return np.array([found.inliers for found in ransac_match_all(one, others, self.options, self.threads)], float)

    def _local(self, found: AnyFeatures) -> Features:
        return self.kinds.local_of(found) or Features.from_descriptors(np.empty((0, 1), np.float32))


def by_inliers(images: int = 100) -> PairReranking:
    """Return the ranking rule of the code: by inliers, and equal ones by the score of the search.

    What is not compared counts as 0 inliers there; it is behind the compared images here too.
    """
    return PairReranking(images, weight=1.0, base_weight=0.0)
