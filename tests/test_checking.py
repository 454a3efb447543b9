"""`check` finds every kind of damage and no other; `repair` drops only what is broken, and keeps it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from asmk_engine.cli import commands
from asmk_engine.errors import DamagedError, FormatError, NotFoundError, StorageError
from asmk_engine.indexes.manifest import NAMES as COPIES
from asmk_engine.indexes.manifest import Manifest, SegmentEntry
from asmk_engine.inverted.index import Index
from asmk_engine.maintenance.checking import check_index
from asmk_engine.maintenance.repair import repair_index
from asmk_engine.storage import arrays
from asmk_engine.storage.arrays import map_arrays, write_arrays
from asmk_engine.storage.folder import Folder, WriterLock
from disks import CountedDisk, fast_disk
from histories import NAMES, feature_sets, observe, signed, small_codebook, small_limits, steps, write_on


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two segments of several ranges, the first with deletions, one of them of an image that the second replaced."""
    small_limits(monkeypatch, block=512)
    fast_disk(monkeypatch)
    index = Index.create(tmp_path / "index", small_codebook())
    index.add_signatures((name, signed(name)) for name in NAMES[:9])
    index.delete([NAMES[0], NAMES[4]])
    index.add_signatures((name, signed(name)) for name in NAMES[4:5] + NAMES[9:13])
    return index.path


def segments(path: Path) -> list[Path]:
    return [path / entry.file.name for entry in Index.open(path).snapshot.manifest.segments]


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-20 if path.suffix == ".json" else 2 * len(data) // 3] ^= 1  # after the header, before the checksums
    path.write_bytes(data)


def told(path: Path, fast: bool = False) -> list[str]:
    report = check_index(path, fast=fast)
    return [finding.file for finding in report.findings if finding.kind != "note"]


def test_a_life_is_clean_after_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_limits(monkeypatch)
    for _, step in steps(feature_sets(tmp_path / "features")):
        step(tmp_path / "index")
        for fast in (False, True):
            report = check_index(tmp_path / "index", fast=fast)
            assert report.clean and report.findings == ()
    assert repair_index(tmp_path / "index", write=True).done is False


def test_checking_changes_nothing(path: Path) -> None:
    damage(segments(path)[0])
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    check_index(path)
    assert repair_index(path).needed
    assert before == {file.name: file.read_bytes() for file in path.iterdir()}


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


def test_what_a_stopped_writer_leaves_is_a_note(path: Path) -> None:
    (path / "segment-000099.safetensors.tmp").write_bytes(b"half")
    old = (path / COPIES[1]).read_bytes()
    Index.open(path).delete([NAMES[1]])
    (path / COPIES[1]).write_bytes(old)
    (path / "photograph.jpg").write_bytes(b"mine")
    report = check_index(path)
    assert report.clean and {finding.file for finding in report.findings} >= {COPIES[1], "photograph.jpg"}


Alter = Callable[[dict[str, np.ndarray]], object]


def rewrite(path: Path, alter: Alter) -> None:
    """Alter the arrays of the first segment, with checksums that fit: what only the invariants can tell."""
    folder = Folder(path)
    manifest = Index.open(path).snapshot.manifest
    first = manifest.segments[0]
    file = map_arrays(folder, first.file.name)
    content = {name: array.copy() for name, array in file.arrays.items() if name != arrays.CHECKSUMS}
    alter(content)
    checksum = write_arrays(folder, first.file.name, content, file.metadata)
    entry = replace(first.file, checksum=checksum, bytes=folder.size(first.file.name))
    publish(folder, replace(manifest, segments=(replace(first, file=entry), *manifest.segments[1:])))


def publish(folder: Folder, manifest: Manifest) -> None:
    folder.replace_manifest(COPIES, manifest.to_json())


def put(name: str, place: Any, value: Any) -> Alter:
    return lambda content: content[name].__setitem__(place, value)


def swap(name: str, one: int, other: int) -> Alter:
    return lambda content: content[name].__setitem__([one, other], content[name][[other, one]])


CONTRADICTIONS: list[tuple[str, Alter, bool]] = [
    ("posting_starts does not rise", put("posting_starts", 1, 0), True),
    ("posting_starts does not rise", put("posting_starts", 0, 1), True),
    ("id_starts does not begin", put("id_starts", 0, 1), True),
    ("not as long as their image numbers", lambda content: content["id_starts"][1:-1].__iadd__(1), True),
    ("holds a word of", put("list_words", -1, 1 << 20), True),
    ("do not increase", swap("list_words", 0, 1), True),
    ("contradict each other", put("range_starts", 1, 10_000), True),
    ("word_counts and the number", put("word_counts", 3, 77), True),
    ("word_counts and the postings", swap("word_counts", 0, 1), False),
    ("increasing image numbers", lambda content: content["ids"][:-64].fill(255), False),
    ("bit beyond the last", lambda content: content["codes"].__ior__(np.uint64(1 << 60)), False),
    ("after the last list", put("ids", -1, 1), False),
    ("name_order does not hold", put("name_order", 0, 1), True),
    ("not in order", swap("name_order", 0, 1), True),
    ("name_offsets leaves out", put("name_offsets", 0, 1), True),
    ("is outside the file", put("name_offsets", 1, 10_000), True),
    ("not UTF-8", put("name_bytes", 0, 255), True),
    ("NUL", put("name_bytes", 0, 0), True),
]


@pytest.mark.parametrize(("message", "alter", "tables"), CONTRADICTIONS)
def test_what_no_checksum_tells_is_found(path: Path, message: str, alter: Alter, tables: bool) -> None:
    segment = segments(path)[0].name
    rewrite(path, alter)
    (finding,) = [finding for finding in check_index(path).findings if finding.kind != "note"]
    assert finding.file == segment and message in finding.what
    assert told(path, fast=True) == ([segment] if tables else [])
    repair_index(path, write=True)
    assert set(Index.open(path).names) == {NAMES[4], *NAMES[9:13]}


ALTERED: list[tuple[Callable[[Manifest], Manifest], list[str]]] = [
    (lambda m: replace(m, next=m.next - 1), NAMES[1:4] + NAMES[4:13]),
    (lambda m: replace(m, segments=m.segments + m.segments[1:]), NAMES[1:4] + NAMES[4:13]),
    (lambda m: replace(m, segments=(without_deletions(m), m.segments[1])), NAMES[:13]),
    (lambda m: replace(m, segments=(replace(m.segments[0], deleted_images=1), m.segments[1])), NAMES[:13]),
    (lambda m: replace(m, segments=(replace(m.segments[0], images=8), m.segments[1])), [NAMES[4], *NAMES[9:13]]),
    (lambda m: replace(m, segments=(replace(m.segments[0], entries=8), m.segments[1])), [NAMES[4], *NAMES[9:13]]),
]


def without_deletions(manifest: Manifest) -> SegmentEntry:
    return replace(manifest.segments[0], deleted=None, deleted_images=0)


@pytest.mark.parametrize(("alter", "left"), ALTERED)
def test_a_manifest_that_contradicts_the_files_is_told(
    path: Path, alter: Callable[[Manifest], Manifest], left: list[str]
) -> None:
    publish(Folder(path), alter(Index.open(path).snapshot.manifest))
    assert told(path)
    assert repair_index(path, write=True).done
    assert told(path) == [] and Index.open(path).names == left


def test_a_damaged_copy_of_the_manifest_is_written_anew_and_kept(path: Path) -> None:
    expected = observe(path)
    for number, name in enumerate(COPIES, start=1):
        damage(path / name)
        broken = (path / name).read_bytes()
        planned = repair_index(path)
        assert (planned.moved, planned.rewritten, planned.done) == ((name,), (name,), False)
        done = repair_index(path, write=True)
        assert done == replace(planned, done=True) and done.lost == 0
        assert (path / f"dropped-{number}" / name).read_bytes() == broken
        assert (path / COPIES[0]).read_bytes() == (path / COPIES[1]).read_bytes()
        assert observe(path) == expected and told(path) == []
    assert not repair_index(path, write=True).needed


def test_a_missing_or_lagging_copy_is_written_anew(path: Path) -> None:
    old = (path / COPIES[1]).read_bytes()
    Index.open(path).delete([NAMES[1]])
    expected = observe(path)
    (path / COPIES[1]).write_bytes(old)
    assert repair_index(path, write=True).rewritten == (COPIES[1],)
    assert observe(path) == expected
    (path / COPIES[0]).unlink()
    assert repair_index(path, write=True).moved == ()
    assert observe(path) == expected and not repair_index(path).needed


def test_a_damaged_segment_leaves_and_the_rest_stays(path: Path) -> None:
    first, second = segments(path)
    damage(first)
    broken = first.read_bytes()
    done = repair_index(path, write=True)
    assert done.lost == 7 and set(done.lost_names) <= {*NAMES[:9]}
    assert (path / done.folder / first.name).read_bytes() == broken
    assert Index.open(path).names == sorted([NAMES[4], *NAMES[9:13]])
    assert second.exists() and told(path) == []
    folder = path / done.folder
    write_on_beside(path, folder)


def write_on_beside(path: Path, dropped: Path) -> None:
    """The next writer leaves what was dropped where it is."""
    kept = {file.name: file.read_bytes() for file in dropped.iterdir()}
    hidden = dropped.rename(path.parent / "hidden")
    write_on(path)
    hidden.rename(dropped)
    Index.open(path).merge()
    assert kept == {file.name: file.read_bytes() for file in dropped.iterdir()}


def test_damaged_deletions_are_forgotten_but_no_name_comes_twice(path: Path) -> None:
    deletions = next(path.glob("deleted-*"))
    damage(deletions)
    done = repair_index(path, write=True)
    assert (done.lost, done.returned, done.moved) == (0, 1, (deletions.name,))
    index = Index.open(path)
    assert index.names == NAMES[:13] and told(path) == []
    assert index.snapshot.find(NAMES[4]) == (1, 0)  # the newer one


def test_a_missing_segment_and_its_deletions_leave_together(path: Path) -> None:
    first, _ = segments(path)
    first.unlink()
    done = repair_index(path, write=True)
    assert len(done.moved) == 1 and done.moved[0].startswith("deleted-")
    assert len(Index.open(path)) == 5


def test_the_commit_before_is_kept_where_it_loses_less(path: Path) -> None:
    """A merge was stopped between the two copies of the manifest, and its segment is damaged."""
    expected = observe(path)
    old, files = (path / COPIES[1]).read_bytes(), {file: file.read_bytes() for file in path.glob("*.safetensors")}
    Index.open(path).merge()
    (path / COPIES[1]).write_bytes(old)
    for file, data in files.items():
        file.write_bytes(data)
    (merged,) = {*path.glob("segment-*")} - {*files}
    commit = check_index(path).manifest
    damage(merged)
    done = repair_index(path, write=True)
    assert commit is not None and done.commit == commit.commit + 1 and done.moved == (merged.name,)
    assert observe(path) == expected and told(path) == []


def test_a_sound_last_commit_is_never_taken_back(path: Path) -> None:
    old, files = (path / COPIES[1]).read_bytes(), {file: file.read_bytes() for file in path.glob("*.safetensors")}
    Index.open(path).delete(NAMES[9:13])
    expected = observe(path)
    (path / COPIES[1]).write_bytes(old)
    for file, data in files.items():
        file.write_bytes(data)
    assert repair_index(path, write=True).rewritten == (COPIES[1],)
    assert observe(path) == expected


def test_what_cannot_be_saved_is_refused(path: Path, tmp_path: Path) -> None:
    codebook = next(path.glob("codebook-*"))
    whole = codebook.read_bytes()
    damage(codebook)
    with pytest.raises(DamagedError, match="the index is unusable without the codebook"):
        repair_index(path, write=True)
    codebook.write_bytes(whole)
    with WriterLock(path), pytest.raises(StorageError, match="another process"):
        repair_index(path, write=True)
    for copy in COPIES:
        damage(path / copy)
    assert not check_index(path).clean
    with pytest.raises(DamagedError, match="checksum"):
        repair_index(path, write=True)
    with pytest.raises(NotFoundError):
        check_index(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError):
        repair_index(tmp_path / "empty")


class Killed(BaseException):
    """The process ends here."""


def test_a_repair_that_was_stopped_is_begun_again(path: Path, tmp_path: Path) -> None:
    damage(segments(path)[0])
    number, stopped = 0, True
    while stopped:
        number += 1
        broken = tmp_path / f"broken-{number}"
        shutil.copytree(path, broken)

        def react(count: int, last: int = number) -> None:
            if count >= last:
                raise Killed

        stopped = False
        with pytest.MonkeyPatch.context() as patch:
            CountedDisk(patch, react)
            try:
                repair_index(broken, write=True)
            except Killed:
                stopped = True
        repair_index(broken, write=True)
        assert len(Index.open(broken)) == 5 and told(broken) == []
        dropped = [file.name for folder in broken.glob("dropped-*") for file in folder.iterdir()]
        assert segments(path)[0].name in dropped
    assert number > 20


def command(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(commands, list(map(str, arguments)))
    return result.exit_code, result.output


def test_the_commands_tell_and_exit_as_documented(path: Path) -> None:
    assert command("check", path)[0] == 0 and "clean" in command("check", path)[1]
    assert command("check", path, "--slow")[0] == 2
    damage(segments(path)[0])
    code, output = command("check", path)
    assert code == 1 and "damage " in output and "were altered" in output
    code, output = command("check", path, "--json", "--fast")
    report = json.loads(output)
    assert report["fast"] and report["files"] == 4 and report["clean"] == (code == 0)
    code, output = command("repair", path)
    assert code == 0 and "nothing was changed" in output and command("check", path)[0] == 1
    code, output = command("repair", path, "--yes")
    assert code == 0 and "7 images lost" in output
    assert json.loads(command("check", path, "--json")[1])["clean"]
    assert "nothing to repair" in command("repair", path)[1]
    assert not json.loads(command("repair", path, "--json")[1])["needed"]
