"""Search: the signature of a query against every posting of its words."""

from __future__ import annotations

import heapq
import math
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from asmk_engine import threads
from asmk_engine.errors import DamagedError, InputError, MismatchError
from asmk_engine.features import Features
from asmk_engine.index import Index
from asmk_engine.segment import RANGE_BITS, Segment
from asmk_engine.signatures import Signature, sign
from asmk_engine.snapshot import Snapshot
from asmk_engine.threads import thread_count


@dataclass(frozen=True)
class SelectiveMatch:
    """The selectivity function sigma(s) = s ** alpha where s >= threshold, else 0, on similarities s in [-1, 1].

    alpha      power; 3 in the paper (Tolias et al., ECCV 2020, section 3)
    threshold  tau; at least 0, since a power of a negative similarity means nothing
    idf        weight every word by ln(images / images with the word) ** 2, counted over the live images
    """

    alpha: float = 3.0
    threshold: float = 0.0
    idf: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise InputError(f"alpha is {self.alpha}; give a number above 0 (the paper uses 3)")
        if not 0 <= self.threshold <= 1:
            raise InputError(f"threshold is {self.threshold}; give a number from 0 to 1 (the paper uses 0)")

    def apply(self, similarities: np.ndarray) -> np.ndarray:
        """sigma of each similarity, float64."""
        kept = np.where(similarities >= self.threshold, similarities, 0.0)
        return np.power(kept, self.alpha)

    def table(self, dim: int, width: int) -> np.ndarray:
        """sigma(1 - 2 h / dim) for every Hamming distance h a kernel could meet, [64 * width + 1] float64."""
        distances = np.arange(64 * width + 1)
        return np.where(distances <= dim, self.apply(1.0 - 2.0 * distances / dim), 0.0)


@dataclass(frozen=True)
class Hit:
    """One image of an answer: its name, and its score, 1 for an image with exactly the query's words and codes."""

    name: str
    score: float


@dataclass(frozen=True)
class _Weights:
    """Per-snapshot statistics: the weight of each word and, per segment, the norm of each image."""

    words: np.ndarray
    norms: tuple[np.ndarray, ...]


class Searcher:
    """Ranks the images of an index for a query.

    assignments  words per query descriptor; fewer when the codebook has fewer
    threads      threads of a search, all available by default; answers do not depend on it
    A search runs on the commit that `index` is at when it begins: additions and deletions made through that object take
    effect at once, those of other processes after `Index.refresh`.
    """

    def __init__(
        self, index: Index, match: SelectiveMatch | None = None, *, assignments: int = 5, threads: int | None = None
    ) -> None:
        if assignments < 1:
            raise InputError(f"assignments is {assignments}; give 1 or more (the paper uses 5)")
        self.index = index
        self.match = match or SelectiveMatch()
        self.assignments = assignments
        self._requested_threads = threads
        self._weights: weakref.WeakKeyDictionary[Snapshot, _Weights] = weakref.WeakKeyDictionary()
        thread_count(threads)

    def search(self, query: Features | Signature, top: int | None = 10) -> list[Hit]:
        """The `top` best images, or all with a score above 0 when None; equal scores in byte order of the names."""
        snapshot = self.index.snapshot
        signature = query if isinstance(query, Signature) else self.sign(query)
        if top is not None and top < 1:
            raise InputError(f"top is {top}; give 1 or more, or leave it out for all")
        if len(signature) == 0:
            return []
        _check_signature(signature, snapshot)
        return _best(self._candidates(snapshot, signature, top), top)

    def search_many(self, queries: Iterable[Features | Signature], top: int | None = 10) -> list[list[Hit]]:
        """`search` for each query in turn."""
        return [self.search(query, top) for query in queries]

    def sign(self, features: Features) -> Signature:
        """The signature of a query, each descriptor assigned to several words."""
        codebook = self.index.codebook
        return sign(features, codebook, min(self.assignments, codebook.words))

    def scores(self, query: Features | Signature) -> dict[str, float]:
        """The score of every live image, 0 included."""
        found = {hit.name: hit.score for hit in self.search(query, None)}
        return {name: found.get(name, 0.0) for name in self.index.snapshot.names()}

    def _candidates(self, snapshot: Snapshot, signature: Signature, top: int | None) -> list[tuple[float, bytes]]:
        codebook = snapshot.codebook
        weights = self._weights_of(snapshot)
        table = self.match.table(codebook.dim, signature.codes.shape[1])
        word_weights = weights.words[signature.words]
        query_norm = math.sqrt(float(np.cumsum(word_weights)[-1]))

        def score(task: tuple[int, int]) -> list[tuple[float, bytes]]:
            segment = snapshot.segments[task[0]]
            raw = segment.score(task[1], signature.words, signature.codes, word_weights, table)
            begin = task[1] << RANGE_BITS
            norms = weights.norms[task[0]][begin : begin + len(raw)]
            return _top_of_range(segment, begin, raw, norms, query_norm, top)

        tasks = [(place, r) for place, segment in enumerate(snapshot.segments) for r in range(segment.ranges)]
        parts = threads.run(score, tasks, thread_count(self._requested_threads))
        return [candidate for part in parts for candidate in part]

    def _weights_of(self, snapshot: Snapshot) -> _Weights:
        if snapshot not in self._weights:
            self._weights[snapshot] = _idf_weights(snapshot) if self.match.idf else _plain_weights(snapshot)
        return self._weights[snapshot]


def _check_signature(signature: Signature, snapshot: Snapshot) -> None:
    codebook = snapshot.codebook
    width = snapshot.segments[0].codes.shape[1] if snapshot.segments else signature.codes.shape[1]
    if signature.codes.shape != (len(signature), width) or int(signature.words[-1]) >= codebook.words:
        raise MismatchError(
            f"the signature has codes {signature.codes.shape} and words up to {signature.words[-1]}; the index takes "
            f"[m, {width}] and words below {codebook.words}: was it made with another codebook?"
        )


def _plain_weights(snapshot: Snapshot) -> _Weights:
    norms = tuple(np.sqrt(segment.word_counts.astype(np.float64)) for segment in snapshot.segments)
    return _Weights(np.ones(snapshot.codebook.words), norms)


def _idf_weights(snapshot: Snapshot) -> _Weights:
    """idf(w) = ln(N / n_w) ** 2 over live images; 1 for a word that occurs nowhere, as the reference has it."""
    lengths = snapshot.list_lengths
    weights = np.where(lengths > 0, np.log(max(snapshot.images, 1) / np.maximum(lengths, 1)) ** 2, 1.0)
    return _Weights(weights, tuple(np.sqrt(_idf_norms(segment, weights)) for segment in snapshot.segments))


def _idf_norms(segment: Segment, weights: np.ndarray) -> np.ndarray:
    """The weights of each image's words, summed in the order of the words, so that no segmentation changes a bit."""
    return np.bincount(segment.decode_images(), weights[segment.decode_words()], minlength=segment.images)


def _top_of_range(
    segment: Segment, begin: int, raw: np.ndarray, norms: np.ndarray, query_norm: float, top: int | None
) -> list[tuple[float, bytes]]:
    """The best images of a range and all that tie with the last of them: (score, name)."""
    found = np.flatnonzero(raw > 0.0)
    divisors = norms[found] * query_norm
    found, divisors = found[divisors > 0.0], divisors[divisors > 0.0]
    scores = raw[found] / divisors
    if top is not None and len(found) > top:
        kept = scores >= np.partition(scores, len(scores) - top)[len(scores) - top]
        found, scores = found[kept], scores[kept]
    return [(float(score), segment.name_as_bytes(begin + int(n))) for score, n in zip(scores, found, strict=True)]


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise DamagedError(f"the index holds a name that is not UTF-8: {name!r}; restore a copy") from None


def _best(candidates: Sequence[tuple[float, bytes]], top: int | None) -> list[Hit]:
    def rank(candidate: tuple[float, bytes]) -> tuple[float, bytes]:
        return -candidate[0], candidate[1]

    ranked = sorted(candidates, key=rank) if top is None else heapq.nsmallest(top, candidates, key=rank)
    return [Hit(_decoded(name), score) for score, name in ranked]
