"""The index: its results do not depend on the order of additions, and bad input damages nothing that is stored."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from asmk_engine.codebooks import Codebook
from asmk_engine.errors import (
    AsmkError,
    DamagedError,
    FormatError,
    InputError,
    MismatchError,
    NotFoundError,
    StorageError,
)
from asmk_engine.features import Features, FeatureSet
from asmk_engine.indexes import image_table
from asmk_engine.indexes.answers import Hit
from asmk_engine.inverted import segment as segments
from asmk_engine.inverted.batch import Batch
from asmk_engine.inverted.comparison import Comparison
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher, SelectiveMatch
from asmk_engine.inverted.signatures import sign, sign_many
from asmk_engine.recipes import Recipe
from asmk_engine.storage.folder import Folder, WriterLock
from samples import RECIPE, make_features, random_codebook, random_images, write_features

DIM, WORDS = 24, 16
MATCHES = [SelectiveMatch(), SelectiveMatch(2.0, 0.25), SelectiveMatch(idf=True)]


@pytest.fixture
def codebook() -> Codebook:
    return random_codebook(WORDS, DIM)


@pytest.fixture
def images() -> dict[str, Features]:
    return random_images(40, DIM)


@pytest.fixture
def index(tmp_path: Path, codebook: Codebook, images: dict[str, Features]) -> Index:
    index = Index.create(tmp_path / "index", codebook)
    index.add(write_features(tmp_path / "features", images))
    return index


def answers(index: Index, queries: dict[str, Features], match: SelectiveMatch, threads: int = 1) -> list[list[Hit]]:
    searcher = Searcher(index, match, multiple_assignment=3, threads=threads)
    return searcher.search(queries.values(), None)


def bits(features: Features, codebook: Codebook, multiple_assignment: int) -> dict[int, list[int]]:
    """word → bits, by the slow twins."""
    words = [naive.nearest_words(d, codebook.centroids, multiple_assignment) for d in features.descriptors]
    sums = naive.aggregate(features.descriptors, words, codebook.centroids)
    return {word: naive.binarise(vector) for word, vector in sums.items()}


@pytest.mark.parametrize("match", MATCHES)
def test_scores_are_those_of_the_paper(index: Index, images: dict[str, Features], match: SelectiveMatch) -> None:
    database = {name: bits(features, index.codebook, 1) for name, features in images.items()}
    weights = naive.idf_weights(list(database.values()), WORDS) if match.idf else None
    searcher = Searcher(index, match, multiple_assignment=3)
    for features in random_images(6, DIM, seed=9).values():
        query = bits(features, index.codebook, 3)
        scores = searcher.scores(features)
        for name, image in database.items():
            expected = naive.asmk_score(query, image, match.alpha, match.threshold, weights)
            assert scores[name] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("match", MATCHES)
def test_answers_do_not_depend_on_segments_order_threads_or_merging(
    tmp_path: Path,
    index: Index,
    images: dict[str, Features],
    match: SelectiveMatch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asmk_engine.indexes.base.TIER_SEGMENTS", 100)
    queries = random_images(10, DIM, seed=5)
    expected = answers(index, queries, match)
    assert any(expected)
    other = Index.create(tmp_path / "other", index.codebook)
    names = list(images)
    np.random.default_rng(0).shuffle(names)
    for part in range(10):
        chosen = {name: images[name] for name in names[part::10]}
        other.add(write_features(tmp_path / f"part-{part}", chosen))
    assert len(other.snapshot.segments) == 10
    assert answers(other, queries, match) == expected
    assert answers(other, queries, match, threads=2) == expected
    other.merge(chunk_postings=50)
    assert len(other.snapshot.segments) == 1
    assert answers(other, queries, match) == expected
    assert answers(Index.open(other.path), queries, match) == expected


def test_segments_stay_few_under_small_adds_and_answers_the_same(
    tmp_path: Path, index: Index, images: dict[str, Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = random_images(5, DIM, seed=5)
    expected = answers(index, queries, SelectiveMatch())
    monkeypatch.setattr(Index, "small_segment", 4)
    other = Index.create(tmp_path / "other", index.codebook)
    for place, (name, features) in enumerate(images.items()):
        other.add(write_features(tmp_path / f"part-{place}", {name: features}))
    assert len(other.snapshot.segments) < 20
    assert other.names == index.names and answers(other, queries, SelectiveMatch()) == expected


def test_segments_stay_logarithmic_after_every_one_of_many_adds(
    tmp_path: Path, codebook: Codebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asmk_engine.storage.system.sync_file", lambda path: None)
    monkeypatch.setattr(Index, "small_segment", 8)
    index = Index.create(tmp_path / "index", codebook)
    signature = sign(make_features(np.random.default_rng(0).normal(size=(9, DIM))), codebook)
    assert 4 <= len(signature) <= 8  # eight images reach the second tier, 64 the third
    for number in range(150):
        index.add_signatures([(f"{number:03d}", signature)])
        tiers = 1 + int(np.log(number + 1) / np.log(8)) + 1
        assert len(index.snapshot.segments) <= 7 * tiers
    assert index.images == 150 and len(index.snapshot.segments) > 1
    assert index.names == [f"{number:03d}" for number in range(150)]


def test_answers_do_not_depend_on_ranges(
    tmp_path: Path, index: Index, images: dict[str, Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = random_images(10, DIM, seed=5)
    expected = answers(index, queries, SelectiveMatch())
    index.delete(list(images)[5:30])
    fewer = answers(index, queries, SelectiveMatch())
    monkeypatch.setattr(segments, "RANGE_BITS", 3)
    for room in ("search", "segment_writer", "merging"):
        monkeypatch.setattr(f"asmk_engine.inverted.{room}.RANGE_BITS", 3)
    ranged = Index.create(tmp_path / "ranged", index.codebook)
    ranged.add(FeatureSet.open(tmp_path / "features"))
    assert ranged.snapshot.segments[0].ranges == 5
    assert answers(ranged, queries, SelectiveMatch()) == expected
    assert answers(ranged, queries, SelectiveMatch(), threads=2) == expected
    ranged.delete(list(images)[5:30])
    ranged.merge(chunk_postings=5)
    assert ranged.snapshot.segments[0].ranges == 2
    assert answers(ranged, queries, SelectiveMatch()) == fewer


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_any_history_answers_as_a_fresh_index_would(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Adds, replacements, deletions and merges in any order, against a dictionary."""
    folder = tmp_path_factory.mktemp("history")
    codebook = random_codebook(WORDS, DIM)
    index = Index.create(folder / "index", codebook)
    pool = random_images(12, DIM, seed=3)
    changed = random_images(12, DIM, seed=4)
    present: dict[str, Features] = {}
    for step in range(data.draw(st.integers(1, 6))):
        action = data.draw(st.sampled_from(["add", "replace", "delete", "merge", "reopen"]))
        names = data.draw(st.lists(st.sampled_from(sorted(pool)), unique=True, min_size=1))
        if action in ("add", "replace"):
            source = changed if action == "replace" else pool
            chosen = {name: source[name] for name in names}
            index.add(
                write_features(folder / f"f{step}", chosen), existing="replace" if action == "replace" else "skip"
            )
            present = {**chosen, **present} if action == "add" else {**present, **chosen}
        elif action == "delete":
            index.delete(names, missing_ok=True)
            present = {name: features for name, features in present.items() if name not in names}
        elif action == "merge":
            index.merge()
        else:
            index = Index.open(index.path)
        assert index.names == sorted(present)
    fresh = Index.create(folder / "fresh", codebook)
    if present:
        fresh.add(write_features(folder / "all", present))
    for match in MATCHES:
        assert answers(index, pool, match) == answers(fresh, pool, match)


def test_ties_are_in_byte_order_and_cut_alike(tmp_path: Path, codebook: Codebook) -> None:
    same = random_images(1, DIM, seed=1, features=12)
    features = next(iter(same.values())) if len(next(iter(same.values()))) else make_features(np.ones((3, DIM)))
    names = ["é.jpg", "b.jpg", "a.jpg", "Z.jpg", "a b.jpg"]
    index = Index.create(tmp_path / "index", codebook)
    for place, name in enumerate(names):
        index.add(write_features(tmp_path / str(place), {name: features}))
    ordered = sorted(names, key=str.encode)
    for top in range(1, 6):
        assert [hit.name for hit in Searcher(index).search(features, top)] == ordered[:top]


def test_several_queries_at_once_get_the_answers_of_each_alone(index: Index, images: dict[str, Features]) -> None:
    more = {f"more {number}": image for number, image in enumerate(random_images(30, DIM, seed=3).values())}
    index.add(write_features(index.path.parent / "more", more))
    for match, top, threads in itertools.product(MATCHES, (1, 7, None), (1, 2, 5)):
        searcher = Searcher(index, match, threads=1)
        alone = [searcher.search(features, top) for features in images.values()]
        assert searcher.search(images.values(), top, threads=threads) == alone
        signed = (searcher.sign(features) for features in images.values())
        assert searcher.search(signed, top, threads=threads) == alone
    assert searcher.search([], 5) == [] and searcher.search(iter([next(iter(images.values()))]), 5)


def test_contents_at_hand_are_added_as_their_images_would_be(
    tmp_path: Path, index: Index, codebook: Codebook, images: dict[str, Features]
) -> None:
    batch = Batch(1)
    for name, features in images.items():
        batch.append(name, sign(features, codebook), 0)
    copy = Index.create(tmp_path / "copy", codebook)
    copy.add_contents(batch.contents())
    assert copy.names == index.names
    assert answers(copy, images, MATCHES[0]) == answers(index, images, MATCHES[0])
    with pytest.raises(InputError, match="already in the index"):
        copy.add_contents(batch.contents())
    copy.add_contents(Batch(1).contents())
    with pytest.raises(MismatchError, match="codes are"):
        copy.add_contents(Batch(2).contents())
    assert copy.images == len(images)


@pytest.mark.parametrize("preloading", [None, [], [10**6], [10**6, 3]])
def test_preloading_changes_no_answer(
    index: Index, images: dict[str, Features], monkeypatch: pytest.MonkeyPatch, preloading: list[int] | None
) -> None:
    if preloading is not None:  # as on systems that know no such advice, or only the old one
        monkeypatch.setattr("asmk_engine.storage.system._PRELOADING", preloading)
    before = Searcher(index).search(images.values(), 5)
    index.preload()
    assert Searcher(index).search(images.values(), 5) == before


def test_a_group_of_queries_ends_where_it_must(
    index: Index, images: dict[str, Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher = Searcher(index)
    alone = [searcher.search(features, 3) for features in images.values()]
    for size in (1, 7, len(images), len(images) + 1):
        monkeypatch.setattr(Searcher, "group_size", size)
        assert searcher.search(images.values(), 3) == alone


def test_an_image_finds_itself_with_score_one(index: Index, images: dict[str, Features]) -> None:
    searcher = Searcher(index, multiple_assignment=1)
    for name, features in images.items():
        hits = searcher.search(features, 1)
        if len(features):
            assert hits[0].score == pytest.approx(1.0) and index.snapshot.find(name)
        else:
            assert hits == []


def test_an_image_without_features_is_indexed_and_never_returned(tmp_path: Path, codebook: Codebook) -> None:
    empty = make_features(np.zeros((0, DIM)))
    index = Index.create(tmp_path / "index", codebook)
    index.add(write_features(tmp_path / "f", {"empty.jpg": empty, "full.jpg": make_features(np.ones((4, DIM)))}))
    assert "empty.jpg" in index and index.images == 2
    for match in MATCHES:
        searcher = Searcher(index, match)
        assert searcher.search(empty) == []
        assert all(
            np.isfinite(hit.score) and hit.name == "full.jpg"
            for hit in searcher.search(make_features(np.ones((2, DIM))))
        )


def test_only_images_without_features(tmp_path: Path, codebook: Codebook) -> None:
    index = Index.create(tmp_path / "index", codebook)
    index.add(write_features(tmp_path / "f", {"empty.jpg": make_features(np.zeros((0, DIM)))}))
    for match in MATCHES:
        assert Searcher(index, match).search(make_features(np.ones((2, DIM)))) == []


def test_existing_names_are_refused_skipped_updated_or_replaced(
    tmp_path: Path, index: Index, images: dict[str, Features]
) -> None:
    with pytest.raises(InputError, match="already in the index"):
        index.add(FeatureSet.open(tmp_path / "features"))
    summary = index.add(FeatureSet.open(tmp_path / "features"), existing="skip")
    assert (summary.added, summary.replaced, summary.unchanged) == (0, 0, 40)
    name = next(name for name, features in images.items() if len(features) > 3)
    changed = {**images, name: make_features(-images[name].descriptors)}
    other = write_features(tmp_path / "changed", changed)
    assert index.add(other, existing="update").replaced == 1
    assert index.images == 40
    assert Searcher(index, multiple_assignment=1).search(changed[name], 1)[0] == Hit(name, pytest.approx(1.0))
    assert index.add(other, existing="replace").replaced == 40
    assert index.images == 40 and sorted(index.names) == sorted(images)


def test_prune_removes_what_vanished(tmp_path: Path, index: Index, images: dict[str, Features]) -> None:
    fewer = dict(list(images.items())[:7])
    summary = index.add(write_features(tmp_path / "fewer", fewer), existing="skip", prune=True)
    assert summary.removed == 33 and index.names == sorted(fewer)
    assert Index.open(index.path).names == sorted(fewer)


def test_delete_takes_effect_at_once_in_every_searcher(index: Index, images: dict[str, Features]) -> None:
    searcher = Searcher(index)
    query = next(features for features in images.values() if len(features) > 3)
    best = searcher.search(query, 1)[0].name
    index.delete([best])
    assert best not in index and best not in [hit.name for hit in searcher.search(query, None)]
    with pytest.raises(NotFoundError, match="nothing was deleted"):
        index.delete([index.names[0], best])
    assert index.images == 39
    before = sum(f.stat().st_size for f in index.path.iterdir())
    index.merge()
    assert sum(f.stat().st_size for f in index.path.iterdir()) < before
    assert index.snapshot.segments[0].deleted is None


def test_full_segments_are_committed_on_the_way(
    tmp_path: Path, codebook: Codebook, images: dict[str, Features]
) -> None:
    index = Index.create(tmp_path / "index", codebook)
    index.add(write_features(tmp_path / "features", images), segment_postings=30)
    assert len(index.snapshot.segments) > 3
    assert index.names == sorted(images)


def test_features_of_another_recipe_or_dimension_are_refused(tmp_path: Path, index: Index) -> None:
    files = sorted(path.name for path in index.path.iterdir())
    other = write_features(tmp_path / "other", random_images(2, DIM), recipe=Recipe("else", {"size": 3}))
    with pytest.raises(MismatchError, match=r"else size=3.*synthetic seed=0"):
        index.add(other, existing="skip")
    wide = write_features(tmp_path / "wide", random_images(2, DIM + 8))
    with pytest.raises(MismatchError, match=f"{DIM + 8} dimensions.*{DIM}"):
        index.add(wide, existing="skip")
    assert sorted(path.name for path in index.path.iterdir()) == files


def test_queries_are_checked(index: Index) -> None:
    searcher = Searcher(index)
    with pytest.raises(MismatchError, match="descriptors"):
        searcher.search(make_features(np.ones((3, DIM + 1))))
    broken = np.ones((3, DIM))
    broken[1, 2] = np.nan
    with pytest.raises(InputError, match="NaN"):
        searcher.search(make_features(broken))
    foreign = sign(make_features(np.ones((3, 3 * 64))), random_codebook(4, 3 * 64))
    with pytest.raises(MismatchError, match="another codebook"):
        searcher.search(foreign)
    for bad in ({"alpha": 0.0}, {"alpha": float("nan")}, {"threshold": -0.1}, {"threshold": 2.0}):
        with pytest.raises(InputError):
            SelectiveMatch(**bad)
    with pytest.raises(InputError):
        Searcher(index, multiple_assignment=0)


def test_a_missing_or_altered_file_is_named(index: Index, tmp_path: Path) -> None:
    for path in sorted(index.path.glob("*.safetensors")):
        copy = tmp_path / "copy"
        shutil.copytree(index.path, copy)
        (copy / path.name).unlink()
        with pytest.raises(DamagedError, match=f"{path.name}.*manifest"):
            Index.open(copy)
        (copy / path.name).write_bytes(path.read_bytes()[:-9])
        with pytest.raises(DamagedError, match=path.name):
            Index.open(copy)
        shutil.rmtree(copy)


def test_either_copy_of_the_manifest_serves(index: Index) -> None:
    names = index.names
    for one, other in (("manifest.json", "manifest.copy.json"), ("manifest.copy.json", "manifest.json")):
        saved = (index.path / one).read_bytes()
        for damage in (b"", saved[:50], saved.replace(b'"commit": 2', b'"commit": 9')):
            (index.path / one).write_bytes(damage)
            assert Index.open(index.path).names == names
        (index.path / one).unlink()
        assert Index.open(index.path).names == names
        (index.path / one).write_bytes(saved)
        assert (index.path / other).exists()


def test_what_is_no_index_is_named(tmp_path: Path, index: Index) -> None:
    with pytest.raises(NotFoundError, match="no such index"):
        Index.open(tmp_path / "nowhere")
    with pytest.raises(FormatError, match="not an index"):
        Index.open(tmp_path / "features")
    from asmk_engine.storage.folder import encode_manifest

    newer = {**index.snapshot.manifest.to_json(), "format": 5}
    for name in ("manifest.json", "manifest.copy.json"):
        (index.path / name).write_bytes(encode_manifest(newer))
    with pytest.raises(FormatError, match="format 5, this version reads 4 and below"):
        Index.open(index.path)


def test_creating_over_something_is_refused(tmp_path: Path, codebook: Codebook) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for target in ("file", "full"):
        with pytest.raises(InputError):
            Index.create(tmp_path / target, codebook)
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


def test_one_writer_at_a_time(index: Index) -> None:
    with WriterLock(index.path), pytest.raises(StorageError, match="another process is writing"):
        index.delete(index.names[:1])
    index.delete(index.names[:1])


def test_leftovers_of_a_killed_writer_are_ignored_and_collected(index: Index) -> None:
    for name in ("segment-000099.safetensors", "segment-000098.safetensors.tmp", "deleted-000001.safetensors"):
        (index.path / name).write_bytes(b"rubbish")
    assert len(Index.open(index.path)) == 40
    index.delete(index.names[:1])
    assert not (index.path / "segment-000099.safetensors").exists()
    assert not list(index.path.glob("*.tmp"))


@pytest.fixture
def failing_sync(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Every write fails as on a full disk once the list is not empty."""
    armed: list[int] = []

    def full(*_: object) -> None:
        if armed:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("asmk_engine.storage.system.sync_file", full)
    yield armed


def test_a_full_disk_harms_nothing(
    tmp_path: Path, index: Index, images: dict[str, Features], failing_sync: list[int]
) -> None:
    more = write_features(
        tmp_path / "more", random_images(3, DIM, seed=8) | {"new.jpg": make_features(np.ones((2, DIM)))}
    )
    names = index.names
    failing_sync.append(1)
    with pytest.raises(StorageError, match="free some space"):
        index.add(more, existing="skip")
    with pytest.raises(StorageError, match="free some space"):
        index.merge() if len(index.snapshot.segments) > 1 else index.delete(names[:1])
    failing_sync.clear()
    assert Index.open(index.path).names == names
    assert "new.jpg" not in index
    index.add(more, existing="skip")
    assert "new.jpg" in index


def test_every_kind_of_name(tmp_path: Path, codebook: Codebook) -> None:
    names = ["a b.jpg", "new\nline.jpg", "tab\t.jpg", "日本.jpg", "-dash", "#hash", "%41", "x" * 300, "é", "e\u0301"]
    index = Index.create(tmp_path / "index", codebook)
    index.add(write_features(tmp_path / "f", {name: make_features(np.ones((2, DIM))) for name in names}))
    assert index.names == sorted(names, key=str.encode)
    assert all(name in index for name in names) and "absent" not in index
    assert {hit.name for hit in Searcher(index).search(make_features(np.ones((2, DIM))), None)} == set(names)


def test_smk_equals_its_twin() -> None:
    codebook = random_codebook(WORDS, DIM)
    images = random_images(8, DIM, seed=2)
    comparison = Comparison(codebook, "smk", SelectiveMatch(), multiple_assignment=2)
    comparison.add(images.items())

    def described(features: Features, k: int) -> list[tuple[int, list[float]]]:
        pairs = [(d, w) for d in features.descriptors for w in naive.nearest_words(d, codebook.centroids, k)]
        signs = [(w, naive.binarise(d - codebook.centroids[w])) for d, w in pairs]
        return [(w, [(2 * bit - 1) / DIM**0.5 for bit in one]) for w, one in signs]

    for query in random_images(4, DIM, seed=6).values():
        scores = comparison.scores(query)
        for name, image in images.items():
            expected = naive.smk_score(described(query, 2), described(image, 1))
            assert scores[name] == pytest.approx(expected, abs=1e-9)


def test_every_error_is_one_line(index: Index) -> None:
    with pytest.raises(AsmkError) as caught:
        index.delete(["nobody"])
    assert "\n" not in str(caught.value)


def test_searching_while_writing_sees_one_commit(index: Index, tmp_path: Path) -> None:
    reader = Index.open(index.path)
    before = reader.names
    query = random_images(3, DIM, seed=5)
    expected = answers(reader, query, SelectiveMatch())
    index.delete(before[:10])
    index.merge()
    assert answers(reader, query, SelectiveMatch()) == expected
    assert Index.open(index.path).names == before[10:]
    assert index.codebook.recipe == RECIPE


def test_a_merge_takes_the_room_of_one_more_copy(tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {f"more {name}": features for name, features in random_images(30, DIM, seed=6).items()}
    index.add(write_features(tmp_path / "more", more))
    index.delete(list(more)[:10])
    sizes: list[int] = []
    replace_manifest = Folder.replace_manifest

    def measured(folder: Folder, *rest: object) -> None:
        sizes.append(sum(path.stat().st_size for path in index.path.glob("segment-*")))
        replace_manifest(folder, *rest)

    before = sum(path.stat().st_size for path in index.path.glob("segment-*"))
    monkeypatch.setattr(Folder, "replace_manifest", measured)
    index.merge()
    (merged,) = index.path.glob("segment-*")  # the old files are gone, the bitmap of deletions too
    assert not list(index.path.glob("deleted-*"))
    assert sizes == [before + merged.stat().st_size] and merged.stat().st_size < before


def test_a_damaged_segment_is_not_merged_into_a_sound_one(
    tmp_path: Path, codebook: Codebook, images: dict[str, Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asmk_engine.storage.arrays.BLOCK", 256)  # so that opening does not see the damage
    index = Index.create(tmp_path / "index", codebook)
    index.add(write_features(tmp_path / "features", images))
    index.delete(index.names[:1])
    path = next(index.path.glob("segment-*"))
    data = bytearray(path.read_bytes())
    place = data.index(index.snapshot.segments[0].codes.tobytes()) + 2000
    data[place] ^= 1
    path.write_bytes(data)
    damaged = Index.open(index.path)
    with pytest.raises(DamagedError, match=f"{path.name}.*altered"):
        damaged.merge()
    assert path.read_bytes() == bytes(data)


def test_lists_out_of_order_are_not_merged(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.delete(index.names[:1])
    (segment,) = index.snapshot.segments
    shuffled = segment.list_words.copy()
    shuffled[:2] = shuffled[1::-1]
    monkeypatch.setattr(segment, "list_words", shuffled)
    monkeypatch.setattr(Index, "refresh", lambda self: None)
    with pytest.raises(DamagedError):
        index.merge(chunk_postings=5)


def test_a_lagging_copy_of_the_manifest_is_brought_up(index: Index) -> None:
    old = (index.path / "manifest.copy.json").read_bytes()
    index.delete(index.names[:1])
    (index.path / "manifest.copy.json").write_bytes(old)
    index = Index.open(index.path)
    index.delete(index.names[:1])
    (index.path / "manifest.json").write_bytes(b"gone")
    assert len(Index.open(index.path)) == 38


def test_a_creation_that_was_killed_can_be_repeated(tmp_path: Path, codebook: Codebook) -> None:
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("lock", "codebook-0123456789ab.safetensors", "manifest.json.tmp"):
        (folder / name).write_bytes(b"half")
    assert len(Index.create(folder, codebook)) == 0
    with pytest.raises(InputError, match="not empty"):
        Index.create(folder, codebook)


def test_another_object_sees_a_commit_after_refresh(index: Index) -> None:
    other = Index.open(index.path)
    index.delete(index.names[:5])
    assert len(other) == 40
    other.refresh()
    assert len(other) == 35


def test_images_signed_side_by_side_are_signed_as_alone(codebook: Codebook, images: dict[str, Features]) -> None:
    for book in (codebook, codebook.with_assignment("graph")):
        signed = list(sign_many(images.items(), book, 2, threads=3))
        assert [name for name, _ in signed] == list(images)
        for name, signature in signed:
            alone = sign(images[name], book, 2)
            assert np.array_equal(signature.words, alone.words) and np.array_equal(signature.codes, alone.codes)


def test_a_commit_maps_only_what_is_new(tmp_path: Path, index: Index) -> None:
    before = index.snapshot
    index.add(write_features(tmp_path / "one", {"one": make_features(np.ones((2, DIM)))}))
    assert index.codebook is before.encoder
    assert index.snapshot.segments[0] is before.segments[0] and len(index.snapshot.segments) == 2
    index.delete(["one", "folder/image 003.jpg"])
    assert index.images == 39 and before.images == 40 and before.find("folder/image 003.jpg")
    index.refresh()
    assert index.codebook is before.encoder and index.images == 39
    shutil.rmtree(index.path)
    Index.create(index.path, random_codebook(WORDS, DIM, seed=5))
    index.refresh()
    assert index.images == 0 and index.codebook.fingerprint != before.encoder.fingerprint


def test_signatures_made_elsewhere_answer_as_added_features_do(
    tmp_path: Path, index: Index, images: dict[str, Features]
) -> None:
    other = Index.create(tmp_path / "other", index.codebook)
    signed = [(name, sign(features, index.codebook)) for name, features in images.items()]
    assert other.add_signatures(signed, segment_postings=30) == len(images)
    queries = random_images(5, DIM, seed=5)
    assert answers(other, queries, SelectiveMatch()) == answers(index, queries, SelectiveMatch())
    with pytest.raises(InputError, match="already in the index"):
        other.add_signatures(signed[:1])
    wide = sign(make_features(np.ones((3, 3 * 64))), random_codebook(4, 3 * 64))
    with pytest.raises(MismatchError, match="codes are"):
        other.add_signatures([("new", wide)])
    assert other.names == index.names


def test_more_images_than_a_segment_holds_are_refused(
    index: Index, images: dict[str, Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the boundary: one segment may hold one image fewer than the limit."""
    monkeypatch.setattr(image_table, "MAX_IMAGES", 42)
    signed = [(f"{number}.jpg", sign(features, index.codebook)) for number, features in enumerate(images.values())]
    monkeypatch.setattr("asmk_engine.indexes.base.TIER_SEGMENTS", 2)
    index.add_signatures(signed[:1])
    assert len(index.snapshot.segments) == 1 and index.images == 41
    index.add_signatures(signed[1:2])
    assert len(index.snapshot.segments) == 2 and index.images == 42  # not joined
    with pytest.raises(InputError, match="too many for one segment"):
        index.merge()
    monkeypatch.setattr(image_table, "MAX_IMAGES", 42 - 5)
    with pytest.raises(DamagedError):
        Index.open(index.path)
    monkeypatch.setattr(image_table, "MAX_IMAGES", 42)
    assert Index.open(index.path).images == 42
    index.delete(["1.jpg"])
    index.merge()
    assert len(index.snapshot.segments) == 1


def test_a_codebook_that_says_too_much_makes_no_index(tmp_path: Path) -> None:
    codebook = random_codebook(WORDS, DIM)
    codebook.training["story"] = "x" * (1 << 20)
    with pytest.raises(InputError, match="header takes"):
        Index.create(tmp_path / "index", codebook)
    del codebook.training["story"]
    assert Index.create(tmp_path / "index", codebook).images == 0
