"""Search: the signature of a query against every posting of its words."""

from __future__ import annotations

import functools
import itertools
import math
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from asmk_engine import threads
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.features import Features
from asmk_engine.indexes.answers import Hit, Order, decoded
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.indexes.numbering import image_numbers, image_starts, name_ranks
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.ranking import Ranking
from asmk_engine.inverted.segment import RANGE_BITS, Segment
from asmk_engine.inverted.signatures import Signature, code_width, sign
from asmk_engine.inverted.snapshot import Snapshot
from asmk_engine.threads import thread_count

Query = Features | Signature
GROUP = 32  # queries that are signed and scored together


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
class _Asked:
    """A query under way: its signature, the weight of each of its words, and the best images so far."""

    signature: Signature
    weights: np.ndarray
    ranking: Ranking

    @functools.cached_property
    def norm(self) -> float:
        """The norm of the query: the root of the sum of its weights, added in the order of its words."""
        return math.sqrt(float(np.cumsum(self.weights)[-1]))


@dataclass(frozen=True)
class _Weights:
    """Per-snapshot statistics: the weight of each word and, per segment, the norm of each image."""

    words: np.ndarray
    norms: tuple[np.ndarray, ...]


class Searcher:
    """Ranks the images of an index, or of several joined, for a query.

    assignments  words per query descriptor; fewer when the codebook has fewer
    threads      threads of a search, all available by default; answers do not depend on it
    A search runs on the commit that `index` is at when it begins: additions and deletions made through that object take
    effect at once, those of other processes after `Index.refresh`.
    """

    def __init__(
        self,
        index: Index | JointIndex[Snapshot],
        match: SelectiveMatch | None = None,
        *,
        assignments: int = 5,
        threads: int | None = None,
    ) -> None:
        if assignments < 1:
            raise InputError(f"assignments is {assignments}; give 1 or more (the paper uses 5)")
        self.index = index
        self.match = match or SelectiveMatch()
        self.assignments = assignments
        self._requested_threads = threads
        self._weights: weakref.WeakKeyDictionary[Snapshot, _Weights] = weakref.WeakKeyDictionary()
        self._name_ranks: weakref.WeakKeyDictionary[Snapshot, np.ndarray] = weakref.WeakKeyDictionary()
        thread_count(threads)

    @overload
    def search(self, query: Query, top: int | None = 10, *, threads: int | None = None) -> list[Hit]: ...

    @overload
    def search(
        self, query: Iterable[Query], top: int | None = 10, *, threads: int | None = None
    ) -> list[list[Hit]]: ...

    def search(
        self, query: Query | Iterable[Query], top: int | None = 10, *, threads: int | None = None
    ) -> list[Hit] | list[list[Hit]]:
        """The best images for a query, or one answer for each of several.

        query    features, a signature, or any iterable of them; several at once keep all threads busy
        top      how many images, or all with a score above 0 when None; equal scores in byte order of the names
        threads  instead of those of the searcher
        """
        if top is not None and top < 1:
            raise InputError(f"top is {top}; give 1 or more, or leave it out for all")
        count = thread_count(self._requested_threads if threads is None else threads)
        if isinstance(query, Features | Signature):
            return self._search_group([query], top, count)[0]
        size = GROUP if top is not None else 1  # all images of an answer may be many: one answer at a time then
        return [hits for group in _groups(query, size) for hits in self._search_group(group, top, count)]

    def sign(self, features: Features) -> Signature:
        """The signature of a query, each descriptor assigned to several words."""
        codebook = self.index.codebook
        return sign(features, codebook, min(self.assignments, codebook.words))

    def scores(self, query: Features | Signature) -> dict[str, float]:
        """The score of every live image, 0 included."""
        found = {hit.name: hit.score for hit in self.search(query, None)}
        return {name: found.get(name, 0.0) for name in self.index.snapshot.names()}

    def order(self, query: Query, *, threads: int | None = None) -> Order:
        """All images with a score above 0 as numbers, in the order of `search(query, None)`.

        Many times as fast where there are many images, because no name is read; `image_numbers` has the names.
        """
        snapshot = self.index.snapshot
        count = thread_count(self._requested_threads if threads is None else threads)
        (ranking,) = self._rank(snapshot, [query], None, count)
        if snapshot not in self._name_ranks:
            self._name_ranks[snapshot] = name_ranks(snapshot.segments)
        return Order(*ranking.arrays(image_starts(snapshot.segments), self._name_ranks[snapshot]))

    def image_numbers(self, names: Iterable[str]) -> dict[str, int]:
        """Name → number of those of the names that are live images, as `order` numbers them."""
        return image_numbers(self.index.snapshot, names)

    def _search_group(self, queries: Sequence[Query], top: int | None, count: int) -> list[list[Hit]]:
        snapshot = self.index.snapshot
        return [_hits(ranking, snapshot) for ranking in self._rank(snapshot, queries, top, count)]

    def _rank(self, snapshot: Snapshot, queries: Sequence[Query], top: int | None, count: int) -> list[Ranking]:
        signatures = threads.run(lambda query: self._signed(query, snapshot), queries, count)
        table = self.match.table(snapshot.codebook.dim, code_width(snapshot.codebook.dim))
        weights = self._weights_of(snapshot)
        asked = [_Asked(signature, weights.words[signature.words], Ranking(top)) for signature in signatures]

        def score(task: tuple[tuple[int, int], _Asked]) -> None:
            (place, r), query = task
            signature = query.signature
            raw = snapshot.segments[place].score(r, signature.words, signature.codes, query.weights, table)
            begin = r << RANGE_BITS
            query.ranking.add(place, begin, raw, weights.norms[place][begin : begin + len(raw)], query.norm)

        ranges = [(place, r) for place, segment in enumerate(snapshot.segments) for r in range(segment.ranges)]
        # Range by range, so that queries of one group read lists that are still in the cache.
        threads.run(score, itertools.product(ranges, [query for query in asked if len(query.signature)]), count)
        return [query.ranking for query in asked]

    def _signed(self, query: Query, snapshot: Snapshot) -> Signature:
        signature = query if isinstance(query, Signature) else self.sign(query)
        if len(signature):
            _check_signature(signature, snapshot)
        return signature

    def _weights_of(self, snapshot: Snapshot) -> _Weights:
        if snapshot not in self._weights:
            self._weights[snapshot] = _idf_weights(snapshot) if self.match.idf else _plain_weights(snapshot)
        return self._weights[snapshot]


def _check_signature(signature: Signature, snapshot: Snapshot) -> None:
    codebook = snapshot.codebook
    width = code_width(codebook.dim)
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


def _hits(ranking: Ranking, snapshot: Snapshot) -> list[Hit]:
    return [Hit(decoded(name), score) for score, name in ranking.candidates(snapshot.segments)]


def _groups(queries: Iterable[Query], size: int) -> Iterator[Sequence[Query]]:
    waiting = iter(queries)
    while group := list(itertools.islice(waiting, size)):
        yield group
