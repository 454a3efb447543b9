"""Shards that actors of a cluster answer for: the answers of one index, whatever dies, stops or stays away."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from asmk_engine.cli import commands
from asmk_engine.cluster.ray_hosts import RayHosts
from asmk_engine.cluster.search_actors import ShardActor
from asmk_engine.cluster.search_options import HostingOptions
from asmk_engine.cluster.searching import open_on_cluster
from asmk_engine.errors import AsmkWarning, InputError, MismatchError, NotFoundError, StorageError
from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.fused.search import FusedSearcher
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher, SelectiveMatch
from asmk_engine.search.turned import UPRIGHT
from asmk_engine.serve.metadata import Metadata
from asmk_engine.serve.options import ServeOptions
from asmk_engine.serve.questions import Asked, Described, Question, Searches
from asmk_engine.serve.shelf import open_shelf
from asmk_engine.sharding.asking import ShardedHits
from asmk_engine.sharding.fused_search import searcher_of_shards
from asmk_engine.sharding.hosted_index import HostedIndex
from asmk_engine.sharding.hosts import ScoringOptions
from asmk_engine.sharding.index import ShardedIndex
from asmk_engine.sharding.layout import shard_index
from asmk_engine.sharding.search import ShardedSearcher
from asmk_engine.verification.reranking import Reranking
from clusters import TestedCluster
from geometry_samples import made, photographs
from sharding_samples import FUSED_IMAGES, named_fused_index

pytest.importorskip("ray", reason="ray is not installed, which runs clusters: pip install 'asmk-engine[ray]'")

IDF = SelectiveMatch(idf=True)
IMAGES = photographs(40, 2, 40)
QUERIES = list(IMAGES.values())[:4]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """An index with geometry."""
    return made(tmp_path_factory.mktemp("whole") / "w.index", IMAGES, postings=60)


@pytest.fixture(scope="module")
def home(whole: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same index in two shards, which no test changes."""
    return shard_index(whole.path, tmp_path_factory.mktemp("sharded") / "x.shards", 2).path


@pytest.fixture(scope="module")
def hosted(cluster: TestedCluster, home: Path) -> Iterator[HostedIndex]:
    """Two actors of each shard; a slow one is helped by the other after a moment."""
    index = open_on_cluster(home, options=HostingOptions(replicas=2, deadline=120, hedge=0.3, threads=1))
    yield index
    index.hosts.close()  # type: ignore[attr-defined]


def process_of(hosted: HostedIndex, shard: int, replica: int) -> int:
    """The process of an actor."""
    import ray

    pinned = hosted.snapshot.pinned
    actor = hosted.hosts._places.of(pinned[shard], pinned)[replica].actor  # type: ignore[attr-defined]
    return int(ray.get(actor.__ray_call__.remote(lambda self: os.getpid())))


@pytest.mark.parametrize("rerank", [None, 7, Reranking(5, expansions=1), Reranking.by_descriptors(6)])
def test_actors_answer_as_one_index(hosted: HostedIndex, whole: Index, rerank: Any) -> None:
    found = ShardedSearcher(hosted, IDF).search(QUERIES, 6, rerank=rerank)
    assert found == Searcher(whole, IDF).search(QUERIES, 6, rerank=rerank)
    assert all(isinstance(hits, ShardedHits) and hits.missing == () for hits in found)


def test_names_and_places_come_from_the_hosts(hosted: HostedIndex, whole: Index) -> None:
    assert hosted.names == whole.names and len(hosted) == len(whole) and "image 001.jpg" in hosted
    assert hosted.identity("image 001.jpg") == whole.identity("image 001.jpg") and hosted.identity("x") is None
    searcher, single = ShardedSearcher(hosted), Searcher(whole)
    assert searcher.scores(QUERIES[0]) == single.scores(QUERIES[0])
    assert searcher.search_name("image 005.jpg", None) == single.search_name("image 005.jpg", None)
    place = hosted.snapshot.find("image 007.jpg")
    assert place is not None and hosted.snapshot.find("x") is None


def test_a_killed_actor_is_started_again_and_another_answers_meanwhile(hosted: HostedIndex, whole: Index) -> None:
    searcher, expected = ShardedSearcher(hosted, IDF), Searcher(whole, IDF).search(QUERIES, 6)
    killed = process_of(hosted, 0, 0)
    os.kill(killed, signal.SIGKILL)
    assert searcher.search(QUERIES, 6) == expected
    end = time.monotonic() + 120
    while True:
        try:
            assert process_of(hosted, 0, 0) != killed
            break
        except Exception:
            assert time.monotonic() < end
            time.sleep(0.5)
    assert searcher.search(QUERIES, 6) == expected


def test_all_actors_of_a_shard_may_die(hosted: HostedIndex, whole: Index) -> None:
    for replica in (0, 1):
        os.kill(process_of(hosted, 1, replica), signal.SIGKILL)
    assert ShardedSearcher(hosted, IDF).search(QUERIES, 6) == Searcher(whole, IDF).search(QUERIES, 6)


def test_a_replica_helps_a_slow_actor(hosted: HostedIndex, whole: Index) -> None:
    searcher, expected = ShardedSearcher(hosted, IDF), Searcher(whole, IDF).search(QUERIES, 6)
    assert searcher.search(QUERIES, 6) == expected
    stopped = [process_of(hosted, 0, replica) for replica in (0, 1)]
    for process in stopped:
        os.kill(process, signal.SIGSTOP)
        try:
            assert searcher.search(QUERIES, 6) == expected
        finally:
            os.kill(process, signal.SIGCONT)


def test_a_shard_that_stays_away_is_an_error_or_named(cluster: TestedCluster, whole: Index, tmp_path: Path) -> None:
    home = shard_index(whole.path, tmp_path / "x.shards", 2).path
    sharded = ShardedIndex.open(home)
    there, away = sharded.shards
    expected = Searcher(whole).search(QUERIES, None)
    names = set(away.names)
    shutil.move(home / "shard-0002", tmp_path / "away")
    index = open_on_cluster(home, options=HostingOptions(deadline=120, threads=1))
    signatures = [Searcher(whole).sign(query) for query in QUERIES]
    index.hosts.ask("best", {0: (signatures, 3, ScoringOptions(), None)}, index.snapshot.pinned)  # it is there now
    index.hosts._options = HostingOptions(deadline=4)  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match=r"the shard shard-0002 did not answer \(no node can read"):
        ShardedSearcher(index).search(QUERIES, 3)
    with pytest.raises(StorageError, match="shard-0002 did not answer"):
        ShardedSearcher(index, IDF, allow_partial=True).search(QUERIES, 3)  # the words of all images are not known
    with pytest.warns(AsmkWarning, match="lacks the images of the shard shard-0002"):
        found = ShardedSearcher(index, allow_partial=True).search(QUERIES, None)
    for hits, others in zip(found, expected, strict=True):
        assert hits == [hit for hit in others if hit.name not in names]
        assert isinstance(hits, ShardedHits) and hits.missing == ("shard-0002",)
    shutil.move(tmp_path / "away", home / "shard-0002")
    index.hosts._options = HostingOptions(deadline=120)  # type: ignore[attr-defined]
    assert ShardedSearcher(index).search(QUERIES, None) == expected
    sharded.delete(there.names[:4])
    index.refresh()
    assert index.names == sharded.names
    assert ShardedSearcher(index, IDF).search(QUERIES, 5) == Searcher(sharded, IDF).search(QUERIES, 5)
    index.hosts.close()  # type: ignore[attr-defined]


def test_a_node_that_is_lost_costs_no_answer(cluster: TestedCluster, home: Path, whole: Index) -> None:
    node = cluster.add_node(1)
    index = open_on_cluster(home, options=HostingOptions(replicas=2, deadline=120, threads=1))
    pinned = index.snapshot.pinned
    replicas = [index.hosts._places.of(one, pinned) for one in pinned]  # type: ignore[attr-defined]
    assert all(len({replica.node for replica in some}) == 2 for some in replicas)
    cluster.remove_node(node)
    assert ShardedSearcher(index).search(QUERIES, 6) == Searcher(whole).search(QUERIES, 6)
    index.hosts.close()  # type: ignore[attr-defined]


def test_the_commands_and_the_server_search_on_a_cluster(cluster: TestedCluster, home: Path, whole: Index) -> None:
    run = CliRunner()
    name = "image 005.jpg"
    found = run.invoke(commands, ["query", str(home), name, "--ray", "--deadline", "120", "--rerank", "5", "-q"])
    expected = run.invoke(commands, ["query", str(whole.path), name, "--rerank", "5", "-q"])
    assert found.exit_code == 0 and found.stdout == expected.stdout != ""
    options = HostingOptions(deadline=120, threads=1)

    def opener(path: Path) -> tuple[Any, Any]:
        index = open_on_cluster(path, options=options)
        return index, ShardedSearcher(index)

    shelf = open_shelf([home], ServeOptions(), Metadata(), opener)
    served = shelf.get("x")
    served.refresh()
    described = [[Described(UPRIGHT, IMAGES[name], (0, 0))]]
    answer = Searches(1).answer(served, Question((Asked(name),), rerank=5), described)
    hits = [hit for hit in Searcher(whole).search(IMAGES[name], 32, rerank=5) if hit.name != name]
    assert [hit for hit, _ in answer.hits] == hits[:30] and answer.notes == []
    assert list(served.names.names) == whole.names and served.commit == 1
    served.index.hosts.close()


def test_several_kinds_of_features_are_searched_on_a_cluster(cluster: TestedCluster, tmp_path: Path) -> None:
    """Shards tell their best scores first; every request may go to another actor."""
    whole = named_fused_index(tmp_path)
    queries = [FusedFeatures(parts) for parts in FUSED_IMAGES.values()][:5]
    home = shard_index(whole.path, tmp_path / "f.shards", 2).path
    index = open_on_cluster(home, options=HostingOptions(replicas=2, deadline=120, threads=1))
    expected = FusedSearcher(whole, IDF).search(queries, 5)
    assert searcher_of_shards(index, IDF).search(queries, 5) == expected
    os.kill(process_of(index, 1, 0), signal.SIGKILL)
    assert searcher_of_shards(index, IDF).search(queries, 5) == expected
    name = whole.names[0]
    assert searcher_of_shards(index).search_name(name) == FusedSearcher(whole).search_name(name)
    index.hosts.close()  # type: ignore[attr-defined]
    options = ["--deadline", "120", "--kind-weights", "1,3", "-q"]
    found = CliRunner().invoke(commands, ["query", str(home), name, "--ray", *options])
    single = CliRunner().invoke(commands, ["query", str(whole.path), name, *options[2:]])
    assert found.exit_code == single.exit_code == 0 and found.stdout == single.stdout != ""


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--ray", "--diffusion"], "--ray and --diffusion exclude each other"),
        (["--ray", "--fuse", "other"], "--ray and --fuse exclude each other"),
        (["--replicas", "2"], "--replicas needs --ray"),
        (["--allow-partial"], "--allow-partial needs --ray"),
    ],
)
def test_options_that_exclude_each_other(home: Path, options: list[str], text: str) -> None:
    result = CliRunner().invoke(commands, ["query", str(home), "a.jpg", *options])
    assert result.exit_code == 2 and text in result.output


def test_one_index_has_no_hosts(whole: Index, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is one index, but --ray needs shards"):
        open_on_cluster(whole.path)
    with pytest.raises(NotFoundError, match="no sharded index"):
        open_on_cluster(tmp_path / "nothing")


def test_other_versions_are_refused() -> None:
    with pytest.raises(MismatchError, match=r"asmk-engine .* instead of 0\.0"):
        ShardActor(1, {"asmk-engine": "0.0"})


@pytest.mark.parametrize(
    "wrong", [{"replicas": 0}, {"deadline": 0.0}, {"hedge": -1.0}, {"threads": 0}, {"deadline": float("nan")}]
)
def test_options_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="give"):
        HostingOptions(**wrong)


def test_a_request_that_is_wrong_is_not_sent_again(hosted: HostedIndex) -> None:
    hosts = hosted.hosts
    assert isinstance(hosts, RayHosts)
    began = time.monotonic()
    with pytest.raises(Exception, match=r"several|array|len|object"):
        hosts.ask("matches", {0: (None, None, None, None)}, hosted.snapshot.pinned)
    assert time.monotonic() - began < 100
