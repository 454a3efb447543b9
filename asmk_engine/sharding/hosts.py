"""What answers for shards: the part of a search that needs the files of a shard, in one process or in many.

A host keeps nothing that it could not read again: every request names the shard and the commit that it is about, so a
host that was started anew answers as before, and so does a replica.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from asmk_engine.errors import AsmkError, NotFoundError
from asmk_engine.fused.scores import greatest_of_others, weighted, with_divisors
from asmk_engine.indexes.manifest import FUSED_KIND, GLOBAL_KIND, Manifest
from asmk_engine.indexes.ranking import BestImages, Part, best_images
from asmk_engine.indexes.snapshot import Identity
from asmk_engine.inverted.located import LocatedImages, finder_of
from asmk_engine.inverted.search import Searcher, SelectiveMatch
from asmk_engine.inverted.statistics import WordStatistics, statistics_of
from asmk_engine.sharding.shards import AnyShard, class_of
from asmk_engine.threads import thread_count
from asmk_engine.verification.geometry import ImageGeometry
from asmk_engine.verification.match import Match, match_all
from asmk_engine.verification.mutual import ImageVectors, MutualNeighbours, compare_all
from asmk_engine.verification.reranking import Comparison

KEPT = 4
"""Commits and searchers that a host keeps open: those of queries under way while the index changes."""
TOKENS = 8
"""Queries of fused indexes of which the scores of all images are kept: those that are under way at the same time."""


@dataclass(frozen=True)
class PinnedShard:
    """A shard at one of its commits, as requests name it.

    path      its folder, on whatever machine answers for it
    manifest  its manifest at this commit
    """

    path: str
    manifest: Manifest

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells this commit from every other."""
        return self.path, self.manifest.identity, self.manifest.commit


@dataclass(frozen=True)
class ScoringOptions:
    """How the images of a shard are scored, as for `Searcher`; of no meaning for global descriptors.

    weights  of the kinds, as for `FusedSearcher`
    """

    match: SelectiveMatch = field(default_factory=SelectiveMatch)
    multiple_assignment: int = 5
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True)
class CountedWords:
    """The word statistics of all shards at one commit of the sharded index.

    key    tells them from every other
    kinds  for each kind of features, one if the index is not fused; None for global descriptors
    """

    key: tuple[str, int]
    kinds: tuple[WordStatistics | None, ...]


@dataclass(frozen=True)
class ShardAnswers:
    """The answers of shards by their numbers, and why others did not answer."""

    found: dict[int, Any]
    missing: dict[int, str] = field(default_factory=dict)


class ShardHosts(Protocol):
    """Sends requests to whatever answers for the shards, and gathers the answers."""

    def ask(self, method: str, requests: Mapping[int, tuple[Any, ...]], shards: Sequence[PinnedShard]) -> ShardAnswers:
        """Call a method of `ShardHost` for some shards at the same time.

        requests  the arguments by number of the shard, which follow the shard itself
        An AsmkError that a host raises is raised here; a host that does not answer is missing.
        """
        ...


class ShardHost:
    """Answers for shards whose folders this process can read.

    threads  threads of a search, all available by default
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = thread_count(threads)
        self._lock = threading.Lock()
        self._shards: OrderedDict[tuple[str, str, int], AnyShard] = OrderedDict()
        self._searchers: OrderedDict[Any, Any] = OrderedDict()
        self._located: OrderedDict[Any, Any] = OrderedDict()
        self._by_token: OrderedDict[Any, list[tuple[float, list[Part]]]] = OrderedDict()

    def best(
        self, shard: PinnedShard, queries: Sequence[Any], top: int | None, options: ScoringOptions,
        counted: CountedWords | None,
    ) -> list[BestImages]:  # fmt: skip
        """Return the best images of a shard for each query, with positions of segments in the shard.

        queries  signatures or features of local features, or features of one descriptor
        counted  the words of all shards, if they are weighted by them
        """
        index = self._opened(shard)
        searcher = self._searcher(shard, index, options, counted)
        found: list[BestImages] = searcher.best_of(index.snapshot, queries, top, self._threads)
        return found

    def greatest(
        self, shard: PinnedShard, query: Any, token: bytes, options: ScoringOptions, counted: CountedWords | None
    ) -> list[float]:
        """Return for each kind of the query the best score of an image with another content, 0 if there is none.

        query  of a fused index
        token  tells the query from every other; what is found for it is kept for `fused`
        """
        snapshot = self._opened(shard).snapshot
        kinds = self._by_kind(shard, query, token, options, counted)
        return [greatest_of_others(snapshot.segments, found, query.fingerprint) for _, found in kinds]

    def fused(
        self, shard: PinnedShard, query: Any, token: bytes, options: ScoringOptions, counted: CountedWords | None,
        greatest: Sequence[float], top: int | None,
    ) -> BestImages:  # fmt: skip
        """Return the best images of a shard by their fused scores; found again if `greatest` was asked elsewhere.

        greatest  the best scores over all shards
        """
        segments = self._opened(shard).snapshot.segments
        kinds = self._by_kind(shard, query, token, options, counted)
        with self._lock:
            self._by_token.pop((shard.key, token), None)  # the scores of all images are not asked for again
        return best_images(segments, list(weighted(segments, with_divisors(kinds, greatest))), top)

    def statistics(self, shard: PinnedShard) -> tuple[WordStatistics | None, ...]:
        """Return how often each word occurs in the shard, for each kind of features, None for global descriptors."""
        snapshot: Any = self._opened(shard).snapshot
        if shard.manifest.kind != FUSED_KIND:
            return (statistics_of(snapshot),)
        kinds = zip(shard.manifest.kinds, snapshot.views, strict=True)
        return tuple(None if entry.kind == GLOBAL_KIND else statistics_of(view) for entry, view in kinds)

    def matches(
        self, shard: PinnedShard, query: ImageGeometry | ImageVectors, segments: np.ndarray, numbers: np.ndarray,
        comparison: Comparison, kind: int | None = None,
    ) -> tuple[list[Match | None], list[str]]:  # fmt: skip
        """Verify images of the shard, by their geometry or by the descriptors of the feature set that it remembers.

        Returns also the names of those of which that is missing.

        kind  the number of the kind of features, in a fused index
        """
        missing: list[str] = []
        found: Any = self._found(shard, finder_of(comparison), (segments, numbers), kind, missing)
        if isinstance(comparison, MutualNeighbours):
            return compare_all(query, found, comparison, self._threads), missing  # type: ignore[arg-type]
        return match_all(query, found, comparison, self._threads), missing  # type: ignore[arg-type]

    def geometries(
        self, shard: PinnedShard, segments: np.ndarray, numbers: np.ndarray, kind: int | None = None
    ) -> list[ImageGeometry | None]:
        """Return the geometry of images of the shard, None where there is none; `kind` as for `matches`."""
        return list(self._found(shard, LocatedImages, (segments, numbers), kind, []))

    def lacking(self, shard: PinnedShard, segment: int, number: int) -> tuple[bool, ...]:
        """Return for each kind of a fused index whether an image has no features of it."""
        snapshot: Any = self._opened(shard).snapshot
        found: tuple[bool, ...] = snapshot.lacking((segment, number))
        return found

    def identities(self, shard: PinnedShard, names: Sequence[str]) -> dict[str, tuple[int, int, Identity]]:
        """Return segment, number and identity of those names that are images of the shard."""
        snapshot = self._opened(shard).snapshot
        places = snapshot.find_all(names)
        return {name: (*place, snapshot.identity(place)) for name, place in places.items()}

    def names(self, shard: PinnedShard) -> list[str]:
        """Return the names of the images of the shard, in any order."""
        return list(self._opened(shard).snapshot.names())

    def encoder(self, shard: PinnedShard) -> Any:
        """Return the codebook or codec of the shard."""
        return self._opened(shard).snapshot.encoder

    def network(self, shard: PinnedShard) -> bytes | None:
        """Return the content of the network file in the shard, None without one."""
        path = self._opened(shard).network
        return None if path is None else path.read_bytes()

    def holds(self, shard: PinnedShard) -> bool:
        """Return whether this process can read the shard at this commit."""
        try:
            self._opened(shard)
        except AsmkError:
            return False
        return True

    def _opened(self, shard: PinnedShard) -> AnyShard:
        """Return a shard at a commit; reuses what an earlier one has mapped already."""
        with self._lock:
            known = self._shards.get(shard.key)
            if known is None:
                if not Path(shard.path).is_dir():
                    raise NotFoundError(f"{shard.path}: no such folder where the shard is asked for; bring it back")
                known = class_of(shard.manifest.kind).at(shard.path, shard.manifest)
                self._shards[shard.key] = known
                _trim(self._shards)
            self._shards.move_to_end(shard.key)
            return known

    def _by_kind(
        self, shard: PinnedShard, query: Any, token: bytes, options: ScoringOptions, counted: CountedWords | None
    ) -> list[tuple[float, list[Part]]]:
        """Return the images that each kind finds, which are kept for a second request about the same query."""
        key = shard.key, token
        with self._lock:
            known = self._by_token.get(key)
        if known is None:
            index = self._opened(shard)
            searcher = self._searcher(shard, index, options, counted)
            known = searcher.images_by_kind(index.snapshot, query, self._threads)
            with self._lock:
                self._by_token[key] = known
                _trim(self._by_token, TOKENS)
        return known

    def _searcher(self, shard: PinnedShard, index: Any, options: ScoringOptions, counted: CountedWords | None) -> Any:
        key = shard.key, options, None if counted is None else counted.key
        with self._lock:
            if key not in self._searchers:
                kinds = None if counted is None else counted.kinds
                self._searchers[key] = _searcher_of(shard.manifest.kind, index, options, kinds, self._threads)
                _trim(self._searchers)
            return self._searchers[key]

    def _found(
        self, shard: PinnedShard, found_by: Any, places: tuple[np.ndarray, np.ndarray], kind: int | None,
        missing: list[str],
    ) -> Any:  # fmt: skip
        """Return what is found of images, by a finder that is kept for its commit."""
        index: Any = self._opened(shard)
        if kind is not None:
            from asmk_engine.fused.queries import KindView

            index = KindView(index, kind)
        with self._lock:
            key = shard.key, found_by, kind
            if key not in self._located:
                self._located[key] = found_by(index)
                _trim(self._located)
            finder = self._located[key]
        return finder.find_some(index.snapshot, *places, missing)


def _searcher_of(
    kind: str, index: Any, options: ScoringOptions, counted: Sequence[WordStatistics | None] | None, threads: int
) -> Any:
    """Return a searcher of a shard; imported here, so that no query waits for the code of other kinds."""
    if kind == GLOBAL_KIND:
        from asmk_engine.flat.search import GlobalSearcher

        return GlobalSearcher(index, threads=threads)
    if kind == FUSED_KIND:
        from asmk_engine.fused.search import FusedSearcher

        return FusedSearcher(
            index, options.match, multiple_assignment=options.multiple_assignment, weights=options.weights,
            threads=threads, statistics=counted,
        )  # fmt: skip
    return Searcher(
        index, options.match, multiple_assignment=options.multiple_assignment, threads=threads,
        statistics=None if counted is None else counted[0],
    )  # fmt: skip


class LocalHosts:
    """All shards in this process, one after the other with all threads.

    threads  threads of a search, all available by default
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads
        self._hosts: dict[int, ShardHost] = {}

    def ask(self, method: str, requests: Mapping[int, tuple[Any, ...]], shards: Sequence[PinnedShard]) -> ShardAnswers:
        """Ask the shards, see `ShardHosts.ask`; one whose files are missing does not answer."""
        found: dict[int, Any] = {}
        missing: dict[int, str] = {}
        for number, arguments in requests.items():
            host = self._hosts.setdefault(number, ShardHost(self._threads))
            try:
                host.holds(shards[number]) or host.names(shards[number])
            except AsmkError as error:
                missing[number] = str(error)
                continue
            found[number] = getattr(host, method)(shards[number], *arguments)
        return ShardAnswers(found, missing)


def _trim(kept: OrderedDict[Any, Any], most: int = KEPT) -> None:
    while len(kept) > most:
        kept.popitem(last=False)
