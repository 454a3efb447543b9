"""A process killed, or the power cut, after every request to the disk: the index opens at a commit that was made."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asmk_engine.errors import FormatError, NotFoundError
from asmk_engine.inverted.index import Index
from asmk_engine.maintenance.checking import check_index
from asmk_engine.storage.folder import Folder
from disks import Event, LostDisk, RecordingDisk, fast_disk
from histories import Answer, feature_sets, observe, small_codebook, small_limits, steps, write_on

MANY_CUTS = 30


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[Event], Path]]:
    """The requests of a whole life, with a mark before and after each commit; then a fast disk."""
    small_limits(monkeypatch)
    sets = feature_sets(tmp_path / "features")
    root = tmp_path / "recorded"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        disk = RecordingDisk(patch, root)
        _mark_commits(patch, disk)
        for name, step in steps(sets):
            step(root / "index")
            disk.mark(f"returned {name}")
    fast_disk(monkeypatch)
    yield disk.events, root


def _mark_commits(patch: pytest.MonkeyPatch, disk: RecordingDisk) -> None:
    replace_manifest = Folder.replace_manifest

    def marked(self: Folder, names: Any, content: dict[str, Any]) -> None:
        disk.mark(f"begun {content['commit']}")
        replace_manifest(self, names, content)
        disk.mark(f"done {content['commit']}")

    patch.setattr(Folder, "replace_manifest", marked)


def _commits(events: list[Event], word: str) -> list[int]:
    return [int(event.kind.split()[1]) for event in events if event.kind.startswith(word)]


def _laid_out(events: list[Event], root: Path, target: Path, rng: random.Random | None) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    disk = LostDisk(events, root)
    if rng is None:
        disk.kill()
    else:
        disk.cut_power(rng)
    disk.write_to(target)
    return target / "index"


def _states(events: list[Event], root: Path, target: Path) -> dict[int, Answer]:
    """What is seen at each commit that was made."""
    states = {}
    for place, event in enumerate(events):
        if event.kind.startswith("done"):
            states[int(event.kind.split()[1])] = observe(_laid_out(events[:place], root, target, None))
    return states


def _survives(path: Path, events: list[Event], states: dict[int, Answer]) -> None:
    """The last acknowledged commit, or the one that was being made."""
    done, begun = _commits(events, "done"), _commits(events, "begun")
    allowed = {*done[-1:], *begun[-1:]}
    try:
        commit = Index.open(path).snapshot.manifest.commit
    except (NotFoundError, FormatError):
        assert not done
        Index.create(path, small_codebook())
    else:
        assert commit in allowed
        assert observe(path) == states[commit]
        assert check_index(path).clean


def _torture(recorded: tuple[list[Event], Path], target: Path, cases: Iterable[tuple[int, int]], write: int) -> int:
    """Cut the history at each (place, seed), seed 0 being a kill; every `write`-th time the next writer goes on."""
    events, root = recorded
    states = _states(events, root, target)
    assert len(states) > 12 and len(set(states.values())) > 6
    count = 0
    for end, seed in cases:
        rng = random.Random(f"{end} {seed}") if seed else None
        path = _laid_out(events[:end], root, target, rng)
        _survives(path, events[:end], states)
        if count % write == 0:
            write_on(path)
        count += 1
    return count


def _kills(events: list[Event]) -> list[tuple[int, int]]:
    """After every request that changes something for others."""
    changing = {"make_folder", "create", "write", "resize", "replace", "remove"}
    return [(place + 1, 0) for place, event in enumerate(events) if event.kind in changing]


def test_a_kill_after_a_request_leaves_a_commit(recorded: tuple[list[Event], Path], tmp_path: Path) -> None:
    assert _torture(recorded, tmp_path / "crashed", _kills(recorded[0])[::2], write=4) > 120


def test_a_power_cut_leaves_a_commit(recorded: tuple[list[Event], Path], tmp_path: Path) -> None:
    cases = [(place, 1) for place in range(0, len(recorded[0]) + 1, 5)]
    assert _torture(recorded, tmp_path / "crashed", cases, write=4) > 90


@pytest.mark.slow
def test_many_power_cuts_leave_a_commit(recorded: tuple[list[Event], Path], tmp_path: Path) -> None:
    cases = [(place, seed) for place in range(len(recorded[0]) + 1) for seed in range(MANY_CUTS + 1)]
    print(_torture(recorded, tmp_path / "crashed", cases, write=2), "crashes")


def test_a_missing_sync_is_noticed(recorded: tuple[list[Event], Path], tmp_path: Path) -> None:
    """The test sees what it is there to see: without the syncs of files, or of folders, or with one left out."""
    events, root = recorded
    states = _states(events, root, tmp_path / "crashed")
    for left_out in ("sync_file", "sync_folder"):
        poorer = [event for event in events if event.kind != left_out]
        with pytest.raises(Exception):  # noqa: B017  whatever a lost file leads to
            for cut in range(50):
                target = _laid_out(poorer, root, tmp_path / "crashed", random.Random(cut))
                _survives(target, poorer, states)


def _files(events: list[Event], kind: str) -> Iterator[tuple[int, Event]]:
    return ((place, event) for place, event in enumerate(events) if event.kind == kind)


def test_data_is_synced_before_it_gets_its_name_and_the_folder_after(recorded: tuple[list[Event], Path]) -> None:
    events, _ = recorded
    renames = list(_files(events, "replace"))
    assert len(renames) > 40
    for place, rename in renames:
        own = [event.kind for event in events[:place] if event.inode == rename.inode]
        assert own[-1] == "sync_file"
        rest = events[place:]
        synced = next(i for i, event in enumerate(rest) if event.kind == "sync_folder")
        assert rename.new is not None and rest[synced].path == rename.new.parent
        assert not any(event.kind.startswith(("done", "returned")) for event in rest[:synced])


def test_a_manifest_is_replaced_when_all_it_names_is_durable(recorded: tuple[list[Event], Path]) -> None:
    """Files, then the folder, then one copy, the folder, the other copy, the folder; only then is anything removed."""
    events, _ = recorded
    for place, event in enumerate(events):
        if event.kind.startswith("begun"):
            before = [e.kind for e in events[:place] if e.kind in ("replace", "sync_folder", "write", "create")]
            assert before[-1] == "sync_folder"
            end = next(i for i, e in enumerate(events[place:]) if e.kind.startswith("done"))
            kinds = [e.kind for e in events[place : place + end]]
            assert kinds.count("remove") == 0
            assert [kind for kind in kinds if kind in ("replace", "sync_folder")] == ["replace", "sync_folder"] * 2
            first = kinds.index("replace")
            assert "write" not in kinds[first:]
