"""The inverted file of the drop-in replacement, in memory: images can be added and scored at any time.

Added images form a new run of lists; a run is merged with the previous one while that is at most twice its size. So
there are at most about log2(images) runs to score, and a posting is moved about log2(images) times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from asmk_engine.compat.checks import check_image_ids, check_range, check_words
from asmk_engine.compat.hamming import packed_width
from asmk_engine.compat.lists import BinaryLists, Columns, Lists, RealLists, Similarity, join
from asmk_engine.compat.parameters import positive
from asmk_engine.compat.state_checks import Postings, read_postings
from asmk_engine.errors import InputError, MismatchError


class IVF:
    """An inverted file.

    vocabulary  number of words
    dim         dimension of a descriptor
    binary      whether vectors are packed codes or real-valued
    use_idf     weight every word by ln(images / images with the word) ** 2; a word of no image has weight 1
    """

    def __init__(self, vocabulary: int, dim: int, *, binary: bool = True, use_idf: bool = False) -> None:
        if not isinstance(use_idf, bool | np.bool_):
            raise InputError(f"use_idf is {use_idf!r}; give True or False")
        self.params = {"use_idf": bool(use_idf)}
        self.vocabulary, self.dim, self.binary = vocabulary, dim, binary
        self.n_images = 0
        self.imid_offset = 0
        self.counts = np.zeros(vocabulary, np.int64)
        self._runs: list[Lists] = []
        self._idf: np.ndarray | None = None
        self._norms: np.ndarray | None = None

    @property
    def use_idf(self) -> bool:
        """Whether words are weighted by inverse document frequency."""
        return self.params["use_idf"]

    @property
    def idf(self) -> np.ndarray:
        """The weight of each word, [vocabulary] float64, computed over all added images."""
        if self._idf is None:
            found = np.log(max(self.n_images, 1) / np.maximum(self.counts, 1)) ** 2
            self._idf = np.where(self.counts > 0, found, 1.0) if self.use_idf else np.ones(self.vocabulary)
        return self._idf

    @property
    def norm_factor(self) -> np.ndarray:
        """The sum of the weights of each image's words, [n_images] float64; scores are divided by its square root."""
        if self._norms is None:
            norms = np.zeros(self.n_images)
            for run in self._runs:
                norms[run.first : run.first + run.images] = self._norms_of(run)
            self._norms = norms
        return self._norms

    def _norms_of(self, run: Lists) -> np.ndarray:
        if not self.use_idf:
            return run.word_counts
        postings = run.columns()
        return np.bincount(postings.numbers, self.idf[postings.words], minlength=run.images)

    def add(self, des: np.ndarray, word_ids: np.ndarray, image_ids: np.ndarray) -> None:
        """Add the output of `ASMKKernel.aggregate`: vectors [P, ...], words [P] and image ids [P].

        Ids, to which `imid_offset` is added, must increase from image to image and from call to call. Raises
        InputError, or MismatchError for vectors of another kernel or dimension; then nothing is changed.
        """
        vectors = self._check_vectors(des)
        words = check_words(word_ids, len(vectors), self.vocabulary)[:, 0]
        images = check_image_ids(image_ids, len(vectors)) + self.imid_offset
        self._check_order(words, images)
        if len(images):
            first = int(images[0])
            numbers = (images - first).astype(np.uint32)
            self._append(Columns(first, int(images[-1]) - first + 1, words.astype(np.uint32), numbers, vectors))

    def _check_order(self, words: np.ndarray, images: np.ndarray) -> None:
        check_range(images, 1 << 31, "an image id", "ids are below 2147483648")
        if len(images) and images[0] < self.n_images:
            raise InputError(
                f"image {images[0] - self.imid_offset} is added after image {self.n_images - 1 - self.imid_offset}; "
                "add images in the order of their ids, each in one call"
            )
        steps = np.diff(images)
        if (steps < 0).any() or (np.diff(words)[steps == 0] <= 0).any():
            raise InputError("image ids, and the words of each image, must increase; pass what aggregate returned")

    def _check_vectors(self, des: object) -> np.ndarray:
        vectors = np.asarray(des)
        kind, width = ("u4", packed_width(self.dim)) if self.binary else ("f4", self.dim)
        if vectors.dtype != kind or vectors.ndim != 2 or vectors.shape[1] != width:
            raise MismatchError(
                f"vectors are {vectors.dtype} {vectors.shape}; an inverted file with binary={self.binary} of dimension "
                f"{self.dim} takes {np.dtype(kind)} [n, {width}]"
            )
        if not self.binary and not np.isfinite(vectors).all():
            raise InputError("a vector is NaN or infinite; every value must be finite")
        return vectors

    def _append(self, columns: Columns) -> None:
        self.counts += np.bincount(columns.words, minlength=self.vocabulary)
        self.n_images = columns.end
        while self._runs and self._runs[-1].postings <= 2 * len(columns.words):
            columns = join(self._runs.pop().columns(), columns)
        lists = BinaryLists(columns, self.vocabulary, self.dim) if self.binary else RealLists(columns)
        self._runs.append(lists)
        self._idf = self._norms = None

    def search(
        self, des: np.ndarray, word_ids: np.ndarray, *, similarity_func: Similarity, topk: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rank all images for a query, the output of `ASMKKernel.aggregate_image`.

        similarity_func  maps an array of similarities to contributions; `ASMKKernel.similarity` with its options
        topk             number of images to return, or None for all
        returns          ranks [r] int64, image ids less `imid_offset`, and scores [r] float64, highest first; images
                         with equal scores, and those with score 0, in the order of their ids
        """
        vectors = self._check_vectors(des)
        words = check_words(word_ids, len(vectors), self.vocabulary)[:, 0]
        if (np.diff(words) <= 0).any():
            raise InputError("the words of a query must increase; pass what aggregate_image returned")
        count = self.n_images if topk is None else min(positive(topk, "topk"), self.n_images)
        scores = self._scores(vectors, words, similarity_func)
        ranks = _best(scores, count)
        return ranks - self.imid_offset, scores[ranks]

    def _scores(self, vectors: np.ndarray, words: np.ndarray, worth: Similarity) -> np.ndarray:
        weights = self.idf[words]
        scores = np.zeros(self.n_images)
        for run in self._runs:
            scores[run.first : run.first + run.images] = run.score(words, vectors, weights, worth)
        divisors = np.sqrt(self.norm_factor) * np.sqrt(weights.sum())
        return np.divide(scores, divisors, out=np.zeros(self.n_images), where=divisors > 0)

    @property
    def stats(self) -> dict[str, float]:
        """Statistics: images, postings per image, postings per word, empty words, and the imbalance factor.

        The imbalance factor is K Σ n² / (Σ n)² for K words with n postings each; 1 if all are equal.
        """
        counts, total = self.counts.astype(np.float64), float(self.counts.sum())
        return {
            "images": self.n_images,
            "vectors_per_image": total / max(self.n_images, 1),
            "mean_entries_per_vw": float(counts.mean()),
            "min_entries_per_vw": float(counts.min()),
            "max_entries_per_vw": float(counts.max()),
            "std_entries_per_vw": float(counts.std()),
            "empty_vw": int((self.counts == 0).sum()),
            "imbalance_factor": float(self.vocabulary * (counts**2).sum() / max(total, 1.0) ** 2),
        }

    def postings(self) -> Postings:
        """Return all postings, run by run and word by word within a run."""
        runs = [run.columns() for run in self._runs]
        none = np.empty((0, packed_width(self.dim)), np.uint32) if self.binary else np.empty((0, self.dim), np.float32)
        return Postings(
            np.concatenate([np.empty(0, np.uint32), *(run.words for run in runs)]),
            np.concatenate([np.empty(0, np.uint32), *(run.numbers + np.uint32(run.first) for run in runs)]),
            np.concatenate([none, *(run.vectors for run in runs)]),
            self.vocabulary,
            self.n_images,
            self.imid_offset,
            self.use_idf,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the inverted file as plain values and arrays."""
        found = self.postings()
        state = {name: getattr(found, name) for name in ("words", "images", "vectors", "vocabulary", "n_images")}
        state |= {"imid_offset": self.imid_offset, "norm_factor": self.norm_factor}
        return {"type": "IVF", "params": dict(self.params), "state": state}

    @classmethod
    def initialize_from_state(
        cls, state: Mapping[str, Any], vocabulary: int, dim: int, *, where: object = "state"
    ) -> IVF:
        """Make an inverted file from a state, for a codebook of `vocabulary` words and `dim` dimensions.

        Raises FormatError or DamagedError, naming `where`, for an invalid state, and MismatchError if it belongs to
        another codebook.
        """
        found = read_postings(state, where)
        binary = found.vectors.dtype == np.uint32
        width = packed_width(dim) if binary else dim
        if found.vocabulary != vocabulary or (len(found.words) and found.vectors.shape[1] != width):
            raise MismatchError(
                f"{where}: {found.vocabulary} words and vectors of {found.vectors.shape[1]} {found.vectors.dtype}; the "
                f"codebook has {vocabulary} words of {dim} dimensions: use the one it was built with"
            )
        inverted_file = cls(vocabulary, dim, binary=binary, use_idf=found.use_idf)
        if len(found.words):
            vectors = np.ascontiguousarray(found.vectors)
            inverted_file._append(Columns(0, found.n_images, found.words, found.images, vectors))
        inverted_file.n_images, inverted_file.imid_offset = found.n_images, found.imid_offset
        return inverted_file


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the first `count` positions of a stable sort by decreasing score, [count] int64."""
    if count == 0:
        return np.empty(0, np.int64)
    if count == len(scores):
        return np.argsort(-scores, kind="stable")
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    kept = np.flatnonzero(scores >= least)
    return kept[np.argsort(-scores[kept], kind="stable")][:count]
