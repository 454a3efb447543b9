"""Images in object storage: found, named, read and described without a cluster."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from asmk_engine.cli import commands
from asmk_engine.errors import DependencyError, InputError, NotFoundError, StorageError
from asmk_engine.extraction.attempts import Failed
from asmk_engine.extraction.run import extract_images
from asmk_engine.features import FeatureSet, part_names
from asmk_engine.images.objects import ObjectImage, find_anywhere, is_url, read_object
from misbehaving import Scripted

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed, which reads object storage")


@pytest.fixture
def memory(tmp_path: Path) -> tuple[object, str]:
    """A file system in memory, and a folder in it that no other test has."""
    return fsspec.filesystem("memory"), f"/{tmp_path.parent.name}-{tmp_path.name}"


def test_urls_are_told_from_paths() -> None:
    assert is_url("s3://bucket/a") and is_url("memory://a") and is_url("simplecache::s3://bucket/a")
    assert not any(map(is_url, ("photos/", "C:\\photos", "a://b"[1:], Path("s3://bucket"), "list.txt")))


def test_objects_are_named_below_their_url(memory: tuple[object, str]) -> None:
    storage, folder = memory
    for name in ("b.jpg", "a.PNG", "deep/er/c.jpeg", "notes.md", "deep/d"):
        storage.pipe(f"{folder}/{name}", name.encode())
    found = find_anywhere(f"memory:/{folder}")
    assert [image.name for image in found.images] == ["a.PNG", "b.jpg", "deep/er/c.jpeg"]
    assert [image.stored.read() for image in found.images] == [b"a.PNG", b"b.jpg", b"deep/er/c.jpeg"]
    assert {image.stored.size for image in found.images} == {5, 14} and all(one.stored.mtime for one in found.images)
    every = find_anywhere([f"memory:/{folder}/"], prefix="card2", every_file=True)
    assert [image.name for image in every.images][-1] == "card2/notes.md" and len(every.images) == 5
    one = find_anywhere(f"memory:/{folder}/b.jpg")
    assert [image.name for image in one.images] == ["b.jpg"]


def test_a_list_names_objects_by_what_follows_their_folder(memory: tuple[object, str]) -> None:
    storage, folder = memory
    for name in ("x/1.jpg", "y/2.jpg"):
        storage.pipe(f"{folder}/{name}", b"image")
    storage.pipe(f"{folder}/list.txt", f"memory:/{folder}/x/1.jpg\n\nmemory:/{folder}/y/2.jpg\n".encode())
    found = find_anywhere(f"memory:/{folder}/list.txt")
    assert [image.name for image in found.images] == ["x/1.jpg", "y/2.jpg"]
    storage.pipe(f"{folder}/list.txt", b"x/1.jpg\n")
    with pytest.raises(InputError, match="is no URL"):
        find_anywhere(f"memory:/{folder}/list.txt")
    storage.pipe(f"{folder}/list.txt", f"memory:/{folder}/x/none.jpg".encode())
    with pytest.raises(NotFoundError, match="no such object"):
        find_anywhere(f"memory:/{folder}/list.txt")
    storage.pipe(f"{folder}/list.txt", b"\xff\xfe\x00")
    with pytest.raises(InputError, match="save it as UTF-8"):
        find_anywhere(f"memory:/{folder}/list.txt")


def test_what_cannot_be_listed_is_told_in_one_line(memory: tuple[object, str], monkeypatch: pytest.MonkeyPatch) -> None:
    storage, folder = memory
    storage.pipe(f"{folder}/a/1.jpg", b"1")
    storage.pipe(f"{folder}/b/1.jpg", b"2")
    storage.pipe(f"{folder}/c/notes.md", b"3")
    cases = [
        ([f"memory:/{folder}/none"], NotFoundError, "none below it"),
        ([f"memory:/{folder}/c"], InputError, "no images found"),
        ([f"memory:/{folder}/a", "photos"], InputError, "one after the other"),
        ([f"memory:/{folder}/a", f"memory:/{folder}/b"], InputError, "that of another image"),
        (["nonsense://a"], InputError, "Protocol not known"),
        (["gs://bucket/a"], DependencyError, "gcsfs"),
    ]
    for given, kind, message in cases:
        with pytest.raises(kind, match=message) as error:
            find_anywhere(given)
        assert "\n" not in str(error.value)
    monkeypatch.setattr(type(storage), "cat_file", lambda *_, **__: 1 / 0)
    with pytest.raises(StorageError, match="check its address and credentials"):
        read_object(f"memory:/{folder}/a/1.jpg")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(DependencyError, match=r"asmk-engine\[ray\]"):
        find_anywhere(f"memory:/{folder}/a")


@pytest.mark.parametrize("workers", [0, 2])
def test_objects_are_described_as_files_are(memory: tuple[object, str], tmp_path: Path, workers: int) -> None:
    storage, folder = memory
    (tmp_path / "photos").mkdir()
    texts = {f"{number}.jpg": f"fine {number}" for number in range(5)} | {"5.jpg": "broken", "6.jpg": "nan"}
    for name, text in texts.items():
        (tmp_path / "photos" / name).write_text(text)
        storage.pipe(f"{folder}/{name}", text.encode())
    found = find_anywhere(f"memory:/{folder}")
    storage.rm(f"{folder}/2.jpg")
    here = extract_images(Scripted(), tmp_path / "photos", tmp_path / "here", workers=workers)
    there = extract_images(Scripted(), found, tmp_path / "there", workers=workers)
    assert {name: there.failed.get(name) for name in here.failed} == here.failed
    assert there.failed.keys() - here.failed.keys() == {"2.jpg"} and "no such object" in there.failed["2.jpg"]
    ours, theirs = FeatureSet.open(tmp_path / "here"), FeatureSet.open(tmp_path / "there")
    for name in theirs.names:
        assert np.array_equal(ours.read(name).descriptors, theirs.read(name).descriptors)
        assert ours.source(name).fingerprint == theirs.source(name).fingerprint
        stored = next(image.stored for image in found.images if image.name == name)
        assert (theirs.source(name).size, theirs.source(name).mtime) == (stored.size, stored.mtime)


def test_changed_objects_are_described_again(memory: tuple[object, str], tmp_path: Path) -> None:
    storage, folder = memory
    for name in ("1.jpg", "2.jpg"):
        storage.pipe(f"{folder}/{name}", b"fine 1")
    extract_images(Scripted(), find_anywhere(f"memory:/{folder}"), tmp_path / "set", workers=0)
    parts = part_names(tmp_path / "set")
    storage.pipe(f"{folder}/1.jpg", b"fine 1")  # stored again, with the same content
    storage.pipe(f"{folder}/2.jpg", b"fine 2")
    again = extract_images(Scripted(), find_anywhere(f"memory:/{folder}"), tmp_path / "set", workers=0)
    assert (again.extracted, again.unchanged) == (1, 1) and part_names(tmp_path / "set") != parts
    assert FeatureSet.open(tmp_path / "set").count("2.jpg") == 2


def test_the_command_takes_urls(memory: tuple[object, str], tmp_path: Path) -> None:
    storage, folder = memory
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    storage.pipe(f"{folder}/a.png", (tmp_path / "a.png").read_bytes())
    arguments = ["-o", str(tmp_path / "set"), "--max-features", "20", "--workers", "0"]
    done = CliRunner().invoke(commands, ["extract", f"memory:/{folder}", *arguments])
    assert done.exit_code == 0 and FeatureSet.open(tmp_path / "set").names == ["a.png"], done.output
    done = CliRunner().invoke(commands, ["extract", f"memory:/{folder}", *arguments, "--prune"])
    assert done.exit_code == 1 and "--prune was given with URLs" in str(done.exception or done.output)


def test_a_vanished_object_fails_alone() -> None:
    from asmk_engine.extraction.fetching import fetched
    from asmk_engine.images.listing import ImageFile

    gone = [
        ImageFile(str(number), Path(f"{number}.jpg"), stored=ObjectImage("memory://gone", 1, 1)) for number in (1, 2)
    ]
    outcomes = list(fetched(gone, lambda paths: iter([Failed("never") for _ in paths])))
    assert len(outcomes) == 2 and all("no such object" in outcome.reason for outcome in outcomes)
