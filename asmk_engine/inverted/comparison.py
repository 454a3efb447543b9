"""SMK and the real-valued ASMK kernel, in memory, for comparison with the engine's binary ASMK.

They follow Tolias et al., ECCV 2020, section 3 (and Tolias, Avrithis and Jégou, IJCV 2016, for the real-valued
kernel). They store float vectors and are meant for thousands of images, not millions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError
from asmk_engine.features import Features
from asmk_engine.indexes.answers import Hit
from asmk_engine.inverted.search import SelectiveMatch
from asmk_engine.inverted.signatures import aggregate_residuals
from asmk_engine.threads import forks_wait

KERNELS = ("asmk", "asmk-real", "smk", "smk-real")
EPSILON = 1e-6  # added to the norm of an aggregate, as the reference implementation does


@dataclass(frozen=True)
class Vectors:
    """An image as unit or sign vectors, sorted by word.

    words    [m] int32, non-decreasing; strictly increasing for the aggregated kernels
    vectors  [m, D] float64 with inner products in [-1, 1]
    """

    words: np.ndarray
    vectors: np.ndarray


class Comparison:
    """A small collection ranked by one of the kernels of the papers.

    kernel  `asmk` (binary, as in the engine), `asmk-real` (L2-normalised aggregates), `smk` (binary, every pair of
            descriptors of a word counts), `smk-real` (the same with L2-normalised residuals)
    """

    def __init__(
        self,
        codebook: Codebook,
        kernel: str = "smk",
        match: SelectiveMatch | None = None,
        *,
        multiple_assignment: int = 5,
    ) -> None:
        if kernel not in KERNELS:
            raise InputError(f"kernel {kernel!r} is unknown; choose one of {', '.join(KERNELS)}")
        self.codebook, self.kernel, self.match = codebook, kernel, match or SelectiveMatch()
        self.multiple_assignment = min(multiple_assignment, codebook.words)
        self._images: dict[str, tuple[Vectors, float]] = {}
        if self.match.idf:
            raise InputError("idf is not supported here; use Searcher for binary ASMK with idf")

    def add(self, images: Iterable[tuple[str, Features]]) -> None:
        """Add named images; an image of a known name is replaced."""
        for name, features in images:
            vectors = self._vectors(features, 1)
            self._images[name] = vectors, self._self_similarity(vectors)

    def scores(self, query: Features) -> dict[str, float]:
        """Return the score of every image by name."""
        vectors = self._vectors(query, self.multiple_assignment)
        own = self._self_similarity(vectors)
        return {
            name: _divide(self._similarity(vectors, image), own * norm) for name, (image, norm) in self._images.items()
        }

    def search(self, query: Features, top: int | None = 10) -> list[Hit]:
        """Return the best images with a score above 0; equal scores in byte order of the names."""
        hits = [Hit(name, score) for name, score in self.scores(query).items() if score > 0]
        return sorted(hits, key=lambda hit: (-hit.score, hit.name.encode()))[:top]

    def _vectors(self, features: Features, multiple_assignment: int) -> Vectors:
        projected = self.codebook.project(features.descriptors)
        words = self.codebook.assign_projected(projected, multiple_assignment)
        if self.kernel.startswith("asmk"):
            distinct, residuals = aggregate_residuals(projected, words, self.codebook)
        else:
            distinct, residuals = self._all_residuals(projected, words)
        return Vectors(distinct, self._normalised(residuals))

    def _all_residuals(self, projected: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(words.ravel(), kind="stable")
        distinct = words.ravel()[order]
        return distinct, projected[order // words.shape[1]] - self.codebook.centroids[distinct]

    def _normalised(self, residuals: np.ndarray) -> np.ndarray:
        if self.kernel.endswith("real"):
            norms = np.sqrt((residuals * residuals).sum(axis=1, keepdims=True))
            return (residuals / (norms + np.float32(EPSILON))).astype(np.float64)
        return np.where(residuals > 0, 1.0, -1.0) / np.sqrt(self.codebook.dim)

    def _self_similarity(self, vectors: Vectors) -> float:
        """Return gamma(X) ** -2: the number of words if aggregated, the double sum over all descriptors for SMK."""
        if self.kernel.startswith("asmk"):
            return float(len(vectors.words))
        return self._similarity(vectors, vectors)

    def _similarity(self, one: Vectors, other: Vectors) -> float:
        """Sum sigma over all pairs of vectors of common words."""
        total = 0.0
        for word in np.intersect1d(one.words, other.words):
            mine, theirs = (v.vectors[v.words == word] for v in (one, other))
            with forks_wait():
                products = mine @ theirs.T
            total += float(self.match.apply(products).sum())
        return total


def _divide(similarity: float, squared_norm: float) -> float:
    return similarity / float(np.sqrt(squared_norm)) if squared_norm > 0 else 0.0
