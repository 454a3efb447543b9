"""Shards of an index of several kinds of features answer as one index, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asmk_engine.errors import AsmkWarning, InputError, MismatchError, NotFoundError, StorageError
from asmk_engine.features import Features, FeatureSet, FeatureWriter, Source
from asmk_engine.flat import Codec
from asmk_engine.fused.index import FusedIndex
from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.fused.search import FusedSearcher
from asmk_engine.inverted.search import SelectiveMatch
from asmk_engine.search.query_features import FusedQuerySource, query_source
from asmk_engine.sharding.asking import ShardedHits, missing_shards
from asmk_engine.sharding.fused_search import ShardedFusedSearcher, searcher_of_shards
from asmk_engine.sharding.hosted_index import HostedIndex
from asmk_engine.sharding.hosts import LocalHosts, PinnedShard, ShardAnswers, ShardHost
from asmk_engine.sharding.layout import shard_index
from asmk_engine.sharding.search import ShardedSearcher
from asmk_engine.verification.reranking import Reranking
from fused_histories import HERE, images_of
from geometry_samples import DIM, made, photographs
from global_samples import RECIPE as WHOLE_RECIPE
from sharding_samples import FUSED_IMAGES, named_fused_index

IDF = SelectiveMatch(idf=True)


def queries() -> list[FusedFeatures]:
    """Queries with both kinds, with one, with content that is indexed, and with nothing."""
    others = [FusedFeatures(parts) for parts in images_of(4, seed=5).values()]
    known = [FusedFeatures(parts, number + 1) for number, parts in enumerate(FUSED_IMAGES.values())][:3]
    alone = [replace(known[0], parts=(known[0].parts[0], None)), replace(known[0], parts=(None, known[0].parts[1]))]
    return [*others, *known, *alone, FusedFeatures((None, None))]


@pytest.mark.parametrize("shards", [1, 3, 8])
@pytest.mark.parametrize("match", [SelectiveMatch(), IDF])
@pytest.mark.parametrize("weights", [None, [1.0, 3.0], [0.0, 1.0]])
def test_shards_answer_as_one_index(tmp_path: Path, shards: int, match: SelectiveMatch, weights: Any) -> None:
    index = named_fused_index(tmp_path)
    whole = FusedSearcher(index, match, weights=weights)
    sharded = shard_index(index.path, tmp_path / "x.shards", shards)
    searcher = ShardedFusedSearcher(sharded.path, match, weights=weights)
    assert searcher.weights == whole.weights
    for top in (1, 5, None):
        assert searcher.search(queries(), top) == whole.search(queries(), top)
    query = queries()[5]
    assert searcher.scores(query) == whole.scores(query)
    ranked, numbers = searcher.rank(query), searcher.image_numbers(index.names)
    names = {number: name for name, number in numbers.items()}
    assert [names[number] for number in ranked.numbers] == [hit.name for hit in whole.search(query, None)]


def test_the_content_of_the_query_is_recognised_in_every_shard(tmp_path: Path) -> None:
    """The best score of the others decides about all scores, and the query may be in any shard."""
    index = named_fused_index(tmp_path)
    sharded = shard_index(index.path, tmp_path / "x.shards", 5)
    searcher, whole = ShardedFusedSearcher(sharded.path), FusedSearcher(index)
    for name in index.names[:20]:
        assert searcher.search_name(name, None) == whole.search_name(name, None)
        source, other = query_source(searcher.hosted), query_source(index)
        assert isinstance(source, FusedQuerySource)
        found, expected = source.features(name)[0], other.features(name)[0]
        assert found.fingerprint == expected.fingerprint != 0
        assert [part is None for part in found.parts] == [part is None for part in expected.parts]


def located(folder: Path) -> tuple[FusedIndex, list[FusedFeatures]]:
    """An index of photographs with geometry and of random global descriptors, and queries."""
    images = photographs(30, 2, 40)
    local = made(folder / "local.index", images, postings=60)
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(size=(1, 20)).astype(np.float32) for name in images}
    kinds = {
        name: (features, Features.from_descriptors(vectors[name] / np.linalg.norm(vectors[name])))
        for name, features in images.items()
    }
    index = FusedIndex.create(
        folder / "located.index", {"places": local.snapshot.encoder, "whole": Codec(WHOLE_RECIPE, 20, "half")},
        [0.5, 0.5], geometry="all",
    )  # fmt: skip
    sets: Any = {}
    for number, (name, recipe) in enumerate((("places", local.recipe), ("whole", WHOLE_RECIPE))):
        with FeatureWriter(folder / name, recipe, (DIM, 20)[number]) as writer:
            for place, (image, parts) in enumerate(kinds.items()):
                writer.add(image, parts[number], Source(1, 1, place + 1), HERE)
        sets[name] = FeatureSet.open(folder / name)
    index.add(sets, segment_postings=200)
    return index, [FusedFeatures(parts) for parts in list(kinds.values())[:4]]


@pytest.mark.parametrize("reranking", [Reranking(7), Reranking(5, expansions=2), Reranking.by_descriptors(6)])
def test_images_are_verified_where_their_geometry_is(tmp_path: Path, reranking: Reranking) -> None:
    index, asked = located(tmp_path)
    sharded = shard_index(index.path, tmp_path / "x.shards", 4)
    found = ShardedFusedSearcher(sharded.path).search(asked, 6, rerank=reranking)
    expected = FusedSearcher(index).search(asked, 6, rerank=reranking)
    assert found == expected
    of_hits = [[match for hit in hits for match in hit.matches] for hits in found]
    same = [[match for hit in hits for match in hit.matches] for hits in expected]
    assert [[match and match.inliers for match in hits] for hits in of_hits] == [
        [match and match.inliers for match in hits] for hits in same
    ]
    assert any(match is not None for hits in of_hits for match in hits)


class ForgetfulHosts(LocalHosts):
    """Every request goes to a host that has never been asked, as after the loss of a node; one shard may be away.

    away  the shard and the methods to which it does not answer
    """

    def __init__(self, away: int | None = None, methods: tuple[str, ...] = ()) -> None:
        super().__init__(1)
        self._away, self._methods = away, methods

    def ask(self, method: str, requests: Any, shards: Any) -> ShardAnswers:
        """Ask new hosts."""
        self._hosts.clear()
        here = {shard: given for shard, given in requests.items() if shard != self._away or method not in self._methods}
        missing = {shard: "away" for shard in requests if shard not in here}
        return ShardAnswers(super().ask(method, here, shards).found, missing)


def test_a_host_that_was_started_anew_finds_the_scores_again(tmp_path: Path) -> None:
    index = named_fused_index(tmp_path)
    sharded = shard_index(index.path, tmp_path / "x.shards", 3)
    searcher = ShardedFusedSearcher(HostedIndex(sharded.path, ForgetfulHosts()), IDF)
    assert searcher.search(queries(), 5) == FusedSearcher(index, IDF).search(queries(), 5)


def test_scores_are_found_once_for_both_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = named_fused_index(tmp_path)
    sharded = shard_index(index.path, tmp_path / "x.shards", 3)
    counts: list[int] = []
    once = FusedSearcher.images_by_kind

    def counted(*arguments: Any) -> Any:
        counts.append(1)
        return once(*arguments)

    monkeypatch.setattr(FusedSearcher, "images_by_kind", counted)
    searcher = ShardedFusedSearcher(sharded.path)
    for query in queries():
        searcher.search(query, 5)
    assert len(counts) == 3 * len(queries())
    hosts: Any = searcher.hosted.hosts
    assert len(hosts._hosts) == 3 and not any(host._by_token for host in hosts._hosts.values())


@pytest.mark.parametrize("methods", [("greatest", "fused"), ("fused",)])
def test_a_shard_that_is_away_is_an_error_or_named(tmp_path: Path, methods: tuple[str, ...]) -> None:
    index = named_fused_index(tmp_path)
    sharded = shard_index(index.path, tmp_path / "x.shards", 2)
    hosted = HostedIndex(sharded.path, ForgetfulHosts(1, methods))
    with pytest.raises(StorageError, match="shard-0002 did not answer"):
        ShardedFusedSearcher(hosted).search(queries()[0])
    with pytest.warns(AsmkWarning, match="lacks the images of the shard shard-0002"):
        found = ShardedFusedSearcher(hosted, allow_partial=True).search(queries()[0], None)
    assert missing_shards(found) == ("shard-0002",)
    there = sharded.shards[0]
    assert {hit.name for hit in found} <= set(there.names)
    if "greatest" in methods:  # as if its images had never been indexed
        assert found == FusedSearcher(there).search(queries()[0], None)
    whole = ShardedFusedSearcher(sharded.path).search(queries()[0], None)
    assert isinstance(whole, ShardedHits) and whole.missing == ()


def test_what_does_not_fit_is_one_line(tmp_path: Path) -> None:
    index = named_fused_index(tmp_path)
    hosted = HostedIndex(shard_index(index.path, tmp_path / "x.shards", 2).path, LocalHosts(1))
    with pytest.raises(InputError, match="search it with ShardedFusedSearcher"):
        ShardedSearcher(hosted)
    assert isinstance(searcher_of_shards(hosted), ShardedFusedSearcher)
    with pytest.raises(InputError, match=r"weights are \[1.0\] for 2 kinds"):
        ShardedFusedSearcher(hosted, weights=[1.0])
    with pytest.raises(InputError, match="multiple_assignment is 0"):
        ShardedFusedSearcher(hosted, multiple_assignment=0)
    with pytest.raises(MismatchError, match="features of 1 kinds"):
        ShardedFusedSearcher(hosted).search(FusedFeatures((None,)))


def test_kinds_lack_what_the_index_lacks(tmp_path: Path) -> None:
    index = named_fused_index(tmp_path)
    hosted = HostedIndex(shard_index(index.path, tmp_path / "x.shards", 4).path, LocalHosts(1))
    for name in index.names:
        here, there = index.snapshot.find(name), hosted.snapshot.find(name)
        assert here is not None and there is not None
        assert hosted.snapshot.lacking(there) == index.snapshot.lacking(here)


def test_few_queries_are_kept(tmp_path: Path) -> None:
    index = named_fused_index(tmp_path)
    sharded = shard_index(index.path, tmp_path / "x.shards", 2)
    hosted = HostedIndex(sharded.path, LocalHosts(1))
    shard: PinnedShard = hosted.snapshot.pinned[0]
    host = ShardHost(1)
    options = ShardedFusedSearcher(hosted)._options
    for number in range(20):
        host.greatest(shard, queries()[0], bytes([number]), options, None)
    assert len(host._by_token) == 8


def test_images_without_descriptors_are_counted_over_all_shards(tmp_path: Path) -> None:
    """Feature sets that are gone: an error if none is left, and a warning if some are, as of one index."""
    index, asked = located(tmp_path)
    sharded = shard_index(index.path, tmp_path / "x.shards", 4)
    by_descriptors = Reranking.by_descriptors(12)
    (tmp_path / "places").rename(tmp_path / "away")
    for searcher in (FusedSearcher(index), ShardedFusedSearcher(sharded.path)):
        with pytest.raises(NotFoundError, match=r"has no descriptors of 'image \d+.jpg'; bring the feature set back"):
            searcher.search(asked[0], 6, rerank=by_descriptors)
    names = ShardedFusedSearcher(sharded.path).search(asked[0], 12)
    kept = {hit.name for hit in names[:5]}
    with FeatureWriter(tmp_path / "places", index.snapshot.encoder.kinds[0].recipe, DIM) as writer:
        for name, features, source in _of_set(tmp_path / "away"):
            if name in kept:
                writer.add(name, features, source, HERE)
    found = []
    for searcher in (FusedSearcher(index), ShardedFusedSearcher(sharded.path)):
        with pytest.warns(AsmkWarning, match="has no descriptors of 7 of the 12 images to verify"):
            found.append(searcher.search(asked[0], 6, rerank=by_descriptors))
    assert found[0] == found[1]


def _of_set(path: Path) -> list[tuple[str, Features, Source]]:
    features = FeatureSet.open(path)
    return [(name, features.read(name), features.source(name)) for name in features.names]


def test_the_index_as_the_asking_process_sees_it(tmp_path: Path) -> None:
    index = named_fused_index(tmp_path)
    hosted = HostedIndex(shard_index(index.path, tmp_path / "x.shards", 2).path, LocalHosts(1))
    assert hosted.recipe == index.recipe and hosted.images == index.images and hosted.names == index.names
    assert [view.encoder.fingerprint for view in hosted.snapshot.views] == [
        kind.encoder.fingerprint for kind in index.snapshot.encoder.kinds
    ]
