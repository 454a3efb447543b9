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
from asmk_engine.indexes.manifest import GLOBAL_KIND, Manifest
from asmk_engine.indexes.ranking import BestImages
from asmk_engine.indexes.snapshot import Identity
from asmk_engine.inverted.located import DescribedImages, LocatedImages
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
    """How the images of a shard are scored, as for `Searcher`; of no meaning for global descriptors."""

    match: SelectiveMatch = field(default_factory=SelectiveMatch)
    multiple_assignment: int = 5


@dataclass(frozen=True)
class CountedWords:
    """The word statistics of all shards at one commit of the sharded index; `key` tells them from every other."""

    key: tuple[str, int]
    statistics: WordStatistics


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

    def statistics(self, shard: PinnedShard) -> WordStatistics:
        """Return how often each word occurs in the shard."""
        return statistics_of(self._opened(shard).snapshot)

    def matches(
        self, shard: PinnedShard, query: ImageGeometry | ImageVectors, segments: np.ndarray, numbers: np.ndarray,
        comparison: Comparison,
    ) -> list[Match | None]:  # fmt: skip
        """Verify images of the shard, by their geometry or by the descriptors of the feature set that it remembers."""
        snapshot = self._opened(shard).snapshot
        images = self._images(shard, DescribedImages if isinstance(comparison, MutualNeighbours) else LocatedImages)
        found: Any = images.find(snapshot, segments, numbers)
        if isinstance(comparison, MutualNeighbours):
            return compare_all(query, found, comparison, self._threads)  # type: ignore[arg-type]
        return match_all(query, found, comparison, self._threads)  # type: ignore[arg-type]

    def geometries(self, shard: PinnedShard, segments: np.ndarray, numbers: np.ndarray) -> list[ImageGeometry | None]:
        """Return the geometry of images of the shard, None where there is none."""
        images = self._images(shard, LocatedImages)
        return list(images.find(self._opened(shard).snapshot, segments, numbers))

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

    def _searcher(self, shard: PinnedShard, index: Any, options: ScoringOptions, counted: CountedWords | None) -> Any:
        key = shard.key, options, None if counted is None else counted.key
        with self._lock:
            if key not in self._searchers:
                if shard.manifest.kind == GLOBAL_KIND:
                    from asmk_engine.flat.search import GlobalSearcher

                    self._searchers[key] = GlobalSearcher(index, threads=self._threads)
                else:
                    self._searchers[key] = Searcher(
                        index, options.match, multiple_assignment=options.multiple_assignment,
                        threads=self._threads, statistics=None if counted is None else counted.statistics,
                    )  # fmt: skip
                _trim(self._searchers)
            return self._searchers[key]

    def _images(self, shard: PinnedShard, found_by: Any) -> Any:
        index = self._opened(shard)
        with self._lock:
            key = shard.key, found_by
            if key not in self._located:
                self._located[key] = found_by(index)
                _trim(self._located)
            return self._located[key]


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


def _trim(kept: OrderedDict[Any, Any]) -> None:
    while len(kept) > KEPT:
        kept.popitem(last=False)
