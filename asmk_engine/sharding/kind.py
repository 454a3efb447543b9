"""One kind of features of a sharded index: queries are signed here, and images verified where their geometry is."""

from __future__ import annotations

from typing import Any

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.features import Features
from asmk_engine.indexes.searcher import Places
from asmk_engine.inverted.expansion import expanded_signature
from asmk_engine.inverted.located import finder_of, query_geometry
from asmk_engine.inverted.signatures import Signature, assigned, sign
from asmk_engine.sharding.asking import ShardAsker
from asmk_engine.sharding.hosted_index import HostedCommit
from asmk_engine.verification.match import Match
from asmk_engine.verification.mutual import MutualNeighbours, image_vectors
from asmk_engine.verification.reranking import Comparison, Reranking


class ShardedKind:
    """Does for a kind of local features what `Searcher` does where all images are in one process.

    asker                of the shards
    multiple_assignment  words of each feature of a query
    number               of the kind, in a fused index
    """

    def __init__(self, asker: ShardAsker, multiple_assignment: int, number: int | None = None) -> None:
        self._asker, self._assignment, self._number = asker, multiple_assignment, number

    def ready(self, commit: HostedCommit, query: Any, count: int) -> Any:
        """Assign the features of a query to words, as in `IndexSearcher`."""
        if not isinstance(query, Features):
            return query
        return assigned(query, commit.encoder, self._assignments(commit), count)

    def signed(self, commit: HostedCommit, query: Features | Signature) -> Signature:
        """Return the signature of a query."""
        return query if isinstance(query, Signature) else sign(query, commit.encoder, self._assignments(commit))

    def matches_of(
        self, commit: HostedCommit, query: Any, images: Places, options: Comparison, count: int
    ) -> list[list[Match | None]]:
        """Verify images, as in `IndexSearcher`, each by the host of the shard that has its geometry."""
        if not isinstance(query, Features):
            raise InputError("a signature has no places, so nothing can be verified; search with the features")
        asked: Any = (
            image_vectors(query, commit.encoder)
            if isinstance(options, MutualNeighbours)
            else query_geometry(query, commit.encoder, self._assignment)
        )
        found: list[Match | None] = [None] * len(images[0])
        parts = _by_shard(commit, images)
        requests = {shard: (asked, *places, options, self._number) for shard, (_, places) in parts.items()}
        missing: list[str] = []
        for shard, (matches, lacking) in self._asker.ask(commit, "matches", requests).items():
            missing += lacking
            for row, match in zip(parts[shard][0].tolist(), matches, strict=True):
                found[row] = match
        finder_of(options).tell(self._asker.path, missing, len(images[0]))
        return [found]

    def expanded(
        self, commit: HostedCommit, query: Any, images: Places, matches: list[list[Match | None]], reranking: Reranking
    ) -> Any:
        """Return the query joined by the matched features of images, as in `Searcher.expanded`."""
        joining = np.array([row for row, match in enumerate(matches[0]) if reranking.joins(match)], np.int64)
        if not len(joining) or not isinstance(query, Features):
            return None
        parts = _by_shard(commit, (images[0][joining], images[1][joining]))
        others: list[Any] = [None] * len(joining)
        requests = {shard: (*places, self._number) for shard, (_, places) in parts.items()}
        for shard, found in self._asker.ask(commit, "geometries", requests).items():
            for row, other in zip(parts[shard][0].tolist(), found, strict=True):
                others[row] = other
        pairs = zip(others, (matches[0][row] for row in joining.tolist()), strict=True)
        joined = [(other, match.features) for other, match in pairs if other is not None and match is not None]
        return expanded_signature(self.signed(commit, query), joined)

    def _assignments(self, commit: HostedCommit) -> int:
        return min(self._assignment, commit.encoder.words)


def _by_shard(commit: HostedCommit, images: Places) -> dict[int, tuple[np.ndarray, Places]]:
    """Return for each shard the rows of its images, and their places in the shard."""
    segments, numbers = images
    shards = np.searchsorted(commit.segment_starts, segments, side="right") - 1
    found = {}
    for shard in np.unique(shards).tolist():
        rows = np.flatnonzero(shards == shard)
        found[shard] = rows, (segments[rows] - commit.segment_starts[shard], numbers[rows])
    return found
