"""An index of several kinds of features survives what one of one kind survives: kills, power cuts, failures, damage."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asmk_engine.errors import AsmkError, DamagedError, FormatError, NotFoundError
from asmk_engine.features import FeatureSet
from asmk_engine.fused.index import FusedIndex
from asmk_engine.fused.search import FusedSearcher
from asmk_engine.indexes.manifest import NAMES as COPIES
from asmk_engine.indexes.manifest import Manifest
from asmk_engine.maintenance.checking import check_index
from asmk_engine.maintenance.description import describe, without_features
from asmk_engine.maintenance.repair import repair_index
from asmk_engine.storage.arrays import CHECKSUMS, map_arrays, write_arrays
from asmk_engine.storage.folder import Folder
from disks import CountedDisk, Event, LostDisk, RecordingDisk, fast_disk
from fused_histories import NAMES, POOL, QUERIES, create, feature_sets, observe, small_limits, steps, write_on
from histories import Answer, Step

Sets = dict[str, dict[str, FeatureSet]]


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sets:
    small_limits(monkeypatch)
    with pytest.MonkeyPatch.context() as patch:
        fast_disk(patch)
        return feature_sets(tmp_path / "features")


@pytest.fixture
def path(tmp_path: Path, sets: Sets, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two segments, the first with deletions, one of them of an image that the second replaced."""
    fast_disk(monkeypatch)
    index = create(tmp_path / "index")
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


def recorded(root: Path, sets: Sets) -> list[Event]:
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


def torture(tmp_path: Path, sets: Sets, monkeypatch: pytest.MonkeyPatch, kill: int, cut: int) -> int:
    """Kill after each `kill`-th request, cut the power after each `cut`-th; returns how often."""
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
    cases = [(place, None) for place in range(1, len(events), kill)]
    cases += [(place, random.Random(place)) for place in range(0, len(events) + 1, cut)]  # type: ignore[misc]
    for count, (end, rng) in enumerate(cases):
        path, before = laid_out(events[:end], root, target, rng), events[:end]
        done = commits(before, "done")
        try:
            commit = FusedIndex.open(path).snapshot.manifest.commit
        except (NotFoundError, FormatError):
            assert not done
            create(path)
        else:
            assert commit in {*done[-1:], *commits(before, "begun")[-1:]}
            assert observe(path) == states[commit] and check_index(path).clean
        if count % 5 == 0:
            write_on(path, sets["next"])
    return len(cases)


def test_a_kill_or_a_power_cut_leaves_all_kinds_at_one_commit(
    tmp_path: Path, sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is seen of both kinds, and of each alone, is that of one commit: the last, or the one that was made."""
    assert torture(tmp_path, sets, monkeypatch, 13, 17) > 60


@pytest.mark.slow
def test_a_kill_after_any_request_leaves_all_kinds_at_one_commit(
    tmp_path: Path, sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert torture(tmp_path, sets, monkeypatch, 1, 1) > 1000


def states_of(step: Step, path: Path) -> dict[int, Answer]:
    """What is seen at the commit before a step, and at each that it makes; the step is done."""
    states = {}
    publish = FusedIndex._publish

    def observed(self: FusedIndex, manifest: Manifest) -> None:
        publish(self, manifest)
        states[manifest.commit] = observe(path)

    if path.exists():
        states[FusedIndex.open(path).snapshot.manifest.commit] = observe(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FusedIndex, "_publish", observed)
        step[1](path)
    states[FusedIndex.open(path).snapshot.manifest.commit] = observe(path)
    return states


def test_any_request_may_fail(tmp_path: Path, sets: Sets, monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)
    path, before, broken = tmp_path / "index", tmp_path / "before", tmp_path / "broken"
    cases = 0
    for step in steps(sets):
        if path.exists():
            shutil.copytree(path, before)
        states = states_of(step, path)
        number, there = 1 + cases % 31, True
        while there:
            shutil.rmtree(broken, ignore_errors=True)
            if before.exists():
                shutil.copytree(before, broken)
            there = fails(step, broken, number)
            try:
                commit = FusedIndex.open(broken).snapshot.manifest.commit
            except (NotFoundError, FormatError):
                assert 1 in states
                create(broken)
            else:
                assert observe(broken) == states[commit] and check_index(broken).clean
            write_on(broken, sets["next"])
            cases, number = cases + 1, number + 31
        shutil.rmtree(before, ignore_errors=True)
    assert cases > 30


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


def test_a_life_is_clean_after_every_step(tmp_path: Path, sets: Sets, monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)
    for _, step in steps(sets):
        step(tmp_path / "index")
        for fast in (False, True):
            assert check_index(tmp_path / "index", fast=fast).findings == ()
        described = describe(tmp_path / "index")
        on_disk = sum(file.stat().st_size for file in (tmp_path / "index").iterdir())
        assert described["bytes"] == on_disk and described["bytes_by_part"]["leftover"] == 0
    assert not repair_index(tmp_path / "index", write=True).done


def told(path: Path, fast: bool = False) -> list[str]:
    return [finding.file for finding in check_index(path, fast=fast).findings if finding.kind != "note"]


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-20 if path.suffix == ".json" else 2 * len(data) // 3] ^= 1
    path.write_bytes(data)


def test_every_altered_file_is_named(path: Path) -> None:
    names = {file.name for file in path.iterdir()}
    assert {name.rpartition("-")[2] for name in names} >= {"1.safetensors", "2.safetensors"}
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


def test_an_altered_part_is_never_searched_nor_merged(path: Path) -> None:
    """One flip in each part of the files of a segment: the answers are the same, or an error of one line."""
    expected, refused, cases = observe(path), 0, 0
    for file in sorted(path.glob("segment-*")):
        whole = file.read_bytes()
        for place in range(0, len(whole), 37):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
            cases += 1
            try:
                assert observe(path) == expected
            except AsmkError as error:
                refused += 1
                assert "\n" not in str(error)
            with pytest.raises(DamagedError):
                FusedIndex.open(path).merge()
        file.write_bytes(whole)
    assert refused > cases // 2 and observe(path) == expected


@pytest.mark.parametrize("kind", [0, 1])
def test_images_keep_the_kinds_whose_files_are_whole(path: Path, sets: Sets, kind: int) -> None:
    """A damaged file of one kind costs this kind; indexing again brings it back, with the same answers."""
    before, names = observe(path), FusedIndex.open(path).names
    file = path / FusedIndex.open(path).snapshot.manifest.segments[0].kinds[kind].file.name
    damage(file)
    planned = repair_index(path)
    assert (planned.done, planned.moved, planned.lost) == (False, (file.name,), 0)
    done = repair_index(path, write=True)
    assert done.without == {("parts", "whole")[kind]: 2} and (path / done.folder / file.name).exists()
    index = FusedIndex.open(path)
    assert index.names == names and told(path) == [] and observe(path) != before
    for name in NAMES[4:6]:
        place = index.snapshot.find(name)
        assert place is not None and index.snapshot.lacking(place)[kind]
    again = index.add({key: features.selected(NAMES[4:6]) for key, features in sets["first"].items()}, existing="skip")
    assert again.replaced == sum(POOL[name][kind] is not None for name in NAMES[4:6]) and observe(path) == before


def test_a_damaged_table_costs_the_segment(path: Path) -> None:
    first, second = FusedIndex.open(path).snapshot.manifest.segments
    damage(path / first.file.name)
    done = repair_index(path, write=True)
    assert done.lost == 2 and (path / done.folder / first.file.name).exists() and done.without == {}
    assert all((path / done.folder / part.file.name).exists() for part in first.kinds)
    assert FusedIndex.open(path).names == NAMES[:3] and told(path) == [] and (path / second.file.name).exists()


def test_damaged_deletions_and_a_damaged_part_together(path: Path) -> None:
    first = FusedIndex.open(path).snapshot.manifest.segments[0]
    damage(next(path.glob("deleted-*")))
    damage(path / first.kinds[1].file.name)
    done = repair_index(path, write=True)
    assert (done.lost, done.returned) == (0, 1) and done.without == {"whole": 3}
    index = FusedIndex.open(path)
    assert index.names == NAMES[:6] and told(path) == [] and index.snapshot.find(NAMES[0]) == (1, 0)
    assert FusedSearcher(index).search(QUERIES[0], None)


def test_nothing_is_saved_without_a_codebook_or_codec(path: Path) -> None:
    for pattern in ("codec-*", "codebook-*"):
        file = next(path.glob(pattern))
        whole = file.read_bytes()
        damage(file)
        with pytest.raises(DamagedError, match="unusable without the set of codebooks and codecs") as error:
            repair_index(path, write=True)
        assert file.name in str(error.value) and told(path) == [file.name]
        file.write_bytes(whole)


def rewrite(path: Path, kind: int | None, name: str, array: np.ndarray | None) -> None:
    """Alter an array of the first segment, in the file of a kind or of the table, with valid checksums."""
    folder, manifest = Folder(path), FusedIndex.open(path).snapshot.manifest
    first = manifest.segments[0]
    entry = first.file if kind is None else first.kinds[kind].file
    file = map_arrays(folder, entry.name)
    arrays = {key: np.array(value) for key, value in file.arrays.items() if key != CHECKSUMS}
    if array is None:
        del arrays[name]
    else:
        arrays[name] = array
    checksum = write_arrays(folder, entry.name, arrays, file.metadata)
    content = manifest.to_json()
    stored = content["segments"][0]["file"] if kind is None else content["segments"][0]["kinds"][kind]["file"]
    stored |= {"checksum": checksum, "bytes": folder.size(entry.name)}
    folder.replace_manifest(COPIES, content)


@pytest.mark.parametrize(
    ("kind", "name", "array", "message"),
    [
        (0, "word_counts", np.zeros(6, np.uint32), "word_counts and the number of postings differ"),
        (0, "word_counts", np.zeros(5, np.uint32), "expected"),
        (1, "absent", np.zeros(3, np.uint8), "expected"),
        (1, "vectors", np.full((6, 20), 2, np.float16), "not of length 1"),
        (1, "vectors", np.zeros((5, 20), np.float16), "expected"),
        (None, "name_order", np.zeros(6, np.uint32), "name_order does not hold every image once"),
        (None, "fingerprints", np.zeros(5, np.uint64), "expected"),
    ],
)
def test_what_no_checksum_tells_is_found(
    path: Path, kind: int | None, name: str, array: np.ndarray, message: str
) -> None:
    first = FusedIndex.open(path).snapshot.manifest.segments[0]
    rewrite(path, kind, name, array)
    found = [finding for finding in check_index(path).findings if finding.kind != "note"]
    expected = first.file.name if kind is None else first.kinds[kind].file.name
    assert [finding.file for finding in found] == [expected] and message in found[0].what


def test_a_manifest_that_contradicts_itself_is_damaged(path: Path) -> None:
    content = FusedIndex.open(path).snapshot.manifest.to_json()
    wrong: list[Any] = [
        {**content, "kinds": []},
        {**content, "kinds": [{**content["kinds"][0], "weight": -1}, content["kinds"][1]]},
        {**content, "kinds": [{"name": "x", "weight": 1}, content["kinds"][1]]},
        {**content, "segments": [{**content["segments"][0], "kinds": content["segments"][0]["kinds"][:1]}]},
        {key: value for key, value in content.items() if key != "kinds"},
    ]
    for one in wrong:
        Folder(path).replace_manifest(COPIES, one)
        with pytest.raises(DamagedError, match="an entry is missing or invalid"):
            FusedIndex.open(path)


def test_a_description_counts_the_images_of_each_kind(path: Path) -> None:
    described = describe(path)
    held = (*NAMES[11:14], *NAMES[4:6])  # the contents of the first three were replaced
    expected = [sum(POOL[name][kind] is not None for name in held) for kind in (0, 1)]
    assert [kind["images"] for kind in described["kinds"]] == expected and described["images"] == 5
    assert described["empty_images"] == 0 and without_features(path) == []
