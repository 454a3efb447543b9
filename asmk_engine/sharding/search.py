"""Search over shards: each ranks its own images, and the best of all are the answer; see `scattered`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asmk_engine.errors import InputError
from asmk_engine.features import Features
from asmk_engine.indexes.manifest import FUSED_KIND, GLOBAL_KIND
from asmk_engine.indexes.ranking import BestImages
from asmk_engine.indexes.searcher import Places
from asmk_engine.inverted.search import SelectiveMatch
from asmk_engine.inverted.signatures import Signature
from asmk_engine.sharding.asking import ShardAsker
from asmk_engine.sharding.hosted_index import HostedIndex
from asmk_engine.sharding.hosts import ScoringOptions
from asmk_engine.sharding.kind import ShardedKind
from asmk_engine.sharding.scattered import ScatteredSearcher, check_assignment, gathered_best, hosted_index
from asmk_engine.threads import run
from asmk_engine.verification.match import Match
from asmk_engine.verification.reranking import Comparison, Reranking


class ShardedSearcher(ScatteredSearcher[Any]):
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
        If `multiple_assignment` is less than 1, or the index has several kinds of features, which
        `ShardedFusedSearcher` searches.

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
        check_assignment(multiple_assignment)
        self.hosted = hosted_index(index, threads)
        if self.hosted.kind == FUSED_KIND:
            raise InputError(f"{self.hosted.path}: has several kinds of features; search it with ShardedFusedSearcher")
        super().__init__(self.hosted, threads)  # type: ignore[arg-type]
        self.multiple_assignment = multiple_assignment
        self._options = ScoringOptions(match or SelectiveMatch(), multiple_assignment)
        self._is_global = self.hosted.kind == GLOBAL_KIND
        self.asker = ShardAsker(self.hosted.path, self.hosted.hosts, allow_partial)
        self._kind = ShardedKind(self.asker, multiple_assignment)

    @property
    def group_size(self) -> int:  # type: ignore[override]
        """The number of queries that are scored together."""
        return 64 if self._is_global else 32

    @property
    def kinds(self) -> tuple[type, ...]:  # type: ignore[override]
        """The types of a query besides photographs."""
        return (Features,) if self._is_global else (Features, Signature)

    def ready(self, snapshot: Any, query: Any, count: int) -> Any:
        """Assign the features of a query to words, as in `IndexSearcher`."""
        return query if self._is_global else self._kind.ready(snapshot, query, count)

    def matches_of(
        self, snapshot: Any, query: Any, images: Places, options: Comparison, count: int
    ) -> list[list[Match | None]]:
        """Verify images, as in `IndexSearcher`, each by the host of the shard that has its geometry."""
        if self._is_global:
            return super().matches_of(snapshot, query, images, options, count)
        return self._kind.matches_of(snapshot, query, images, options, count)

    def local_extractors(self, snapshot: Any) -> list[str]:
        """Return the name of the extractor, as in `IndexSearcher`."""
        return [] if self._is_global else [snapshot.encoder.recipe.extractor]

    def expanded(
        self, snapshot: Any, query: Any, images: Places, matches: list[list[Match | None]], reranking: Reranking
    ) -> Any:
        """Return the query joined by the matched features of images, as in `Searcher.expanded`."""
        return self._kind.expanded(snapshot, query, images, matches, reranking)

    def _best(self, snapshot: Any, queries: Sequence[Any], top: int | None, count: int) -> list[BestImages]:
        asked = list(queries)
        if not self._is_global:
            asked = run(lambda one: self._kind.signed(snapshot, one), queries, count)
        counted = self.asker.words(snapshot) if self._options.match.idf and not self._is_global else None
        found = self.asker.ask_all(snapshot, "best", asked, top, self._options, counted)
        return [
            gathered_best(snapshot, {shard: best[row] for shard, best in found.items()}, top)
            for row in range(len(asked))
        ]
