"""A sharded index answers and changes as one index with all its images, bit for bit."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asmk_engine.errors import AsmkError, InputError, MismatchError, NotFoundError, StorageError
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.maintenance.checking import check_index
from asmk_engine.maintenance.sharded_checking import check_sharded
from asmk_engine.sharding.index import ShardedIndex
from asmk_engine.sharding.layout import join_shards, move_shard, shard_index, split_shard
from asmk_engine.sharding.search import ShardedSearcher
from asmk_engine.sharding.slots import SLOTS, even_spans, owners_of, slot_of, slots_in, spans_of
from asmk_engine.storage.folder import WriterLock
from asmk_engine.verification.reranking import Reranking
from disks import fast_disk
from geometry_samples import made, photographs
from samples import random_codebook, random_images, write_features
from sharding_samples import DIM, PAIRS, WORDS, answers, local_pair


def test_slots_never_change() -> None:
    """They are on disk: another hash would make every name belong elsewhere."""
    for name in ("a.jpg", "folder/ü.jpg", ""):
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        assert slot_of(name.encode()) == sum(byte << 8 * place for place, byte in enumerate(digest)) % 4096
    assert (slot_of(b"a.jpg"), SLOTS) == (2046, 4096)


@given(st.sets(st.integers(0, SLOTS - 1)))
def test_ranges_hold_their_slots(slots: set[int]) -> None:
    spans = spans_of(slots)
    assert slots_in(spans) == sorted(slots) and all(one[1] < other[0] for one, other in itertools.pairwise(spans))


@pytest.mark.parametrize("shards", [1, 3, 7, SLOTS])
def test_slots_are_divided_evenly(shards: int) -> None:
    counts = np.bincount(owners_of(even_spans(shards)), minlength=shards)
    assert counts.sum() == SLOTS and counts.max() - counts.min() <= 1


@pytest.mark.parametrize("spans", [[((0, 5),)], [((0, SLOTS),), ((7, 9),)], [((0, SLOTS + 1),)], []])
def test_a_slot_belongs_to_exactly_one_shard(spans: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"slots? \d+"):
        owners_of(spans)


@pytest.mark.parametrize("kind", list(PAIRS))
def test_shards_answer_as_one_index(tmp_path: Path, kind: str) -> None:
    pair = PAIRS[kind](tmp_path)
    for shards in (1, 3, 8):
        sharded = shard_index(pair.index.path, tmp_path / f"{shards}.shards", shards)
        assert len(sharded.shards) == shards and sharded.images == pair.index.images == len(sharded)
        for top in (1, 4, None):
            assert answers(pair, sharded, top) == answers(pair, pair.index, top)
        assert all(name in sharded for name in pair.index.names) and "no such image" not in sharded
        assert [sharded.identity(name) for name in pair.index.names] == [
            pair.index.identity(name) for name in pair.index.names
        ]
        assert check_sharded(sharded.path).clean and all(check_index(shard.path).clean for shard in sharded.shards)


@pytest.mark.parametrize("kind", ["local", "global"])
def test_scattered_searches_answer_as_one_index(tmp_path: Path, kind: str) -> None:
    pair = PAIRS[kind](tmp_path)
    whole = pair.searcher(pair.index)
    sharded = shard_index(pair.index.path, tmp_path / "x.shards", 3)
    searcher = ShardedSearcher(sharded.path, getattr(whole, "match", None))
    for top in (1, 3, None):
        assert searcher.search(pair.queries, top) == whole.search(pair.queries, top)
    assert searcher.search(pair.queries[0]) == whole.search(pair.queries[0])
    assert searcher.scores(pair.queries[1]) == whole.scores(pair.queries[1])
    assert searcher.search_name("twin 3", 5) == whole.search_name("twin 3", 5)
    ranked, expected = searcher.rank(pair.queries[0]), whole.rank(pair.queries[0])
    numbers, known = searcher.image_numbers(pair.index.names), whole.image_numbers(pair.index.names)
    names, of = ({number: name for name, number in found.items()} for found in (numbers, known))
    assert [names[number] for number in ranked.numbers] == [of[number] for number in expected.numbers]
    assert ranked.scores.tolist() == expected.scores.tolist()
    assert searcher.hosted.names == pair.index.names and "twin 1" in searcher.hosted
    assert searcher.hosted.identity("twin 1") == pair.index.identity("twin 1")


@pytest.mark.parametrize("reranking", [Reranking(7), Reranking(5, expansions=2), Reranking.by_descriptors(6)])
def test_images_are_verified_where_their_geometry_is(tmp_path: Path, reranking: Reranking) -> None:
    images = photographs(40, 2, 40)
    whole = made(tmp_path / "w.index", images, postings=60)
    sharded = shard_index(whole.path, tmp_path / "x.shards", 4)
    queries = list(images.values())[:5]
    found = ShardedSearcher(sharded.path).search(queries, 6, rerank=reranking)
    expected = Searcher(whole).search(queries, 6, rerank=reranking)
    assert found == expected
    for one, other in zip(found, expected, strict=True):
        for hit, same in zip(one, other, strict=True):
            assert (hit.verdict, hit.probability) == (same.verdict, same.probability)
            assert [match and match.inliers for match in hit.matches] == [
                match and match.inliers for match in same.matches
            ]


def test_a_global_index_has_nothing_to_verify(tmp_path: Path) -> None:
    pair = PAIRS["global"](tmp_path)
    sharded = shard_index(pair.index.path, tmp_path / "x.shards", 2)
    with pytest.raises(InputError, match="no places"):
        ShardedSearcher(sharded.path).search(pair.queries[0], rerank=3)
    fused = PAIRS["fused"](tmp_path)
    several = shard_index(fused.index.path, tmp_path / "f.shards", 2)
    with pytest.raises(InputError, match="search it with ShardedFusedSearcher"):
        ShardedSearcher(several.path)


@pytest.mark.parametrize("kind", list(PAIRS))
def test_shards_are_split_joined_and_moved(tmp_path: Path, kind: str) -> None:
    pair = PAIRS[kind](tmp_path)
    expected = answers(pair, pair.index)
    home = shard_index(pair.index.path, tmp_path / "x.shards", 2).path

    def same(shards: int) -> ShardedIndex:
        found = ShardedIndex.open(home)
        assert len(found.shards) == shards and answers(pair, found) == expected
        assert check_sharded(home).clean, check_sharded(home).findings
        return found

    assert split_shard(home, "shard-0001") == "shard-0003"
    same(3)
    apart = split_shard(home, "2", tmp_path / "node2" / "part")
    assert apart == str(tmp_path / "node2" / "part")
    before = same(4)
    move_shard(home, "1", tmp_path / "node3")
    assert not (home / "shard-0001").exists() and (tmp_path / "node3").is_dir()
    assert answers(pair, before) == expected  # a reader keeps what it has mapped
    same(4)
    join_shards(home, apart, "shard-0003")
    assert not (tmp_path / "node2" / "part").exists()
    same(3)
    join_shards(home, "1", "2"), join_shards(home, "1", "2")
    same(1)
    (tmp_path / "node4").mkdir()
    for _ in range(3):
        split_shard(home, "1")
    same(4)
    with pytest.raises(NotFoundError, match="has no shard 'x'"):
        split_shard(home, "x")
    with pytest.raises(InputError, match="same shard"):
        join_shards(home, "1", "1")
    with pytest.raises(InputError, match="not empty"):
        split_shard(home, "1", tmp_path)
    same(4)


def test_a_shard_that_was_moved_by_hand_is_found_again(tmp_path: Path) -> None:
    pair = local_pair(tmp_path)
    home = shard_index(pair.index.path, tmp_path / "x.shards", 3).path
    (home / "shard-0002").rename(tmp_path / "there")
    with pytest.raises(NotFoundError, match="shard-0002 is missing"):
        ShardedIndex.open(home)
    assert [finding.file for finding in check_sharded(home).findings] == ["shard-0002"]
    move_shard(home, "shard-0002", tmp_path / "there")
    assert answers(pair, ShardedIndex.open(home)) == answers(pair, pair.index)


def test_changes_are_those_of_one_index(tmp_path: Path) -> None:
    pair = local_pair(tmp_path)
    home = shard_index(pair.index.path, tmp_path / "x.shards", 3).path
    one, other = pair.index, ShardedIndex.open(home)
    images = random_images(70, DIM, 3)
    more = write_features(tmp_path / "more", images)
    for existing in ("skip", "update"):
        assert other.add(more, existing=existing, segment_postings=40) == one.add(more, existing=existing)
        assert answers(pair, other) == answers(pair, one)
    with pytest.raises(InputError, match="already in the index"):
        other.add(more)
    few = write_features(tmp_path / "few", dict(list(images.items())[:20]))
    assert (
        other.add(few, existing="replace", prune=True).removed == one.add(few, existing="replace", prune=True).removed
    )
    assert answers(pair, other) == answers(pair, one) and other.names == sorted(list(images)[:20])
    gone = [*other.names[2:9], other.names[2]]
    assert other.delete(gone) == one.delete(gone) == 7
    with pytest.raises(NotFoundError, match="nothing was deleted"):
        other.delete([other.names[0], gone[0]])
    assert other.delete(["unknown"], missing_ok=True) == 0
    assert other.restore(gone[:3]) == one.restore(gone[:3])
    with pytest.raises(InputError, match="nothing was restored"):
        other.restore([gone[0], gone[5]])
    with pytest.raises(NotFoundError, match="nothing was restored"):
        other.restore([gone[5], "unknown"])
    assert answers(pair, other) == answers(pair, one)
    assert other.merge() > len(other.shards) and one.merge() >= 1
    assert answers(pair, other) == answers(pair, one) == answers(pair, ShardedIndex.open(home))
    assert check_sharded(home).clean and sum(len(shard.snapshot.segments) for shard in other.shards) <= 3


def test_many_images_are_several_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asmk_engine.sharding.addition.COMMIT_IMAGES", 20)
    one = Index.create(tmp_path / "one", random_codebook(WORDS, DIM))
    home = shard_index(one.path, tmp_path / "x.shards", 3).path
    other, images = ShardedIndex.open(home), random_images(50, DIM)
    done: list[tuple[int, int]] = []
    summary = other.add(images.items(), recipe=one.recipe, on_image=lambda *progress: done.append(progress))
    assert summary.added == 50 and other.manifest.commit == 4 and done[-1] == (50, 50)
    assert [count for count, _ in done] == list(range(1, 51))
    assert one.add(images.items(), recipe=one.recipe).added == 50 and other.names == one.names


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["add", "delete", "restore", "merge", "split", "join", "move"]), st.integers(0, 10**6)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_any_operations_keep_both_equal(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, operations: list[tuple[str, int]]
) -> None:
    fast_disk(monkeypatch)
    folder = tmp_path_factory.mktemp("operations")
    pair = local_pair(folder)
    one, other = pair.index, shard_index(pair.index.path, folder / "x.shards", 2)
    for place, (what, seed) in enumerate(operations):
        names = [name for number, name in enumerate(sorted(pair.images)) if (seed >> number % 17) & 1]
        shards = len(other.shards)
        if what == "add":
            for index in (one, other):
                new = random_images(5, DIM, seed)
                index.add(
                    {f"{seed} {name}": image for name, image in new.items()}.items(), recipe=one.recipe, existing="skip"
                )
        elif what == "delete":
            assert one.delete(names, missing_ok=True) == other.delete(names, missing_ok=True)
        elif what == "restore":
            _restore_both(one, other, names)
        elif what == "merge":
            one.merge(), other.merge()
        elif what == "split":
            split_shard(other.path, str(seed % shards + 1), folder / f"{place}" if seed % 2 else None)
        elif what == "join" and shards > 1:
            join_shards(other.path, str(seed % shards + 1), str((seed + 1) % shards + 1))
        elif what == "move":
            move_shard(other.path, str(seed % shards + 1), folder / f"moved {place}")
        other.refresh()
        assert answers(pair, other) == answers(pair, one)
    assert check_sharded(other.path).clean


def _restore_both(one: Index, other: ShardedIndex, names: list[str]) -> None:
    """A deleted image can be restored until its segment is merged, which shards do at other times."""
    there = [name for name in names if name not in one]
    both = [
        name for name in there
        if one.snapshot.find_deleted([name]) and other.shard_of(name).snapshot.find_deleted([name])
    ]  # fmt: skip
    assert one.restore(both) == other.restore(both)


def test_a_shard_is_changed_by_its_index_only(tmp_path: Path) -> None:
    pair = local_pair(tmp_path)
    sharded = shard_index(pair.index.path, tmp_path / "x.shards", 2)
    alone = Index.open(sharded.shards[0].path)
    assert Searcher(alone).search(pair.queries[0])  # it can be searched alone
    for change in (lambda: alone.delete([alone.names[0]]), alone.merge, lambda: alone.keep_geometry(3)):
        with pytest.raises(InputError, match="a shard of the sharded index"):
            change()
    with pytest.raises(InputError, match="a shard of the sharded index"):
        shard_index(alone.path, tmp_path / "y.shards", 2)
    with pytest.raises(InputError, match="has shards already"):
        shard_index(sharded.path, tmp_path / "y.shards", 2)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    pair = local_pair(tmp_path)
    sharded = shard_index(pair.index.path, tmp_path / "x.shards", 2)
    with WriterLock(sharded.path), pytest.raises(StorageError, match="another process is writing"):
        sharded.delete([sharded.names[0]])
    assert sharded.delete([sharded.names[0]]) == 1


def test_geometry_is_kept_by_all_shards(tmp_path: Path) -> None:
    pair = local_pair(tmp_path)
    sharded = shard_index(pair.index.path, tmp_path / "x.shards", 2)
    sharded.keep_geometry("all")
    assert ShardedIndex.open(sharded.path).geometry == sharded.geometry is not None


@pytest.mark.parametrize("count", [0, 1025])
def test_the_number_of_shards_has_limits(tmp_path: Path, count: int) -> None:
    with pytest.raises(InputError, match="give 1 to 1024"):
        shard_index(local_pair(tmp_path).index.path, tmp_path / "x.shards", count)


def test_a_folder_that_is_taken_stays_as_it_is(tmp_path: Path) -> None:
    pair = local_pair(tmp_path)
    home = shard_index(pair.index.path, tmp_path / "x.shards", 2).path
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full" / "shard-0001").mkdir(parents=True)
    (tmp_path / "full" / "shard-0001" / "mine.txt").write_text("mine")
    for place in (home, tmp_path / "file", tmp_path / "full", tmp_path):
        with pytest.raises(AsmkError, match=r"in the way|not empty"):
            shard_index(pair.index.path, place, 2)
    assert ShardedIndex.open(home).images == pair.index.images and (tmp_path / "file").read_text() == "mine"


def test_another_index_in_the_place_of_a_shard_is_told(tmp_path: Path) -> None:
    pair = local_pair(tmp_path)
    home = shard_index(pair.index.path, tmp_path / "x.shards", 2).path
    (home / "shard-0002").rename(tmp_path / "away")
    Index.create(home / "shard-0002", random_codebook(WORDS, DIM, seed=9))
    with pytest.raises(MismatchError, match="another index than the shard shard-0002"):
        ShardedIndex.open(home)
    with pytest.raises(MismatchError, match="another index than the shard"):
        split_shard(home, "1")
