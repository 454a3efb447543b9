"""k-means and segments on a cluster: the bits of a local run, whatever is lost on the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from asmk_engine import FeatureSet, Index, Searcher
from asmk_engine.cli import commands
from asmk_engine.cluster import building
from asmk_engine.cluster.building import ClusterBuilder, SegmentOrder, build_segments
from asmk_engine.cluster.clustering import SpreadRows
from asmk_engine.cluster.connecting import connect, versions
from asmk_engine.codebooks.kmeans import kmeans, part_ends
from asmk_engine.errors import MismatchError
from asmk_engine.inverted.building import BuiltSegment, SegmentEncoding
from asmk_engine.maintenance.checking import check_index
from asmk_engine.maintenance.sharded_checking import check_sharded
from asmk_engine.regions.boxes import ImageBoxes, ScoredBox
from asmk_engine.regions.options import RegionOptions
from asmk_engine.sharding.layout import shard_index
from asmk_engine.sharding.search import ShardedSearcher
from clusters import TestedCluster
from samples import random_codebook, random_images, write_features

pytest.importorskip("ray", reason="ray is not installed, which runs clusters: pip install 'asmk-engine[ray]'")

WORDS, DIM, ROOM = 16, 24, 200


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    """The features of eighty images."""
    return write_features(tmp_path_factory.mktemp("built") / "features", random_images(80, DIM, features=20))


def answers(index: Index, features: FeatureSet) -> list[list[tuple[str, float]]]:
    searcher = Searcher(index)
    return [
        [(hit.name, hit.score) for hit in searcher.search(features.read(name), top=100)] for name in features.names[:15]
    ]


@pytest.mark.parametrize(
    ("backend", "count", "words"), [("faiss", 13_000, 200), ("torch", 34_000, 200), ("graph", 9001, 1500)]
)
def test_kmeans_has_the_bits_of_one_process(cluster: TestedCluster, backend: str, count: int, words: int) -> None:
    rng = np.random.default_rng(count)
    descriptors = (rng.normal(size=(count, 16)) + 9 * (rng.random((count, 1)) < 0.01)).astype(np.float32)
    here = kmeans(descriptors, words, rounds=3, seed=2, backend=backend)
    there = kmeans(
        descriptors, words, rounds=3, seed=2, backend=backend,
        spread=lambda rows, kind, many: SpreadRows(connect(), rows, kind, many, least=2000),
    )  # fmt: skip
    assert np.array_equal(here[0], there[0]) and here[1] == there[1]


def test_the_number_of_parts_changes_no_sum(cluster: TestedCluster) -> None:
    rng = np.random.default_rng(0)
    descriptors = (rng.normal(size=(2500, 8)) * 10.0 ** rng.integers(-6, 6, (2500, 1))).astype(np.float32)
    words = rng.integers(0, 30, 2500)
    expected = np.zeros((30, 8))
    for word, descriptor in zip(words, descriptors, strict=True):
        expected[word] += descriptor.astype(np.float64)
    for least in (2500, 1000, 300):
        rows = SpreadRows(connect(), descriptors, "graph", 30, least)
        rows._words = [
            connect().put(words[begin:end].astype(np.int32))
            for begin, end in zip(rows._ends, rows._ends[1:], strict=False)
        ]
        counts, sums = rows.sums(30)
        assert np.array_equal(counts, np.bincount(words, minlength=30)) and np.array_equal(sums, expected)


@pytest.mark.parametrize("backend", ["faiss", "torch", "graph"])
def test_parts_are_whole_products(backend: str) -> None:
    for rows in (1, 19, 4095, 4096, 8191, 8192, 70_001):
        for least in (1, 5000):
            ends = part_ends(rows, least, backend, 5000)
            block = {"faiss": 4096, "torch": (1 << 26) // 5000, "graph": 1}[backend]
            sizes = np.diff([0, *ends])
            assert ends[-1] == rows and (sizes > 0).all() and all(end % block == 0 for end in ends[:-1])
            assert len(ends) == 1 or (sizes >= max(block, least)).all()


def test_kmeans_survives_lost_workers(cluster: TestedCluster) -> None:
    descriptors = np.random.default_rng(5).normal(size=(16_000, 16)).astype(np.float32)
    here = kmeans(descriptors, 600, rounds=3, seed=0, backend="graph")
    with cluster.killing(seed=2, seconds=0.5, most=2):
        there = kmeans(
            descriptors, 600, rounds=3, seed=0, backend="graph",
            spread=lambda rows, kind, many: SpreadRows(connect(), rows, kind, many, least=4000),
        )  # fmt: skip
    assert np.array_equal(here[0], there[0]) and here[1] == there[1]


@pytest.mark.parametrize("kept", ["plain", "geometry", "separate"])
def test_answers_are_those_of_a_local_build(
    cluster: TestedCluster, tmp_path: Path, features: FeatureSet, kept: str
) -> None:
    book = random_codebook(WORDS, DIM)
    options = {"plain": {}, "geometry": {"geometry": 7}, "separate": {"regions": RegionOptions("separate", None)}}[kept]
    boxes = {name: [ScoredBox((0.0, 0.0, 50.0, 60.0))] for name in features.names}
    given = {"boxes": ImageBoxes(boxes)} if kept == "separate" else {}
    here, there = (Index.create(tmp_path / where, book, **options) for where in ("here", "there"))
    seen: list[tuple[int, int]] = []
    assert here.add(features, segment_postings=ROOM, **given).added == 80
    builder = ClusterBuilder(connect())
    done = there.add(features, segment_postings=ROOM, builder=builder, on_image=lambda *at: seen.append(at), **given)
    assert done.added == 80 and seen[-1] == (80, 80) and len(seen) > 3
    assert here.postings == there.postings and answers(here, features) == answers(there, features)
    assert check_index(there.path).findings == ()


def test_shards_are_built_on_the_cluster(cluster: TestedCluster, tmp_path: Path, features: FeatureSet) -> None:
    book = random_codebook(WORDS, DIM)
    here, empty = (Index.create(tmp_path / where, book) for where in ("here", "empty"))
    here.add(features)
    empty.add(features.selected(features.names[:8]))
    there = shard_index(empty.path, tmp_path / "there", 3)
    done = there.add(features, existing="skip", segment_postings=ROOM, builder=ClusterBuilder(connect()))
    assert (done.added, done.unchanged) == (72, 8)
    local, spread = Searcher(here), ShardedSearcher(there.path)
    for name in features.names[:15]:
        found = [
            [(hit.name, hit.score) for hit in searcher.search(features.read(name), top=100)]
            for searcher in (local, spread)
        ]
        assert found[0] == found[1]
    assert check_sharded(there.path).clean


def test_lost_workers_lose_nothing_and_leave_nothing(
    cluster: TestedCluster, tmp_path: Path, features: FeatureSet
) -> None:
    book = random_codebook(WORDS, DIM)
    here, there = (Index.create(tmp_path / where, book) for where in ("here", "there"))
    here.add(features, segment_postings=100)
    with cluster.killing(seed=3, seconds=0.3, most=3):
        there.add(features, segment_postings=100, builder=ClusterBuilder(connect()))
    assert answers(here, features) == answers(there, features)
    assert check_index(there.path).findings == ()


def test_what_was_committed_stays_when_the_build_ends_early(
    cluster: TestedCluster, tmp_path: Path, features: FeatureSet
) -> None:
    index = Index.create(tmp_path / "index", random_codebook(WORDS, DIM))

    def stop(done: int, total: int) -> None:
        if done > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.add(features, segment_postings=ROOM, builder=ClusterBuilder(connect()), on_image=stop)
    index = Index.open(index.path)
    assert 0 < index.images < 80
    done = index.add(features, existing="skip", segment_postings=ROOM, builder=ClusterBuilder(connect()))
    assert done.unchanged + done.added == 80 and index.images == 80
    assert check_index(index.path).findings == ()


def test_a_node_that_does_not_see_the_features_gets_them(
    cluster: TestedCluster, tmp_path: Path, features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = building._orders

    def unseen(*arguments: object) -> object:
        for order in orders(*arguments):
            yield SegmentOrder([(path, size + 1) for path, size in order.parts], order.facts)

    monkeypatch.setattr(building, "_orders", unseen)
    book = random_codebook(WORDS, DIM)
    here, there = (Index.create(tmp_path / where, book) for where in ("here", "there"))
    here.add(features)
    there.add(features, segment_postings=ROOM, builder=ClusterBuilder(connect()))
    assert answers(here, features) == answers(there, features)


def test_a_task_refuses_other_versions_and_files_it_does_not_see(tmp_path: Path) -> None:
    encoding = SegmentEncoding(random_codebook(WORDS, DIM))
    with pytest.raises(MismatchError, match="install the same versions"):
        build_segments(SegmentOrder([], {}), encoding, 10, versions() | {"numba": "0"})


def test_a_built_segment_is_written_as_it_was(tmp_path: Path, features: FeatureSet) -> None:
    encoding = SegmentEncoding(random_codebook(WORDS, DIM), 5)
    images = list(features.images(features.names[:6]))
    (contents,) = encoding.gathered(encoding.encode(images, lambda name: (7, 0)), 10**6)
    built = BuiltSegment.of(contents, WORDS, tmp_path)
    assert not list(tmp_path.iterdir())
    index = Index.create(tmp_path / "index", encoding.codebook, geometry=5)
    index.add(dict(images).items(), recipe=encoding.codebook.recipe)
    name = index.snapshot.manifest.segments[0].file.name
    assert (index.path / name).stat().st_size == len(built.data)
    assert (index.path / name.replace("segment", "geometry")).read_bytes() == built.geometry.tobytes()


def test_the_commands_give_the_same_files_on_a_cluster(cluster: TestedCluster, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(0, 255, (120, 160, 3), np.uint8)).save(photos / f"{number}.png")

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(commands, [str(argument) for argument in arguments])
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    for where, ray in (("here", []), ("there", ["--ray"])):
        folder = tmp_path / where
        run("extract", photos, "-o", folder / "f", "--max-features", 60, "--workers", 1, *ray)
        run("build-codebook", folder / "f", "-o", folder / "book.h5", "--words", 4, *ray)
        run("index", folder / "f", "-o", folder / "index", "--codebook", folder / "book.h5", *ray)
    for name in ("f/part-000000.h5", "book.h5", "index/segment-000001.safetensors"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes(), name
    report = json.loads(run("check", tmp_path / "there/index", "--json"))
    assert report["findings"] == []


def test_options_of_actors_need_a_cluster(tmp_path: Path) -> None:
    for arguments in (["--ray-actors", "2:4"], ["--ray-gpus", "1"], ["--ray", "--ray-actors", "4:2"]):
        result = CliRunner().invoke(commands, ["extract", str(tmp_path), "-o", str(tmp_path / "f"), *arguments])
        assert result.exit_code == 2, result.output
