"""Search over shards: each ranks its own images, and the best of all are the answer.

Scores depend on one image, and on the words of all images where these are weighted by them, so shards are told those of
the whole collection. Equal scores are in byte order of the names, which are unique over the shards. So the answer is
that of one index with all images, bit for bit.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from asmk_engine.errors import AsmkWarning, InputError, StorageError
from asmk_engine.features import Features
from asmk_engine.indexes.answers import Hit, RankedImages
from asmk_engine.indexes.manifest import GLOBAL_KIND
from asmk_engine.indexes.ranking import BestImages, Part
from asmk_engine.indexes.searcher import IndexSearcher, Places
from asmk_engine.inverted.expansion import expanded_signature
from asmk_engine.inverted.located import query_geometry
from asmk_engine.inverted.search import SelectiveMatch
from asmk_engine.inverted.signatures import Signature, assigned, sign
from asmk_engine.inverted.statistics import total_statistics
from asmk_engine.sharding.hosted_index import HostedCommit, HostedIndex, missing_text
from asmk_engine.sharding.hosts import CountedWords, LocalHosts, ScoringOptions
from asmk_engine.threads import run
from asmk_engine.verification.match import Match
from asmk_engine.verification.mutual import MutualNeighbours, image_vectors
from asmk_engine.verification.reranking import Comparison, Reranking


class ShardedHits(list[Hit]):
    """The answer to a query; `missing` are the folders of shards that did not answer, whose images are left out."""

    def __init__(self, hits: Iterable[Hit], missing: Sequence[str] = ()) -> None:
        super().__init__(hits)
        self.missing = tuple(missing)


def missing_shards(hits: list[Hit]) -> tuple[str, ...]:
    """Return the folders of shards that did not answer, none for an answer that is whole."""
    return hits.missing if isinstance(hits, ShardedHits) else ()


class ShardedSearcher(IndexSearcher[Any, Any]):
    """Ranks the images of a sharded index, whose shards are read by hosts, for queries.

    Parameters
    ----------
    index : HostedIndex or path-like
        The index; the shards of a path are read by this process.
    match, multiple_assignment
        As for `Searcher`; of no effect for global descriptors.
    allow_partial : bool, default False
        Answer without the shards that do not answer: a warning and `ShardedHits.missing` name them. Otherwise such a
        query raises StorageError.
    threads : int, optional
        Threads that describe and assign queries.

    Raises
    ------
    InputError
        If `multiple_assignment` is less than 1, or the index has several kinds of features.

    Notes
    -----
    A search runs on the current commit of `index`; the next one is there after `HostedIndex.refresh`.
    """

    def __init__(
        self,
        index: HostedIndex | Any,
        match: SelectiveMatch | None = None,
        *,
        multiple_assignment: int = 5,
        allow_partial: bool = False,
        threads: int | None = None,
    ) -> None:
        if multiple_assignment < 1:
            raise InputError(f"multiple_assignment is {multiple_assignment}; give 1 or more (the paper uses 5)")
        hosted = index if isinstance(index, HostedIndex) else HostedIndex(index, LocalHosts(threads))
        super().__init__(hosted, threads)  # type: ignore[arg-type]
        self.hosted, self.multiple_assignment, self.allow_partial = hosted, multiple_assignment, allow_partial
        self._options = ScoringOptions(match or SelectiveMatch(), multiple_assignment)
        self._is_global = hosted.kind == GLOBAL_KIND
        self._counted: weakref.WeakKeyDictionary[HostedCommit, CountedWords] = weakref.WeakKeyDictionary()
        self._missing = threading.local()

    @property
    def group_size(self) -> int:  # type: ignore[override]
        """The number of queries that are scored together."""
        return 64 if self._is_global else 32

    @property
    def kinds(self) -> tuple[type, ...]:  # type: ignore[override]
        """The types of a query besides photographs."""
        return (Features,) if self._is_global else (Features, Signature)

    def rank(self, query: Any, *, threads: int | None = None, rerank: int | Reranking | None = None) -> RankedImages:
        """Rank all images as numbers over all shards, see `IndexSearcher.rank`; here names are read."""
        hits = self.search(query, None, threads=threads, rerank=rerank)
        numbers = self.image_numbers([hit.name for hit in hits])
        return RankedImages(
            np.array([numbers[hit.name] for hit in hits], np.int64), np.array([hit.score for hit in hits], np.float64)
        )

    def image_numbers(self, names: Iterable[str]) -> dict[str, int]:
        """Return the numbers of images as used by `rank`."""
        return {name: number for name, (number, _) in self.hosted.find(list(names)).items()}

    def scores(self, query: Any) -> dict[str, float]:
        """Return the score of every live image, see `IndexSearcher.scores`."""
        found = {hit.name: hit.score for hit in self.search(query, None)}
        return {name: found.get(name, 0.0) for name in self.hosted.names}

    def ready(self, snapshot: Any, query: Any, count: int) -> Any:
        """Assign the features of a query to words, as in `IndexSearcher`."""
        if self._is_global or not isinstance(query, Features):
            return query
        return assigned(query, snapshot.encoder, self._assignments(snapshot), count)

    def matches_of(
        self, snapshot: Any, query: Any, images: Places, options: Comparison, count: int
    ) -> list[list[Match | None]]:
        """Verify images, as in `IndexSearcher`, each by the host of the shard that has its geometry."""
        if self._is_global:
            return super().matches_of(snapshot, query, images, options, count)
        if not isinstance(query, Features):
            raise InputError("a signature has no places, so nothing can be verified; search with the features")
        asked: Any = (
            image_vectors(query, snapshot.encoder)
            if isinstance(options, MutualNeighbours)
            else query_geometry(query, snapshot.encoder, self.multiple_assignment)
        )
        found: list[Match | None] = [None] * len(images[0])
        parts = self._by_shard(snapshot, images)
        requests = {shard: (asked, *places, options) for shard, (_, places) in parts.items()}
        for shard, matches in self._ask(snapshot, "matches", requests).items():
            for row, match in zip(parts[shard][0].tolist(), matches, strict=True):
                found[row] = match
        return [found]

    def local_extractors(self, snapshot: Any) -> list[str]:
        """Return the name of the extractor, as in `IndexSearcher`."""
        return [] if self._is_global else [snapshot.encoder.recipe.extractor]

    def expanded(
        self, snapshot: Any, query: Any, images: Places, matches: list[list[Match | None]], reranking: Reranking
    ) -> Any:
        """Return the query joined by the matched features of images, as in `Searcher.expanded`."""
        joining = np.array([row for row, match in enumerate(matches[0]) if reranking.joins(match)], np.int64)
        if not len(joining) or not isinstance(query, Features):
            return None
        parts = self._by_shard(snapshot, (images[0][joining], images[1][joining]))
        others: list[Any] = [None] * len(joining)
        requests = {shard: places for shard, (_, places) in parts.items()}
        for shard, found in self._ask(snapshot, "geometries", requests).items():
            for row, other in zip(parts[shard][0].tolist(), found, strict=True):
                others[row] = other
        pairs = zip(others, (matches[0][row] for row in joining.tolist()), strict=True)
        joined = [(other, match.features) for other, match in pairs if other is not None and match is not None]
        return expanded_signature(self._signed(snapshot, query), joined)

    def _best(self, snapshot: Any, queries: Sequence[Any], top: int | None, count: int) -> list[BestImages]:
        asked = list(queries) if self._is_global else run(lambda one: self._signed(snapshot, one), queries, count)
        counted = self._words(snapshot) if self._options.match.idf and not self._is_global else None
        request = (asked, top, self._options, counted)
        found = self._ask(snapshot, "best", dict.fromkeys(range(len(snapshot.pinned)), request))
        return [
            merged([_shifted(snapshot, shard, best[row]) for shard, best in found.items()], top)
            for row in range(len(asked))
        ]

    def _all(self, snapshot: Any, query: Any, count: int) -> list[Part]:
        best = self._best(snapshot, [query], None, count)[0]
        places = np.unique(best.segments).tolist()
        return [(place, best.numbers[best.segments == place], best.scores[best.segments == place]) for place in places]

    def _search_group(
        self, queries: Sequence[Any], top: int | None, count: int, reranking: Reranking | None
    ) -> list[list[Hit]]:
        self._missing.found = {}
        answers = super()._search_group(queries, top, count, reranking)
        missing: dict[str, str] = self._missing.found
        if missing:
            for text in missing.values():
                warnings.warn(text, AsmkWarning, stacklevel=4)
        return [ShardedHits(hits, list(missing)) for hits in answers]

    def _signed(self, snapshot: Any, query: Any) -> Signature:
        codebook = snapshot.encoder
        return query if isinstance(query, Signature) else sign(query, codebook, self._assignments(snapshot))

    def _assignments(self, snapshot: Any) -> int:
        return min(self.multiple_assignment, snapshot.encoder.words)

    def _words(self, snapshot: Any) -> CountedWords:
        """Return the words of all shards, counted once for each commit; every shard has to answer."""
        if snapshot not in self._counted:
            pinned = snapshot.pinned
            answers = self.hosted.hosts.ask("statistics", dict.fromkeys(range(len(pinned)), ()), pinned)
            for number, reason in answers.missing.items():
                raise StorageError(missing_text(self.hosted.path, snapshot, number, reason))
            manifest = snapshot.manifest
            key = manifest.identity, manifest.commit
            self._counted[snapshot] = CountedWords(key, total_statistics(answers.found.values()))
        return self._counted[snapshot]

    def _ask(self, snapshot: Any, method: str, requests: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Ask shards; raises StorageError for one that does not answer, unless the others are enough."""
        answers = self.hosted.hosts.ask(method, requests, snapshot.pinned)
        for number, reason in answers.missing.items():
            text = missing_text(self.hosted.path, snapshot, number, reason)
            if not self.allow_partial or not answers.found:
                raise StorageError(text)
            folder = snapshot.manifest.shards[number].folder
            said = (
                f"{self.hosted.path}: the answer lacks the images of the shard {folder}, which did not answer: {reason}"
            )
            self._missing.found[folder] = said
        return answers.found

    def _by_shard(self, snapshot: Any, images: Places) -> dict[int, tuple[np.ndarray, Places]]:
        """Return for each shard the rows of its images, and their places in the shard."""
        segments, numbers = images
        shards = np.searchsorted(snapshot.segment_starts, segments, side="right") - 1
        found = {}
        for shard in np.unique(shards).tolist():
            rows = np.flatnonzero(shards == shard)
            found[shard] = rows, (segments[rows] - snapshot.segment_starts[shard], numbers[rows])
        return found


def merged(parts: Sequence[BestImages], top: int | None) -> BestImages:
    """Return the best of several rankings, best first, equal scores in byte order of the names."""
    empty = np.empty(0, np.int64)
    segments = np.concatenate([empty, *(part.segments for part in parts)])
    numbers = np.concatenate([empty, *(part.numbers for part in parts)])
    scores = np.concatenate([np.empty(0), *(part.scores for part in parts)])
    names = [name for part in parts for name in part.names]
    keys = list(zip((-scores).tolist(), names, strict=True))
    order = sorted(range(len(keys)), key=keys.__getitem__)[:top]
    rows = np.array(order, np.int64)
    return BestImages(segments[rows], numbers[rows], scores[rows], [names[row] for row in order])


def _shifted(snapshot: HostedCommit, shard: int, best: BestImages) -> BestImages:
    """Return a ranking of a shard with positions of segments over all shards."""
    return BestImages(best.segments + snapshot.segment_starts[shard], best.numbers, best.scores, best.names)
