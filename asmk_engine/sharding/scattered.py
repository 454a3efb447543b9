"""What all searches over shards have in common: the best of each shard are merged, and missing shards are told.

Scores depend on one image, on the words of all images where these are weighted by them, and on the best scores of all
images where several kinds are fused; shards are told what is of the whole collection. Equal scores are in byte order of
the names, which are unique over the shards. So the answer is that of one index with all images, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.indexes.answers import Hit, RankedImages
from asmk_engine.indexes.ranking import BestImages, Part
from asmk_engine.indexes.searcher import IndexSearcher
from asmk_engine.sharding.asking import ShardAsker
from asmk_engine.sharding.hosted_index import HostedCommit, HostedIndex
from asmk_engine.sharding.hosts import LocalHosts
from asmk_engine.verification.reranking import Reranking

QueryT = TypeVar("QueryT")


class ScatteredSearcher(IndexSearcher[Any, QueryT]):
    """Ranks images by numbers over all shards, whose names are asked where they are needed.

    hosted         the index
    asker          asks its shards
    allow_partial  whether the answers of some shards are enough
    """

    hosted: HostedIndex
    asker: ShardAsker

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

    def _all(self, snapshot: Any, query: Any, count: int) -> list[Part]:
        best = self._best(snapshot, [query], None, count)[0]
        places = np.unique(best.segments).tolist()
        return [(place, best.numbers[best.segments == place], best.scores[best.segments == place]) for place in places]

    def _search_group(
        self, queries: Sequence[Any], top: int | None, count: int, reranking: Reranking | None
    ) -> list[list[Hit]]:
        self.asker.begin()
        return self.asker.whole(super()._search_group(queries, top, count, reranking))


def hosted_index(index: HostedIndex | Any, threads: int | None) -> HostedIndex:
    """Return an index with its hosts; the shards of a path are read by this process."""
    return index if isinstance(index, HostedIndex) else HostedIndex(index, LocalHosts(threads))


def check_assignment(multiple_assignment: int) -> None:
    """Raise InputError unless features are assigned to one word or more."""
    if multiple_assignment < 1:
        raise InputError(f"multiple_assignment is {multiple_assignment}; give 1 or more (the paper uses 5)")


def gathered_best(commit: HostedCommit, found: Mapping[int, BestImages], top: int | None) -> BestImages:
    """Return the best images of all shards, with positions of segments over all of them.

    found  the best of each shard that answered, with positions of segments in the shard
    """
    return merged([_shifted(commit, shard, best) for shard, best in found.items()], top)


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


def _shifted(commit: HostedCommit, shard: int, best: BestImages) -> BestImages:
    return BestImages(best.segments + commit.segment_starts[shard], best.numbers, best.scores, best.names)
