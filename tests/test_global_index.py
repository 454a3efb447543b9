"""A global index survives what an index of local features survives: kills, power cuts, failures and damage."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asmk_engine.errors import AsmkError, DamagedError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.features import FeatureSet, Source
from asmk_engine.flat import Codec, CodecOptions, GlobalIndex, GlobalSearcher
from asmk_engine.flat.codec_training import train_on
from asmk_engine.flat.segment import VectorContents
from asmk_engine.indexes.additions import AddSummary
from asmk_engine.indexes.answers import Hit
from asmk_engine.indexes.manifest import NAMES as COPIES
from asmk_engine.indexes.manifest import Manifest
from asmk_engine.maintenance.checking import check_index
from asmk_engine.maintenance.repair import repair_index
from asmk_engine.storage.arrays import CHECKSUMS, map_arrays, write_arrays
from asmk_engine.storage.folder import Folder
from disks import CountedDisk, Event, LostDisk, RecordingDisk, fast_disk
from global_histories import CODEC, NAMES, POOL, QUERIES, feature_sets, observe, small_limits, steps, write_on
from global_samples import DIM, RECIPE, global_images, write_global
from histories import Answer, Step
from samples import make_features, write_features


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, FeatureSet]:
    small_limits(monkeypatch)
    with pytest.MonkeyPatch.context() as patch:
        fast_disk(patch)
        return feature_sets(tmp_path / "features")


@pytest.fixture
def path(tmp_path: Path, sets: dict[str, FeatureSet], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two segments, the first with deletions, one of them of an image that the second replaced."""
    fast_disk(monkeypatch)
    index = GlobalIndex.create(tmp_path / "index", CODEC)
    index.add(sets["first"])
    index.delete(NAMES[3:4])
    index.add(sets["changed"], existing="replace")
    assert len(index.snapshot.segments) == 2
    return index.path


def laid_out(events: list[Event], root: Path, target: Path, rng: random.Random | None) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    disk = LostDisk(events, root)
    if rng is None:
        disk.kill()
    else:
        disk.cut_power(rng)
    disk.write_to(target)
    return target / "index"


def commits(events: list[Event], word: str) -> list[int]:
    return [int(event.kind.split()[1]) for event in events if event.kind.startswith(word)]


def recorded(root: Path, sets: dict[str, FeatureSet]) -> list[Event]:
    """The requests of a whole life, with a mark before and after each commit."""
    replace_manifest = Folder.replace_manifest
    with pytest.MonkeyPatch.context() as patch:
        disk = RecordingDisk(patch, root)

        def marked(self: Folder, names: Any, content: dict[str, Any]) -> None:
            disk.mark(f"begun {content['commit']}")
            replace_manifest(self, names, content)
            disk.mark(f"done {content['commit']}")

        patch.setattr(Folder, "replace_manifest", marked)
        for _, step in steps(sets):
            step(root / "index")
    return disk.events


def test_a_kill_or_a_power_cut_leaves_a_commit(
    tmp_path: Path, sets: dict[str, FeatureSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, target = tmp_path / "recorded", tmp_path / "crashed"
    root.mkdir()
    events = recorded(root, sets)
    fast_disk(monkeypatch)
    states = {
        commits([event], "done")[0]: observe(laid_out(events[:place], root, target, None))
        for place, event in enumerate(events)
        if event.kind.startswith("done")
    }
    assert len(states) > 10 and len(set(states.values())) > 6
    cases = [(place, None) for place in range(1, len(events), 7)]
    cases += [(place, random.Random(place)) for place in range(0, len(events) + 1, 6)]  # type: ignore[misc]
    for count, (end, rng) in enumerate(cases):
        path, cut = laid_out(events[:end], root, target, rng), events[:end]
        done = commits(cut, "done")
        try:
            commit = GlobalIndex.open(path).snapshot.manifest.commit
        except (NotFoundError, FormatError):
            assert not done
            GlobalIndex.create(path, CODEC)
        else:
            assert commit in {*done[-1:], *commits(cut, "begun")[-1:]}
            assert observe(path) == states[commit] and check_index(path).clean
        if count % 5 == 0:
            write_on(path, sets["next"])
    assert len(cases) > 80


def states_of(step: Step, path: Path) -> dict[int, Answer]:
    """What is seen at the commit before a step, and at each that it makes; the step is done."""
    states = {}
    publish = GlobalIndex._publish

    def observed(self: GlobalIndex, manifest: Manifest) -> None:
        publish(self, manifest)
        states[manifest.commit] = observe(path)

    if path.exists():
        states[GlobalIndex.open(path).snapshot.manifest.commit] = observe(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GlobalIndex, "_publish", observed)
        step[1](path)
    states[GlobalIndex.open(path).snapshot.manifest.commit] = observe(path)
    return states


def test_any_request_may_fail(tmp_path: Path, sets: dict[str, FeatureSet], monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)
    path, before, broken = tmp_path / "index", tmp_path / "before", tmp_path / "broken"
    cases = 0
    for step in steps(sets):
        if path.exists():
            shutil.copytree(path, before)
        states = states_of(step, path)
        number, there = 1 + cases % 9, True
        while there:
            shutil.rmtree(broken, ignore_errors=True)
            if before.exists():
                shutil.copytree(before, broken)
            there = fails(step, broken, number)
            try:
                commit = GlobalIndex.open(broken).snapshot.manifest.commit
            except (NotFoundError, FormatError):
                assert 1 in states
                GlobalIndex.create(broken, CODEC)
            else:
                assert observe(broken) == states[commit] and check_index(broken).clean
            write_on(broken, sets["next"])
            cases, number = cases + 1, number + 9
        shutil.rmtree(before, ignore_errors=True)
    assert cases > 50


def fails(step: Step, path: Path, number: int) -> bool:
    """Do a step whose request `number` fails; returns whether there was one."""
    code = (errno.ENOSPC, errno.EIO, errno.EMFILE)[number % 3]

    def react(count: int) -> None:
        if count == number:
            raise OSError(code, os.strerror(code))

    with pytest.MonkeyPatch.context() as patch:
        disk = CountedDisk(patch, react)
        try:
            step[1](path)
        except AsmkError as error:
            assert "\n" not in str(error)
    return disk.count >= number


def test_a_life_is_clean_after_every_step(tmp_path: Path, sets: dict[str, FeatureSet]) -> None:
    for _, step in steps(sets):
        step(tmp_path / "index")
        for fast in (False, True):
            assert check_index(tmp_path / "index", fast=fast).findings == ()
    assert not repair_index(tmp_path / "index", write=True).done


def told(path: Path, fast: bool = False) -> list[str]:
    return [finding.file for finding in check_index(path, fast=fast).findings if finding.kind != "note"]


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-20 if path.suffix == ".json" else 2 * len(data) // 3] ^= 1
    path.write_bytes(data)


def test_every_altered_file_is_named(path: Path) -> None:
    for file in sorted(path.iterdir()):
        if file.name != "lock":
            whole = file.read_bytes()
            damage(file)
            assert told(path) == [file.name]
            file.write_bytes(whole[: len(whole) // 2])
            assert told(path) == [file.name]
            file.unlink()
            assert told(path) == [file.name]
            file.write_bytes(whole)
    assert told(path) == []


@pytest.mark.parametrize("top", [4, None])
def test_an_altered_vector_is_never_searched_nor_merged(
    tmp_path: Path, sets: dict[str, FeatureSet], top: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One flip in each part of the file: the answers are the same, or an error of one line."""
    small_limits(monkeypatch, block=64)  # so that vectors share few blocks with what is read anyway
    fast_disk(monkeypatch)
    path = tmp_path / "index"
    index = GlobalIndex.create(path, CODEC)
    index.add(sets["first"])

    def answers() -> list[list[Hit]]:
        return GlobalSearcher(GlobalIndex.open(path)).search(QUERIES, top)

    file = path / index.snapshot.manifest.segments[0].file.name
    whole, refused, expected = file.read_bytes(), 0, answers()
    begin = whole.index(index.snapshot.segments[0].vectors.tobytes())
    for place in [*range(0, len(whole), 19), *range(begin, begin + 200, 11)]:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            assert answers() == expected
        except AsmkError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 40
    file.write_bytes(whole)
    damage(file)
    index.add(sets["changed"], existing="replace")
    with pytest.raises(DamagedError, match="altered"):
        index.merge()


@pytest.mark.parametrize("precision", ["single", "product"])
def test_a_deleted_image_is_never_found(tmp_path: Path, sets: dict[str, FeatureSet], precision: str) -> None:
    images = {name: POOL[name] for name in NAMES[:10]}
    vectors = np.concatenate([image.descriptors for image in global_images(300, seed=3).values()])
    codec = Codec(RECIPE, DIM) if precision == "single" else train_on(vectors, RECIPE, CodecOptions(pq=8))
    index = GlobalIndex.create(tmp_path / "index", codec)
    index.add(write_global(tmp_path / "all", images))
    searcher = GlobalSearcher(index)
    for top in (1, 3, None):
        nearest = searcher.search(POOL[NAMES[5]], 1)[0].name
        before = searcher.search(POOL[NAMES[5]], None)
        index.delete([nearest])
        assert searcher.search(POOL[NAMES[5]], top) == before[1:][:top]


def test_a_damaged_segment_leaves_and_the_rest_stays(path: Path) -> None:
    first, second = (path / entry.file.name for entry in GlobalIndex.open(path).snapshot.manifest.segments)
    damage(first)
    done = repair_index(path, write=True)
    assert done.lost == 2 and (path / done.folder / first.name).exists() and second.exists()
    assert GlobalIndex.open(path).names == NAMES[:3] and told(path) == []


def test_damaged_deletions_are_forgotten_but_no_name_comes_twice(path: Path) -> None:
    damage(next(path.glob("deleted-*")))
    done = repair_index(path, write=True)
    assert (done.lost, done.returned) == (0, 1)
    index = GlobalIndex.open(path)
    assert index.names == NAMES[:6] and told(path) == [] and index.snapshot.find(NAMES[0]) == (1, 0)


def test_nothing_is_saved_without_the_codec(path: Path) -> None:
    damage(next(path.glob("codec-*")))
    with pytest.raises(DamagedError, match="the index is unusable without the codec"):
        repair_index(path, write=True)


Alter = Callable[[dict[str, np.ndarray]], object]
CONTRADICTIONS: list[tuple[str, Alter, bool]] = [
    ("not of length 1", lambda content: content["vectors"].__setitem__((0, 3), 3.0), False),
    ("not of length 1", lambda content: content["vectors"].__setitem__((1, 0), np.nan), False),
    ("name_order does not hold", lambda content: content["name_order"].__setitem__(0, 1), True),
    ("is outside the file", lambda content: content["name_offsets"].__setitem__(1, 10_000), True),
    ("not UTF-8", lambda content: content["name_bytes"].__setitem__(0, 255), True),
    ("tables contradict", lambda content: content["name_offsets"].__setitem__(-1, 1), True),
    ("expected", lambda content: content.__setitem__("vectors", content["vectors"][:, :7].copy()), True),
    ("expected", lambda content: content.__setitem__("vectors", content["vectors"].astype(np.float32)), True),
    ("holds no array", lambda content: content.pop("fingerprints"), True),
]


@pytest.mark.parametrize(("message", "alter", "tables"), CONTRADICTIONS)
def test_what_no_checksum_tells_is_found(path: Path, message: str, alter: Alter, tables: bool) -> None:
    folder, manifest = Folder(path), GlobalIndex.open(path).snapshot.manifest
    first = manifest.segments[0]
    file = map_arrays(folder, first.file.name)
    content = {name: array.copy() for name, array in file.arrays.items() if name != CHECKSUMS}
    alter(content)
    checksum = write_arrays(folder, first.file.name, content, file.metadata)
    entry = replace(first.file, checksum=checksum, bytes=folder.size(first.file.name))
    altered = replace(manifest, segments=(replace(first, file=entry), *manifest.segments[1:]))
    folder.replace_manifest(COPIES, altered.to_json())
    (finding,) = [finding for finding in check_index(path).findings if finding.kind != "note"]
    assert finding.file == first.file.name and message in finding.what
    assert told(path, fast=True) == ([first.file.name] if tables else [])
    repair_index(path, write=True)
    assert GlobalIndex.open(path).names == NAMES[:3]


def test_adding_updating_pruning_and_merging(tmp_path: Path, sets: dict[str, FeatureSet]) -> None:
    source, later = Source(1, 2, 3), Source(1, 2, 4)
    first = write_features(tmp_path / "a", {name: POOL[name] for name in NAMES[:4]}, recipe=RECIPE, source=source)
    second = write_features(tmp_path / "b", {name: POOL[name] for name in NAMES[2:6]}, recipe=RECIPE, source=source)
    changed = write_features(tmp_path / "c", {name: POOL[name] for name in NAMES[2:6]}, recipe=RECIPE, source=later)
    index = GlobalIndex.create(tmp_path / "index", CODEC)
    told: list[tuple[int, int]] = []
    summary = index.add(first, on_image=lambda done, total: told.append((done, total)))
    assert summary == AddSummary(4, duplicates=dict.fromkeys(NAMES[1:4], NAMES[0])) and told[-1] == (4, 4)
    assert index.add(second, existing="skip") == AddSummary(2, 0, 2, duplicates=dict.fromkeys(NAMES[4:6], NAMES[0]))
    assert index.add(second, existing="update") == AddSummary(0, 0, 4)
    assert index.add(changed, existing="update", prune=True) == AddSummary(0, 4, 0, 2)
    assert index.names == NAMES[2:6] and len(index) == 4 and NAMES[2] in index and "nobody" not in index
    assert index.merge() == 1 and len(index.snapshot.segments) == 1
    with pytest.raises(NotFoundError, match="nothing was deleted"):
        index.delete([NAMES[2], "nobody"])
    assert index.delete([NAMES[2], "nobody"], missing_ok=True) == 1
    with pytest.raises(InputError, match="choose one of"):
        index.add(first, existing="maybe")
    reopened = GlobalIndex.open(index.path)
    assert reopened.names == NAMES[3:6] and reopened.snapshot.manifest.features[-1] == str(changed.path)


def test_segments_stay_few_under_small_adds(
    tmp_path: Path, sets: dict[str, FeatureSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast_disk(monkeypatch)
    monkeypatch.setattr(GlobalIndex, "small_segment", 1)
    codec = Codec(RECIPE, DIM)
    index, images = GlobalIndex.create(tmp_path / "index", codec), global_images(30)
    for place, (name, features) in enumerate(images.items()):
        index.add(write_global(tmp_path / f"part {place}", {name: features}))
    assert len(index.snapshot.segments) < 8 and index.names == sorted(images)
    whole = GlobalIndex.create(tmp_path / "whole", codec)
    whole.add(write_global(tmp_path / "all", images))
    query = POOL[NAMES[4]]
    assert GlobalSearcher(index).search(query, None) == GlobalSearcher(whole).search(query, None)


def test_vectors_at_hand_are_added_as_they_are(path: Path) -> None:
    index = GlobalIndex.open(path)
    vectors = CODEC.encode(CODEC.apply(np.concatenate([POOL[name].descriptors for name in NAMES[10:12]])))
    contents = VectorContents([b"x", b"y"], np.zeros(2, np.uint64), vectors)
    with pytest.raises(MismatchError, match="the index expects"):
        index.add_vectors(replace(contents, vectors=vectors.astype(np.float32)))
    with pytest.raises(MismatchError, match="the index expects"):
        index.add_vectors(replace(contents, vectors=vectors[:, 1:]))
    with pytest.raises(InputError, match="already in the index"):
        index.add_vectors(replace(contents, names=[b"x", NAMES[0].encode()]))
    with pytest.raises(InputError, match="same name"):
        index.add_vectors(replace(contents, names=[b"x", b"x"]))
    index.add_vectors(VectorContents([], np.zeros(0, np.uint64), vectors[:0]))
    assert "x" not in index
    index.add_vectors(contents)
    assert GlobalSearcher(index).search(POOL[NAMES[10]], 1)[0].name == "x"


def test_a_reader_keeps_its_commit_while_others_write(path: Path) -> None:
    reader = GlobalIndex.open(path)
    expected = GlobalSearcher(reader).search(POOL[NAMES[4]], None)
    writer = GlobalIndex.open(path)
    writer.delete(writer.names[:2])
    writer.merge()
    assert GlobalSearcher(reader).search(POOL[NAMES[4]], None) == expected
    reader.refresh()
    assert reader.names == writer.names


def test_an_index_may_carry_its_network(tmp_path: Path, sets: dict[str, FeatureSet]) -> None:
    write_arrays(Folder(tmp_path), "net.safetensors", {"weight": np.arange(9, dtype=np.float32)}, {})
    index = GlobalIndex.create(tmp_path / "index", CODEC, tmp_path / "net.safetensors")
    index.add(sets["first"])
    assert index.network is not None
    assert index.network.read_bytes() == (tmp_path / "net.safetensors").read_bytes()
    damage(index.network)
    assert told(index.path) == [index.network.name]


def test_a_codec_file_that_says_nonsense_is_refused(tmp_path: Path, path: Path) -> None:
    folder, manifest = Folder(path), GlobalIndex.open(path).snapshot.manifest
    name = manifest.encoder.name
    metadata = map_arrays(folder, name).metadata
    nonsense = ({"input_dim": "many"}, {"input_dim": "0"}, {"precision": "double"}, {"training": "["}, {"recipe": ""})
    for change in nonsense:
        checksum = write_arrays(folder, name, {}, metadata | change)
        entry = replace(manifest.encoder, checksum=checksum, bytes=folder.size(name))
        folder.replace_manifest(COPIES, replace(manifest, encoder=entry).to_json())
        with pytest.raises(DamagedError) as caught:
            GlobalIndex.open(path)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_vector_of_zeros_answers_and_is_answered(tmp_path: Path, sets: dict[str, FeatureSet]) -> None:
    zero = make_features(np.zeros((1, DIM)))
    index = GlobalIndex.create(tmp_path / "index", CODEC)
    index.add(write_global(tmp_path / "zero", {"zero": zero, "other": POOL[NAMES[0]]}))
    assert [(hit.name, hit.score) for hit in GlobalSearcher(index).search(zero)] == [("other", 0.0), ("zero", 0.0)]
    assert check_index(index.path).findings == ()
