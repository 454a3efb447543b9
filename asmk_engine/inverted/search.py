"""Search: the signature of a query is compared with every posting of its words."""

from __future__ import annotations

import functools
import itertools
import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asmk_engine import threads
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.features import Features
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.indexes.ranking import BestImages, Part, Ranking, best_images
from asmk_engine.indexes.searcher import IndexSearcher, Places
from asmk_engine.inverted.expansion import expanded_signature
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.located import DescribedImages, LocatedImages, query_geometry
from asmk_engine.inverted.segment import RANGE_BITS, Segment
from asmk_engine.inverted.signatures import Signature, assigned, code_width, sign
from asmk_engine.inverted.snapshot import Snapshot
from asmk_engine.inverted.statistics import WordStatistics, statistics_of
from asmk_engine.kernels.rank import normalise
from asmk_engine.verification.geometry import ImageGeometry
from asmk_engine.verification.match import Match, match_all
from asmk_engine.verification.mutual import MutualNeighbours, compare_all, image_vectors
from asmk_engine.verification.reranking import Comparison, Reranking

Query = Features | Signature


@dataclass(frozen=True)
class SelectiveMatch:
    """The selectivity function sigma(s) = s ** alpha where s >= threshold, else 0, of similarities s in [-1, 1].

    Parameters
    ----------
    alpha : float, default 3.0
        Exponent; 3 in the paper (Tolias et al., ECCV 2020, section 3).
    threshold : float, default 0.0
        tau, from 0 to 1; powers of negative similarities are not meaningful.
    idf : bool, default False
        Weight every word by ln(images / images with the word) ** 2, counted over the live images.

    Raises
    ------
    InputError
        If `alpha` is not positive and finite, or `threshold` is not from 0 to 1.
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
        """Compute sigma of each similarity.

        Parameters
        ----------
        similarities : ndarray
            Similarities in [-1, 1], of any shape.

        Returns
        -------
        ndarray of the same shape, float64
        """
        kept = np.where(similarities >= self.threshold, similarities, 0.0)
        return np.power(kept, self.alpha)

    def table(self, dim: int, width: int) -> np.ndarray:
        """Tabulate sigma(1 - 2 h / dim) for every Hamming distance h.

        Parameters
        ----------
        dim : int
            Number of bits of a code.
        width : int
            Number of 64-bit words of a code.

        Returns
        -------
        ndarray of shape (64 * width + 1,), float64
            0 for distances above `dim`.
        """
        distances = np.arange(64 * width + 1)
        return np.where(distances <= dim, self.apply(1.0 - 2.0 * distances / dim), 0.0)


@dataclass(frozen=True)
class _PendingQuery:
    """A query being processed: its signature, the weight of each of its words, and the best images so far."""

    signature: Signature
    weights: np.ndarray
    ranking: Ranking
    is_normalised: bool = True

    @functools.cached_property
    def norm(self) -> float:
        """The norm of the query: the square root of the sum of its weights, added in the order of its words; else 1."""
        if not self.is_normalised:
            return 1.0
        return math.sqrt(float(np.cumsum(self.weights)[-1]))


@dataclass(frozen=True)
class _Weights:
    """Per-snapshot statistics: the weight of each word and, per segment, the norm of each image."""

    words: np.ndarray
    norms: tuple[np.ndarray, ...]


class Searcher(IndexSearcher[Snapshot, Query]):
    """Ranks the images of an index or a joint index for queries: photographs, features or signatures.

    Parameters
    ----------
    index : Index or JointIndex
        The index to search.
    match : SelectiveMatch, optional
        The selectivity function, by default that of the paper.
    multiple_assignment : int, default 5
        Words per query descriptor; at most those of the codebook.
    threads : int, optional
        Threads of a search, all available by default; results do not depend on it.
    statistics : WordStatistics, optional
        What `match.idf` is computed from, by default that of the index; a shard is given those of all shards.

    Raises
    ------
    InputError
        If `multiple_assignment` is less than 1.

    Notes
    -----
    A search runs on the current commit of `index`: additions and deletions made through that object take effect at
    once, those of other processes after `Index.refresh`. Images with a score of 0 are not returned.
    """

    group_size = 32
    kinds = (Features, Signature)

    def __init__(
        self,
        index: Index | JointIndex[Snapshot],
        match: SelectiveMatch | None = None,
        *,
        multiple_assignment: int = 5,
        threads: int | None = None,
        statistics: WordStatistics | None = None,
    ) -> None:
        if multiple_assignment < 1:
            raise InputError(f"multiple_assignment is {multiple_assignment}; give 1 or more (the paper uses 5)")
        super().__init__(index, threads)
        self.match = match or SelectiveMatch()
        self.multiple_assignment = multiple_assignment
        self._statistics = statistics
        self._located, self._described_images = LocatedImages(index), DescribedImages(index)
        self._weights: weakref.WeakKeyDictionary[Snapshot, _Weights] = weakref.WeakKeyDictionary()

    def sign(self, features: Features) -> Signature:
        """Compute the signature of a query, with each descriptor assigned to `multiple_assignment` words.

        Parameters
        ----------
        features : Features
            The local features of the query.

        Returns
        -------
        Signature

        Raises
        ------
        MismatchError
            If the dimension differs from that of the codebook.
        """
        codebook = self.index.snapshot.encoder
        return sign(features, codebook, min(self.multiple_assignment, codebook.words))

    def ready(self, snapshot: Snapshot, query: Query, count: int) -> Query:
        """Assign the features of a query to words, as in `IndexSearcher`."""
        if not isinstance(query, Features):
            return query
        codebook = snapshot.encoder
        return assigned(query, codebook, min(self.multiple_assignment, codebook.words), count)

    def _best(self, snapshot: Snapshot, queries: Sequence[Query], top: int | None, count: int) -> list[BestImages]:
        rankings = self._rank(snapshot, queries, top, count)
        return [best_images(snapshot.segments, ranking.parts(), top) for ranking in rankings]

    def _all(self, snapshot: Snapshot, query: Query, count: int) -> list[Part]:
        return self._rank(snapshot, [query], None, count)[0].parts()

    def matches_of(
        self,
        snapshot: Snapshot,
        query: Query,
        images: Places,
        options: Comparison,
        count: int,
    ) -> list[list[Match | None]]:
        """Verify images, as in `IndexSearcher`: the one list is of the features of this index."""
        if not isinstance(query, Features):
            raise InputError("a signature has no places, so nothing can be verified; search with the features")
        if isinstance(options, MutualNeighbours):
            described = self._described_images.find(snapshot, *images)
            return [compare_all(image_vectors(query, snapshot.encoder), described, options, count)]
        return [match_all(self._geometry(query, snapshot), self._located.find(snapshot, *images), options, count)]

    def local_extractors(self, snapshot: Snapshot) -> list[str]:
        """Return the name of the extractor, as in `IndexSearcher`."""
        return [snapshot.encoder.recipe.extractor]

    def expanded(
        self,
        snapshot: Snapshot,
        query: Query,
        images: Places,
        matches: list[list[Match | None]],
        reranking: Reranking,
    ) -> Signature | None:
        """Return the query joined by the matched features of images, as in `IndexSearcher`, see `expansion`."""
        if not isinstance(query, Features):
            return None
        joining = [row for row, match in enumerate(matches[0]) if reranking.joins(match)]
        if not joining:
            return None
        others = self._located.find(snapshot, images[0][joining], images[1][joining])
        joined = [
            (other, match.features)
            for other, match in zip(others, (matches[0][row] for row in joining), strict=True)
            if other is not None and match is not None
        ]
        return expanded_signature(self.sign(query), joined)

    def _geometry(self, query: Features, snapshot: Snapshot) -> ImageGeometry:
        return query_geometry(query, snapshot.encoder, self.multiple_assignment)

    def _rank(self, snapshot: Snapshot, queries: Sequence[Query], top: int | None, count: int) -> list[Ranking]:
        signatures = threads.run(lambda query: self._signed(query, snapshot), queries, count)
        table = self.match.table(snapshot.encoder.dim, code_width(snapshot.encoder.dim))
        weights = self._weights_of(snapshot)
        normalises = is_normalised(snapshot)
        pending = [
            _PendingQuery(signature, weights.words[signature.words], Ranking(top), normalises)
            for signature in signatures
        ]

        def score(task: tuple[tuple[int, int], _PendingQuery]) -> None:
            (place, r), query = task
            signature = query.signature
            raw = snapshot.segments[place].score(r, signature.words, signature.codes, query.weights, table)
            begin = r << RANGE_BITS
            norms = weights.norms[place][begin : begin + len(raw)]
            query.ranking.add(place, begin, *normalised(raw, norms, query.norm, query.ranking.floor))

        def score_regions(task: tuple[int, _PendingQuery]) -> None:
            place, query = task
            best = best_of_entries(snapshot.segments[place], query, weights.norms[place], table)
            query.ranking.add(place, 0, *normalised(best, np.ones(len(best)), query.norm, query.ranking.floor))

        places = range(len(snapshot.segments))
        ranges = [(place, r) for place in places for r in range(_plain_ranges(snapshot.segments[place]))]
        asked = [query for query in pending if len(query.signature)]
        regional = [place for place in places if snapshot.segments[place].is_regional]
        threads.run(score_regions, itertools.product(regional, asked), count)
        # Range by range, so that the queries of a group read lists that are still in the cache.
        threads.run(score, itertools.product(ranges, asked), count)
        return [query.ranking for query in pending]

    def _signed(self, query: Query, snapshot: Snapshot) -> Signature:
        signature = query if isinstance(query, Signature) else self.sign(query)
        if len(signature):
            _check_signature(signature, snapshot)
        return signature

    def _weights_of(self, snapshot: Snapshot) -> _Weights:
        if snapshot not in self._weights:
            statistics = self._statistics
            self._weights[snapshot] = _idf_weights(snapshot, statistics) if self.match.idf else _plain_weights(snapshot)
        return self._weights[snapshot]


def _check_signature(signature: Signature, snapshot: Snapshot) -> None:
    codebook = snapshot.encoder
    width = code_width(codebook.dim)
    if signature.codes.shape != (len(signature), width) or int(signature.words[-1]) >= codebook.words:
        raise MismatchError(
            f"the signature has codes {signature.codes.shape} and words up to {signature.words[-1]}; the index expects "
            f"[m, {width}] and words below {codebook.words}: was it made with another codebook?"
        )


def is_normalised(snapshot: Snapshot) -> bool:
    """Return whether scores are divided by the norms of query and image, which is not done for joined regions."""
    regions = snapshot.manifest.regions
    return regions is None or regions.is_normalised


def _plain_weights(snapshot: Snapshot) -> _Weights:
    norms = tuple(_norms(segment, segment.entry_word_counts, snapshot) for segment in snapshot.segments)
    return _Weights(np.ones(snapshot.encoder.words), norms)


def _idf_weights(snapshot: Snapshot, given: WordStatistics | None) -> _Weights:
    weights = (given or statistics_of(snapshot)).idf()
    norms = tuple(_norms(segment, _idf_sums(segment, weights), snapshot) for segment in snapshot.segments)
    return _Weights(weights, norms)


def _norms(segment: Segment, sums: np.ndarray, snapshot: Snapshot) -> np.ndarray:
    return np.sqrt(sums.astype(np.float64)) if is_normalised(snapshot) else np.ones(segment.entries)


def _idf_sums(segment: Segment, weights: np.ndarray) -> np.ndarray:
    """Sum the weights of each entry's words, in the order of the words, so that sums do not depend on the segments."""
    return np.bincount(segment.decode_images(), weights[segment.decode_words()], minlength=segment.entries)


def _plain_ranges(segment: Segment) -> int:
    return 0 if segment.is_regional else segment.ranges


def best_of_entries(segment: Segment, query: _PendingQuery, norms: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return the score of the best entry of each image of a segment, divided by its norm, [images] float64.

    norms  [entries] float64
    table  as for `Segment.score`
    """
    signature = query.signature
    parts = (
        segment.score(r, signature.words, signature.codes, query.weights, table).copy() for r in range(segment.ranges)
    )
    raw = np.concatenate([np.empty(0), *parts])
    scores = np.divide(raw, norms, out=np.zeros(len(raw)), where=norms > 0)
    return np.maximum.reduceat(scores, segment.entry_starts[:-1]) if len(scores) else scores


def normalised(raw: np.ndarray, norms: np.ndarray, query_norm: float, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers [m] uint32 and scores [m] float64 of the images of a range with a score above 0 and >= `least`.

    raw    [n] float64, the unnormalised score of each image
    norms  [n] float64, the norm of each image
    """
    numbers, scores = np.empty(len(raw), np.uint32), np.empty(len(raw))
    count = normalise(raw, norms, query_norm, least, numbers, scores)
    return numbers[:count], scores[:count]
