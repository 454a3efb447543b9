"""Search over the shards of a fused index, whose scores are divided by the best ones of all images.

Every shard is asked twice: for its best score in each kind, and, with the best of all shards, for its best images. It
keeps what each kind found in between, so that images are scored once.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.fused.search import KindsSearcher
from asmk_engine.indexes.manifest import FUSED_KIND, KindEntry
from asmk_engine.indexes.ranking import BestImages
from asmk_engine.inverted.search import SelectiveMatch
from asmk_engine.sharding.asking import ShardAsker
from asmk_engine.sharding.hosted_index import HostedCommit, HostedIndex
from asmk_engine.sharding.hosts import ScoringOptions
from asmk_engine.sharding.kind import ShardedKind
from asmk_engine.sharding.scattered import ScatteredSearcher, check_assignment, gathered_best, hosted_index
from asmk_engine.sharding.search import ShardedSearcher


class ShardedFusedSearcher(ScatteredSearcher[FusedFeatures], KindsSearcher):
    """Ranks the images of a sharded index of several kinds of features by their fused scores.

    Parameters
    ----------
    index : HostedIndex or path-like
        The index; the shards of a path are read by this process.
    match, multiple_assignment, weights
        As for `FusedSearcher`.
    allow_partial, threads
        As for `ShardedSearcher`. Scores of an answer without some shards are divided by the best ones of the others.

    Raises
    ------
    InputError
        If `multiple_assignment` is less than 1, or `weights` do not fit the kinds.
    """

    def __init__(
        self,
        index: HostedIndex | Any,
        match: SelectiveMatch | None = None,
        *,
        multiple_assignment: int = 5,
        weights: Sequence[float] | None = None,
        allow_partial: bool = False,
        threads: int | None = None,
    ) -> None:
        check_assignment(multiple_assignment)
        self.hosted = hosted_index(index, threads)
        self.asker = ShardAsker(self.hosted.path, self.hosted.hosts, allow_partial)
        kinds = [ShardedKind(self.asker, multiple_assignment, number) for number in range(len(self.kind_entries))]
        super().__init__(self.hosted, kinds, weights, threads)
        self.multiple_assignment = multiple_assignment
        given = None if weights is None else tuple(map(float, weights))
        self._options = ScoringOptions(match or SelectiveMatch(), multiple_assignment, given)

    @property
    def kind_entries(self) -> Sequence[KindEntry]:
        """The kinds of the current commit, as in the manifests of the shards."""
        return self.hosted.snapshot.manifest.shards[0].manifest.kinds

    def _best(
        self, snapshot: HostedCommit, queries: Sequence[FusedFeatures], top: int | None, count: int
    ) -> list[BestImages]:
        return [self._best_of_one(snapshot, self._signed(snapshot, query), top) for query in queries]

    def _best_of_one(self, snapshot: HostedCommit, query: FusedFeatures, top: int | None) -> BestImages:
        counted = self.asker.words(snapshot) if self._options.match.idf else None
        request = query, secrets.token_bytes(16), self._options, counted
        of_shards = self.asker.ask_all(snapshot, "greatest", *request)
        greatest = [max(found) for found in zip(*of_shards.values(), strict=True)]
        found = self.asker.ask(snapshot, "fused", dict.fromkeys(of_shards, (*request, greatest, top)))
        return gathered_best(snapshot, found, top)

    def _signed(self, snapshot: HostedCommit, query: FusedFeatures) -> FusedFeatures:
        """Return a query with signatures for its kinds of local features, so that no shard assigns them again."""
        parts: list[Any] = list(query.parts)
        for kind, searcher, view, part in self._local(snapshot, query):
            parts[kind] = searcher.signed(view, part)
        return FusedFeatures(tuple(parts), query.fingerprint)


def searcher_of_shards(
    index: HostedIndex,
    match: SelectiveMatch | None = None,
    *,
    multiple_assignment: int = 5,
    weights: Sequence[float] | None = None,
    allow_partial: bool = False,
    threads: int | None = None,
) -> ShardedSearcher | ShardedFusedSearcher:
    """Return a searcher of a sharded index of any kind.

    Parameters
    ----------
    index : HostedIndex
        The index.
    match, multiple_assignment, allow_partial, threads
        As for `ShardedSearcher`.
    weights : sequence of float, optional
        As for `ShardedFusedSearcher`; of no effect for an index of one kind.

    Returns
    -------
    ShardedSearcher or ShardedFusedSearcher
    """
    given: Any = {"multiple_assignment": multiple_assignment, "allow_partial": allow_partial, "threads": threads}
    if index.kind == FUSED_KIND:
        return ShardedFusedSearcher(index, match, weights=weights, **given)
    return ShardedSearcher(index, match, **given)
