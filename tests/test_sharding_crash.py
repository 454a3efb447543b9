"""Whatever stops a change of a sharded index, it is before the change or after it, and the next change works."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asmk_engine.errors import DamagedError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.indexes.manifest import NAMES
from asmk_engine.maintenance.sharded_checking import check_sharded
from asmk_engine.maintenance.sharded_repair import repair_shards
from asmk_engine.search.opening import open_any, open_index
from asmk_engine.sharding import transaction
from asmk_engine.sharding.index import ShardedIndex
from asmk_engine.sharding.layout import join_shards, move_shard, shard_index, split_shard
from asmk_engine.sharding.manifest import is_sharded, read_sharded
from asmk_engine.storage.folder import Folder, decode_manifest, encode_manifest
from disks import CountedDisk, fast_disk
from samples import ENVIRONMENT, random_images
from sharding_samples import DIM, PAIRS, Pair, answers, local_pair

Change = Callable[[Path, Path], Any]


class Stopped(BaseException):
    """The machine stops at a request."""


def _added(home: Path, folder: Path) -> None:
    index = ShardedIndex.open(home)
    index.add(random_images(12, DIM, 9).items(), recipe=index.recipe, existing="replace")


CHANGES: dict[str, Change] = {
    "delete": lambda home, folder: ShardedIndex.open(home).delete(ShardedIndex.open(home).names[::3]),
    "add": _added,
    "merge": lambda home, folder: ShardedIndex.open(home).merge(),
    "split": lambda home, folder: split_shard(home, "1"),
    "split to another folder": lambda home, folder: split_shard(home, "2", folder / "apart"),
    "join": lambda home, folder: join_shards(home, "1", "2"),
    "move": lambda home, folder: move_shard(home, "1", folder / "moved"),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return local_pair(tmp_path_factory.mktemp("pair"))


@pytest.mark.parametrize("what", list(CHANGES))
def test_a_change_that_stops_anywhere_is_whole_or_nothing(
    tmp_path: Path, pair: Pair, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast_disk(monkeypatch)
    start = shard_index(pair.index.path, tmp_path / "start.shards", 2).path
    before = answers(pair, ShardedIndex.open(start), 4)
    done = _copy(start, tmp_path / "done")
    requests = _stopped(done, tmp_path / "done", what, monkeypatch, at=0)
    after = answers(pair, ShardedIndex.open(done), 4)
    seen = set()
    for at in range(1, requests + 1, max(1, requests // 20)):
        folder = tmp_path / f"at {at}"
        home = _copy(start, folder)
        _stopped(home, folder, what, monkeypatch, at)
        found = answers(pair, ShardedIndex.open(home), 4)
        assert found in (before, after), at
        seen.add("after" if found == after else "before")
        assert not [one for one in check_sharded(home).findings if one.kind != "note"], at
        CHANGES[what](home, folder) if found == before != after else None
        ShardedIndex.open(home).delete(["twin 0"], missing_ok=True)  # takes back and removes what is left
        assert "twin 0" not in ShardedIndex.open(home) and check_sharded(home).findings == ()
        shutil.rmtree(folder)
    assert seen == ({"before", "after"} if before != after else {"after"})


def _copy(start: Path, folder: Path) -> Path:
    shutil.copytree(start, folder / "x.shards")
    return folder / "x.shards"


def _stopped(home: Path, folder: Path, what: str, monkeypatch: pytest.MonkeyPatch, at: int) -> int:
    """Carry a change out until the machine stops at a request, never for 0; returns the number of requests."""

    def react(number: int) -> None:
        if at and number >= at:
            raise Stopped

    with monkeypatch.context() as patched:
        disk = CountedDisk(patched, react)
        with contextlib.suppress(Stopped):
            CHANGES[what](home, folder)
        return disk.count


KILLED = """
import os, signal, sys
from pathlib import Path
from asmk_engine.sharding import transaction
from asmk_engine.sharding.index import ShardedIndex
publish = transaction.publish
def killed(home, manifest):
    if sys.argv[2] == "after":
        publish(home, manifest)
    os.kill(os.getpid(), signal.SIGKILL)
transaction.publish = killed
index = ShardedIndex.open(sys.argv[1])
index.delete(index.names[::2])
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_process_killed_between_the_steps_leaves_the_last_whole_commit(
    tmp_path: Path, pair: Pair, moment: str
) -> None:
    home = shard_index(pair.index.path, tmp_path / "x.shards", 3).path
    reader = ShardedIndex.open(home)
    before, names = answers(pair, reader), reader.names
    command = [sys.executable, "-c", KILLED, str(home), moment]
    assert subprocess.run(command, env=ENVIRONMENT, timeout=300, check=False).returncode == -signal.SIGKILL
    index = ShardedIndex.open(home)
    gone = names[::2] if moment == "after" else []
    assert index.names == [name for name in names if name not in gone]
    assert answers(pair, reader) == before  # it still has what it opened
    notes = check_sharded(home).findings
    assert {note.kind for note in notes} <= {"note"} and (notes or moment == "after")
    assert [len(open_index(shard.path)) < len(shard) for shard in index.shards] == [moment == "before"] * 3
    reader.refresh()
    assert reader.names == index.names
    index.delete([names[1]])
    assert ShardedIndex.open(home).names == [name for name in names[2:] if name not in gone] or moment == "before"
    assert len(index) == len(names) - len(gone) - 1 and check_sharded(home).findings == ()
    if moment == "before":
        assert index.restore([names[1]]) == 1 and answers(pair, index) == before


def test_a_reader_that_opens_between_the_steps_sees_the_last_whole_commit(
    tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = shard_index(pair.index.path, tmp_path / "x.shards", 3).path
    writer, before, found = ShardedIndex.open(home), answers(pair, ShardedIndex.open(home)), []
    publish = transaction.publish

    def watched(*arguments: Any) -> None:
        found.append(answers(pair, ShardedIndex.open(home)))
        publish(*arguments)
        found.append(ShardedIndex.open(home).names)

    monkeypatch.setattr(transaction, "publish", watched)
    writer.delete(writer.names[:9])
    assert found == [before, writer.names] and len(writer.names) == len(before[0]) - 9


def test_a_reader_whose_files_are_removed_meanwhile_opens_the_next_commit(
    tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = shard_index(pair.index.path, tmp_path / "x.shards", 3).path
    old = read_sharded(Folder(home))
    ShardedIndex.open(home).delete(ShardedIndex.open(home).names[:9])
    ShardedIndex.open(home).merge()
    given = iter([old])
    monkeypatch.setattr("asmk_engine.sharding.index.read_sharded", lambda folder: next(given, read_sharded(folder)))
    monkeypatch.setattr("asmk_engine.sharding.index.class_of_shards", lambda path: ShardedIndex)
    assert len(ShardedIndex.open(home)) == pair.index.images - 9


def _rewritten(home: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the content of both copies of the manifest, with a valid checksum."""
    for name in NAMES:
        content = decode_manifest((home / name).read_bytes(), home / name)
        change(content)
        (home / name).write_bytes(encode_manifest(content))


def _other_codebook(content: dict[str, Any]) -> None:
    content["shards"][1]["manifest"]["codebook"]["checksum"] += 1


def _twice(content: dict[str, Any]) -> None:
    content["shards"][1]["folder"] = content["shards"][0]["folder"] + "/."


def _same_index(content: dict[str, Any]) -> None:
    content["shards"][1]["manifest"]["identity"] = content["shards"][0]["manifest"]["identity"]


def _overlapping(content: dict[str, Any]) -> None:
    content["shards"][1]["slots"] = content["shards"][0]["slots"]


BAD: dict[str, tuple[Callable[[dict[str, Any]], Any], type[Exception], str]] = {
    "other codebook": (_other_codebook, MismatchError, "its codebook is not that of the shard shard-0001"),
    "listed twice": (_twice, InputError, "is listed twice; list each shard once"),
    "one index twice": (_same_index, InputError, "is listed twice"),
    "overlapping slots": (_overlapping, DamagedError, "of two shards"),
    "newer format": (lambda content: content.update(format=2), FormatError, "update asmk-engine"),
    "no shards": (lambda content: content.pop("shards"), DamagedError, "missing or invalid"),
    "a folder that is no text": (lambda content: content["shards"][0].update(folder=3), DamagedError, "invalid"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_a_manifest_that_contradicts_itself_is_told_in_one_line(tmp_path: Path, pair: Pair, case: str) -> None:
    home = shard_index(pair.index.path, tmp_path / "x.shards", 2).path
    change, kind, text = BAD[case]
    _rewritten(home, change)
    for act in (ShardedIndex.open, lambda path: split_shard(path, "1")):
        with pytest.raises(kind, match=text) as caught:
            act(home)
        assert "\n" not in str(caught.value)


def test_one_copy_of_the_manifest_is_enough(tmp_path: Path, pair: Pair) -> None:
    home = shard_index(pair.index.path, tmp_path / "x.shards", 2).path
    ShardedIndex.open(home).delete([pair.index.names[0]])
    for name in NAMES:
        content = (home / name).read_bytes()
        (home / name).write_bytes(content[:-20])
        assert len(ShardedIndex.open(home)) == pair.index.images - 1
        assert [finding.file for finding in check_sharded(home).findings] == [name]
        (home / name).write_bytes(content)
    for name in NAMES:
        (home / name).write_bytes(b"{")
    with pytest.raises(DamagedError, match="not readable as JSON"):
        read_sharded(Folder(home))
    assert not is_sharded(home) and not check_sharded(home).clean


@pytest.mark.parametrize("kind", list(PAIRS))
def test_a_damaged_shard_is_repaired_in_a_commit_of_all(tmp_path: Path, kind: str) -> None:
    pair = PAIRS[kind](tmp_path)
    home = shard_index(pair.index.path, tmp_path / "x.shards", 3).path
    before = ShardedIndex.open(home)
    damaged = before.shards[1]
    file = next(iter(damaged.snapshot.segments)).file.path
    data = bytearray(file.read_bytes())
    data[-40:-20] = bytes(20)
    file.write_bytes(data)
    assert not check_sharded(home).clean
    assert any(one.needed for one in repair_shards(home)) and not check_sharded(home).clean
    assert [one.done for one in repair_shards(home, write=True)] == [False, True, False]
    left = open_any(home)
    assert check_sharded(home).clean and len(left) == len(before) - len(damaged)
    lost = set(before.names) - set(left.names)
    assert lost == set(damaged.names) and not any(one.needed for one in repair_shards(home, write=True))


def test_images_of_another_shard_are_found_by_check(tmp_path: Path, pair: Pair) -> None:
    home = shard_index(pair.index.path, tmp_path / "x.shards", 2).path

    def swap(content: dict[str, Any]) -> None:
        one, other = content["shards"]
        one["slots"], other["slots"] = other["slots"], one["slots"]

    _rewritten(home, swap)
    findings = check_sharded(home).findings
    assert [finding.kind for finding in findings] == ["contradiction", "contradiction"]
    assert all("whose names belong to another shard" in finding.what for finding in findings)


def test_no_index_is_not_a_sharded_one(tmp_path: Path, pair: Pair) -> None:
    with pytest.raises(NotFoundError, match="no sharded index"):
        ShardedIndex.open(tmp_path / "nothing")
    with pytest.raises(FormatError, match="not a sharded index"):
        ShardedIndex.open(pair.index.path)
    home = shard_index(pair.index.path, tmp_path / "x.shards", 2).path
    with pytest.raises(FormatError, match="a sharded index, expected a single one"):
        open_index(home)
    assert isinstance(open_any(home), ShardedIndex) and not isinstance(open_any(pair.index.path), ShardedIndex)
