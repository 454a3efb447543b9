"""What a call finds on real disks: locked folders, links in circles, files twice, lists of other programs."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asmk_engine.errors import InputError, NotFoundError, StorageError
from asmk_engine.images import listing as image_lists
from asmk_engine.images.listing import NO_EXTENSION, NO_FILE, ImageFile, ImageList, find_images
from asmk_engine.images.roots import UNKNOWN, Root
from samples import as_ordinary_user

JPEG = b"\xff\xd8\xff\xe0"


def store(folder: Path, *names: str, content: bytes | None = None) -> Path:
    """Files below a folder, each with bytes of its own unless `content` is given."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(path) if content is None else content)
    return folder


def link(path: Path, target: Path | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


def names(found: ImageList) -> list[str]:
    return [image.name for image in found.images]


def check_files(found: ImageList) -> None:
    """Every image is the file that its root says."""
    for image in found.images:
        file = image.root.file(image.name)
        assert file is not None and file.samefile(image.path)


# ------------------------------------------------------------------------------------------------------- locked

LISTING = """
import json, os, sys
from asmk_engine.errors import AsmkError
from asmk_engine.images.listing import find_images
try:
    found = find_images(json.loads(sys.argv[1]))
    print(json.dumps([[image.name for image in found.images], found.failures, found.unlisted]))
except AsmkError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


@contextmanager
def mode(path: Path, bits: int) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(bits)
    try:
        yield
    finally:
        path.chmod(before)


def listed_by_ordinary_user(*inputs: Path) -> list:
    """What a process to which permissions apply finds: root's do not, until it gives up its capabilities."""
    done = as_ordinary_user([sys.executable, "-c", LISTING, json.dumps(list(map(str, inputs)))])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("bits", [0o000, 0o400, 0o100, 0o200], ids=oct)
def test_a_locked_folder_does_not_end_the_listing(tmp_path: Path, bits: int) -> None:
    store(tmp_path, "a.jpg", "b/b.jpg", "b/deep/c.jpg", "z/d.jpg")
    with mode(tmp_path / "b", bits):
        found, failures, unlisted = listed_by_ordinary_user(tmp_path)
    assert found == ["a.jpg", "z/d.jpg"] and failures == {}
    assert unlisted == {str(tmp_path / "b"): "the folder cannot be listed: Permission denied"}


def test_links_into_a_locked_place_are_told_and_the_rest_is_listed(tmp_path: Path) -> None:
    store(tmp_path, "photos/a.jpg", "photos/z.jpg", "locked/b.jpg", "locked/folder/c.jpg")
    link(tmp_path / "photos/b.jpg", tmp_path / "locked/b.jpg")
    link(tmp_path / "photos/folder", tmp_path / "locked/folder")
    with mode(tmp_path / "locked", 0o000):
        found, failures, unlisted = listed_by_ordinary_user(tmp_path / "photos")
    assert found == ["a.jpg", "z.jpg"] and failures == {}
    assert unlisted == {
        str(tmp_path / "photos" / name): "cannot be examined: Permission denied" for name in ("b.jpg", "folder")
    }


def test_a_locked_input_among_others_is_told_and_alone_is_an_error(tmp_path: Path) -> None:
    store(tmp_path, "open/a.jpg", "locked/below/b.jpg")
    locked, below = tmp_path / "locked", tmp_path / "locked/below"
    with mode(locked, 0o000):
        assert listed_by_ordinary_user(locked, tmp_path / "open", below) == [
            ["a.jpg"],
            {},
            {
                str(locked): "the folder cannot be listed: Permission denied",
                str(below): "cannot be examined: Permission denied",
            },
        ]
        kind, message = listed_by_ordinary_user(locked)
        assert kind == "InputError"
        assert message.startswith(f"{locked}: no images found: the folder cannot be listed: Permission denied;")
        kind, message = listed_by_ordinary_user(below, locked)
        assert kind == "InputError" and "cannot be examined: Permission denied (and 1 more);" in message


def test_what_a_list_names_in_a_locked_folder_is_told(tmp_path: Path) -> None:
    store(tmp_path, "a.jpg", "locked/b.jpg", "locked/c.jpg")
    store(tmp_path, "list.txt", content=b"locked/b.jpg\na.jpg\nlocked/c.jpg\n")
    with mode(tmp_path / "locked", 0o000):
        found, failures, unlisted = listed_by_ordinary_user(tmp_path / "list.txt")
    assert found == ["a.jpg"] and failures == {}
    assert list(unlisted) == [str(tmp_path / "locked")]


def test_an_unreadable_photograph_stays_an_image(tmp_path: Path) -> None:
    store(tmp_path, "a.jpg", "b.jpg")
    with mode(tmp_path / "b.jpg", 0o000):
        assert listed_by_ordinary_user(tmp_path) == [["a.jpg", "b.jpg"], {}, {}]


def test_a_link_to_a_disk_that_is_away_is_told(tmp_path: Path) -> None:
    store(tmp_path, "a.jpg")
    link(tmp_path / "nas", tmp_path / "away/photos")
    link(tmp_path / "loop", "loop")
    found = find_images(tmp_path)
    assert names(found) == ["a.jpg"]
    assert found.unlisted == {str(tmp_path / name): "a broken link" for name in ("nas", "loop")}
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(InputError, match=r": no images found: a broken link \(and 1 more\); check"):
        find_images(tmp_path)


# -------------------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("count", [2, 7])
def test_folders_that_link_to_each_other_give_each_file_once(tmp_path: Path, count: int) -> None:
    for one in range(count):
        store(tmp_path, f"{one}/{one}.jpg")
        for other in range(count):
            link(tmp_path / f"{one}/to{other}", tmp_path / str(other))
    found = find_images(tmp_path)
    assert names(found) == [f"{one}/{one}.jpg" for one in range(count)]
    assert found.same == {} and found.unlisted == {}
    assert names(find_images(tmp_path / "1")) == sorted(
        ["1.jpg", *(f"to{other}/{other}.jpg" for other in range(count) if other != 1)]
    )


def test_a_link_never_takes_the_name_from_a_real_folder_or_file(tmp_path: Path) -> None:
    store(tmp_path, "photos/m/deep/a.jpg", "photos/m/b.jpg", "elsewhere/c.jpg")
    link(tmp_path / "photos/z", tmp_path / "elsewhere")
    before = names(find_images(tmp_path / "photos"))
    assert before == ["m/b.jpg", "m/deep/a.jpg", "z/c.jpg"]
    link(tmp_path / "photos/a", tmp_path / "photos/m")
    link(tmp_path / "photos/b", tmp_path / "photos/m/deep")
    link(tmp_path / "photos/c.jpg", tmp_path / "photos/m/b.jpg")
    link(tmp_path / "photos/up", tmp_path / "photos")
    found = find_images(tmp_path / "photos")
    assert names(found) == before
    assert found.same == {"c.jpg": "m/b.jpg"}


def test_of_links_to_one_folder_the_first_and_nearest_is_taken(tmp_path: Path) -> None:
    store(tmp_path, "there/a.jpg", "there/below/b.jpg", "photos/own.jpg", "far/x.jpg")
    link(tmp_path / "far/a", tmp_path / "there")
    link(tmp_path / "photos/a", tmp_path / "far")  # leads there by two links
    link(tmp_path / "photos/n", tmp_path / "there")
    link(tmp_path / "photos/m", tmp_path / "there")
    found = find_images(tmp_path / "photos")
    assert names(found) == ["a/x.jpg", "m/a.jpg", "m/below/b.jpg", "own.jpg"]
    check_files(found)


def test_a_folder_deeper_than_the_recursion_limit_is_walked(tmp_path: Path) -> None:
    folders = [tmp_path]
    for _ in range(sys.getrecursionlimit() + 100):
        folders.append(folders[-1] / "d")
        folders[-1].mkdir()
    store(folders[-1], "a.jpg")
    try:
        found = find_images(tmp_path)
    finally:
        (folders[-1] / "a.jpg").unlink()
        for folder in reversed(folders[1:]):  # the clean-up of pytest would not get that far down
            folder.rmdir()
    assert names(found) == [f"{'d/' * (len(folders) - 1)}a.jpg"]


# --------------------------------------------------------------------------------------------------- files twice


def test_one_file_of_several_names_is_taken_once(tmp_path: Path) -> None:
    store(tmp_path, "b.jpg", "c.jpg")
    link(tmp_path / "a.jpg", "b.jpg")
    os.link(tmp_path / "c.jpg", tmp_path / "d.jpg")
    link(tmp_path / "e.jpg", "d.jpg")
    found = find_images(tmp_path)
    assert names(found) == ["b.jpg", "c.jpg"]
    assert found.same == {"a.jpg": "b.jpg", "d.jpg": "c.jpg", "e.jpg": "c.jpg"}


def test_a_link_to_a_file_outside_is_an_image_and_the_second_of_two_is_not(tmp_path: Path) -> None:
    store(tmp_path, "elsewhere/x.jpg", "photos/m.jpg")
    link(tmp_path / "photos/b.jpg", tmp_path / "elsewhere/x.jpg")
    link(tmp_path / "photos/z.jpg", tmp_path / "elsewhere/x.jpg")
    found = find_images(tmp_path / "photos")
    assert names(found) == ["b.jpg", "m.jpg"] and found.same == {"z.jpg": "b.jpg"}
    check_files(found)


def test_two_dangling_links_are_two_images_that_cannot_be_read(tmp_path: Path) -> None:
    link(tmp_path / "a.jpg", "gone.jpg")
    link(tmp_path / "b.jpg", "gone.jpg")
    assert names(find_images(tmp_path)) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("again", ["{}", "{}/", "{}/../photos", "relative", "link"])
def test_a_folder_given_twice_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: str) -> None:
    folder = store(tmp_path / "photos", "a.jpg", "2024/b.jpg", "x.mov")
    monkeypatch.chdir(tmp_path)
    link(tmp_path / "link", folder)
    second = {"relative": "photos", "link": "link"}.get(again, again.format(folder))
    found = find_images([folder, second])
    assert names(found) == ["2024/b.jpg", "a.jpg"]
    assert found.same == {} and found.passed_over == {".mov": 1}
    assert found.roots == (Root.of(folder),)


def test_nested_folders_give_each_file_the_name_of_the_first(tmp_path: Path) -> None:
    store(tmp_path, "a.jpg", "2024/a.jpg", "2024/05/b.jpg")
    outer, inner, inmost = tmp_path, tmp_path / "2024", tmp_path / "2024/05"
    found = find_images([outer, inner])
    assert names(found) == ["2024/05/b.jpg", "2024/a.jpg", "a.jpg"]
    assert found.same == {"05/b.jpg": "2024/05/b.jpg"}  # a.jpg is the name of another image
    assert found.roots == (Root.of(outer), Root.of(inner))
    store(tmp_path, "2024/c.jpg")
    (tmp_path / "a.jpg").unlink()
    found = find_images([inmost, inner, outer])
    assert names(found) == ["b.jpg", "a.jpg", "c.jpg"]
    assert found.same == {
        "05/b.jpg": "b.jpg",
        "2024/05/b.jpg": "b.jpg",
        "2024/a.jpg": "a.jpg",
        "2024/c.jpg": "c.jpg",
    }
    check_files(found)


def test_a_file_beside_its_folder_and_a_list_of_the_same_files(tmp_path: Path) -> None:
    store(tmp_path, "p/a.jpg", "p/s/b.jpg", "p/notes.md")
    store(tmp_path, "list.txt", content=b"p/s/b.jpg\np/a.jpg\np/notes.md\n")
    found = find_images([tmp_path / "p/s/b.jpg", tmp_path / "p", tmp_path / "list.txt"])
    assert names(found) == ["b.jpg", "a.jpg", "p/notes.md"]
    assert found.same == {"s/b.jpg": "b.jpg", "p/s/b.jpg": "b.jpg", "p/a.jpg": "a.jpg"}
    assert found.roots == (Root.of(tmp_path / "p"), Root.of(tmp_path))
    assert [image.root for image in found.images] == [Root.of(tmp_path / folder) for folder in ("p/s", "p", "")]
    check_files(found)


def test_a_link_given_first_gives_way_to_the_file(tmp_path: Path) -> None:
    store(tmp_path, "photos/a.jpg")
    link(tmp_path / "latest.jpg", tmp_path / "photos/a.jpg")
    found = find_images([tmp_path / "latest.jpg", tmp_path / "photos"])
    assert names(found) == ["a.jpg"] and found.same == {"latest.jpg": "a.jpg"}


def test_equal_numbers_of_different_files_are_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on file systems made of layers, where numbers repeat, or have none at all."""
    store(tmp_path, "a.jpg", "b.jpg")
    real = os.scandir

    class Numbered:
        def __init__(self, entry: os.DirEntry[str], number: int) -> None:
            self._entry, self._number = entry, number

        def __getattr__(self, name: str) -> object:
            return getattr(self._entry, name)

        def inode(self) -> int:
            return self._number

    for number in (7, 0):

        @contextmanager
        def scandir(path: str, number: int = number) -> Iterator[list[Numbered]]:
            with real(path) as entries:
                yield [Numbered(entry, number) for entry in entries]

        monkeypatch.setattr(os, "scandir", scandir)
        assert names(find_images(tmp_path)) == ["a.jpg", "b.jpg"]


# -------------------------------------------------------------------------------------------------------- clashes


def test_equal_copies_of_one_name_are_one_image(tmp_path: Path) -> None:
    store(tmp_path, "one/a.jpg", "two/a.jpg", "one/s/b.jpg", "two/s/b.jpg", content=b"the same")
    found = find_images([tmp_path / "one", tmp_path / "two"])
    assert [image.path for image in found.images] == [tmp_path / "one/a.jpg", tmp_path / "one/s/b.jpg"]
    assert found.same == {}
    check_files(found)


@pytest.mark.parametrize(("count", "more"), [(1, ""), (3, ""), (4, " and 1 more"), (12, " and 9 more")])
def test_different_files_of_one_name_are_told_at_once(tmp_path: Path, count: int, more: str) -> None:
    for folder in ("one", "two"):
        store(tmp_path / folder, *(f"{number:02d}.jpg" for number in range(count)))
        store(tmp_path / folder, "equal.jpg", content=b"the same")
    with pytest.raises(InputError) as caught:
        find_images([tmp_path / "one", tmp_path / "two"])
    message = str(caught.value)
    assert message.count(" would both be named ") == min(count, 3)
    assert f"{tmp_path}/one/00.jpg and {tmp_path}/two/00.jpg would both be named '00.jpg'" in message
    assert f"'{more}; index the folders one after the other, the second with --prefix NAME, to keep both" in message
    assert "\n" not in message


def test_a_missing_input_is_said_before_any_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, "a.jpg")
    monkeypatch.setattr(os, "scandir", lambda path: pytest.fail("a folder was read"))
    with pytest.raises(NotFoundError, match="no such folder or file"):
        find_images([tmp_path, tmp_path / "none"])


# ---------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("prefix", ["card2", "card2/", "2024/karte 2", "ü/"])
def test_a_prefix_begins_all_names(tmp_path: Path, prefix: str) -> None:
    store(tmp_path, "p/a.jpg", "p/s/b.jpg", "single.jpg", "l/c.jpg")
    os.link(tmp_path / "p/a.jpg", tmp_path / "p/z.jpg")
    store(tmp_path, "l/list.txt", content=b"c.jpg\n../x.jpg\n")
    start = prefix.removesuffix("/") + "/"
    found = find_images([tmp_path / "p", tmp_path / "single.jpg", tmp_path / "l/list.txt"], prefix=prefix)
    assert names(found) == [start + name for name in ("a.jpg", "s/b.jpg", "single.jpg", "c.jpg")]
    assert found.same == {f"{start}z.jpg": f"{start}a.jpg"} and list(found.failures) == [f"{start}../x.jpg"]
    assert found.roots == (Root.of(tmp_path / "p", start), Root.of(tmp_path / "l", start))
    assert found.root == ""
    check_files(found)


@pytest.mark.parametrize("prefix", ["/", "/card", "..", "a/../b", "a//b", "./a", "card//", "n\0l", "\ud800"])
def test_a_prefix_that_cannot_begin_a_name_is_refused(tmp_path: Path, prefix: str) -> None:
    store(tmp_path, "a.jpg")
    with pytest.raises(InputError, match="cannot start the name of an image; expected a path such as card2") as caught:
        find_images(tmp_path, prefix=prefix)
    str(caught.value).encode()


def test_a_prefix_keeps_two_cards_apart(tmp_path: Path) -> None:
    store(tmp_path, "one/a.jpg", "two/a.jpg")
    assert names(find_images(tmp_path / "one")) == ["a.jpg"]
    assert names(find_images(tmp_path / "two", prefix="two")) == ["two/a.jpg"]


def test_a_folder_whose_own_name_is_no_unicode(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"Pr\xe4sentation")
    try:
        store(folder, "a.jpg", "s/b.jpg", os.fsdecode(b"\xe4.jpg"))
    except OSError:
        pytest.skip("this file system allows Unicode names only")
    store(folder, "list.txt", content=b"a.jpg\ngone.jpg\n")
    found = find_images(folder)
    assert names(found) == ["a.jpg", "s/b.jpg"]
    assert list(found.failures.values()) == ["the name is not valid Unicode; rename the file"]
    assert found.roots == (Root(os.path.realpath(folder)),)
    check_files(found)
    assert names(find_images(folder / "list.txt")) == ["a.jpg", "gone.jpg"]
    assert names(find_images(folder / "a.jpg")) == ["a.jpg"]
    with pytest.raises(NotFoundError) as caught:
        find_images(folder / "none")
    str(caught.value).encode()


def test_an_image_is_its_name_and_file(tmp_path: Path) -> None:
    store(tmp_path, "a.jpg")
    assert ImageFile("a.jpg", tmp_path / "a.jpg").root == UNKNOWN
    assert find_images(tmp_path).images == [ImageFile("a.jpg", tmp_path / "a.jpg")]
    short = ImageList([], "", {})
    assert (short.roots, short.unlisted, short.same, short.passed_over) == ((), {}, {}, {})


# ---------------------------------------------------------------------------------------------------- passed over


def test_what_is_no_image_is_counted_by_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, "a.JPG", "b.MOV", "s/c.mov", "d", "s/e", "f.", "notes.txt", ".hidden", ".git/x.mov", "x.tar.gz")
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)  # the whole path would be too long for a socket
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        found = find_images(tmp_path)
    assert names(found) == ["a.JPG"]
    assert found.passed_over == {NO_EXTENSION: 3, NO_FILE: 2, ".mov": 2, ".gz": 1, ".txt": 1}
    assert next(iter(found.passed_over)) == NO_EXTENSION


@pytest.mark.parametrize("readable", [False, True])
def test_heic_is_an_image_where_it_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readable: bool) -> None:
    monkeypatch.setattr(image_lists, "heif_is_readable", lambda suffix: readable)
    store(tmp_path, "a.HEIC", "b.heic", "c.avif")
    if readable:
        assert names(find_images(tmp_path)) == ["a.HEIC", "b.heic", "c.avif"]
        return
    cure = r": pip install 'asmk-engine\[heif\]' reads them$"
    with pytest.raises(InputError, match=rf"no images found; it holds 2 \.heic files, 1 \.avif file{cure}"):
        find_images(tmp_path)
    with pytest.raises(InputError, match=cure):
        find_images(tmp_path, every_file=True)
    store(tmp_path, "d.jpg")
    found = find_images(tmp_path)
    assert names(found) == ["d.jpg"] and found.passed_over == {".heic": 2, ".avif": 1}


def test_files_without_an_extension_are_taken_when_asked_for(tmp_path: Path) -> None:
    store(tmp_path, "one", "s/two", content=JPEG)
    store(tmp_path, "three", "four.dat", content=b"no image")
    store(tmp_path, "five.dat", content=JPEG)
    cure = "it holds 3 files without an extension: --all-files accepts those that are images$"
    with pytest.raises(InputError, match=cure):
        find_images(tmp_path)
    found = find_images(tmp_path, every_file=True)
    assert names(found) == ["five.dat", "one", "s/two"]
    assert found.passed_over == {".dat": 1, NO_EXTENSION: 1}


def test_a_folder_of_other_files_says_what_it_holds(tmp_path: Path) -> None:
    store(tmp_path, "a.mov", "b.mov", "c.md", "d.x", "e.y")
    expected = r"no images found; expected files ending in \.jpg .*; it holds 2 \.mov, 1 \.\w+, 1 \.\w+ and others$"
    for every_file in (False, True):
        with pytest.raises(InputError, match=expected):
            find_images(tmp_path, every_file=every_file)
    store(tmp_path, "full/x.jpg")
    store(tmp_path, "empty/x.md")
    with pytest.raises(InputError, match="empty: no images found"):
        find_images([tmp_path / "full", tmp_path / "empty"])
    link(tmp_path / "circle/back", tmp_path / "circle")
    with pytest.raises(InputError, match="circle: no images found"):
        find_images(tmp_path / "circle")


# ---------------------------------------------------------------------------------------------------------- lists


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_in_every_unicode_are_read(tmp_path: Path, encoding: str, end: str) -> None:
    listed = ["ä.jpg", "日本/b.jpg", "no suffix", "d.dat"]
    store(tmp_path, *listed)
    store(tmp_path, "list.txt", content=end.join([*listed, ""]).encode(encoding))
    assert names(find_images(tmp_path / "list.txt")) == listed


def test_big_endian_utf_16_is_read(tmp_path: Path) -> None:
    store(tmp_path, "ä.jpg")
    store(tmp_path, "list.txt", content=b"\xfe\xff" + "ä.jpg\r\n".encode("utf-16-be"))
    assert names(find_images(tmp_path / "list.txt")) == ["ä.jpg"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.jpg\r\nb.jpg\r\n".encode("utf-16-le"), "zero bytes, like UTF-16 without its byte order mark"),
        ("a.jpg\nä.jpg\n".encode("utf-16-be"), "zero bytes, like UTF-16 without its byte order mark"),
        (b"\xff\xfea\0\n", "starts as UTF-16 but is invalid at byte"),
        ("ä.jpg\nö.jpg\n".encode("latin-1"), "2 of the 2 lines of the list, first line 1, are not UTF-8"),
        (JPEG + bytes(range(128, 256)), "1 of the 1 lines of the list, first line 1, are not UTF-8"),
    ],
    ids=["utf-16-le", "utf-16-be", "cut", "latin-1", "a photograph"],
)
def test_a_list_that_is_no_text_says_why_and_what_helps(tmp_path: Path, content: bytes, message: str) -> None:
    store(tmp_path, "a.jpg")
    store(tmp_path, "list.txt", content=content)
    with pytest.raises(InputError, match=rf"list\.txt: .*{message}.*save it as UTF-8"):
        find_images(tmp_path / "list.txt")


def test_a_line_of_other_bytes_is_a_failure_that_tells_list_and_file_apart(tmp_path: Path) -> None:
    store(tmp_path, "a.jpg", "b.jpg", "ö.jpg")
    raw = os.fsdecode(b"\xe4.jpg")
    try:
        store(tmp_path, raw)
    except OSError:
        pytest.skip("this file system allows Unicode names only")
    store(tmp_path, "list.txt", content=b"a.jpg\n\xe4.jpg\nb.jpg\n\xf6.jpg\n")
    found = find_images(tmp_path / "list.txt")
    assert names(found) == ["a.jpg", "b.jpg"]
    assert found.failures["%ED%B3%A4.jpg"] == "the name is not valid Unicode; rename the file"
    assert "save the list as UTF-8" in found.failures["%ED%B3%B6.jpg"]


def test_paths_below_the_current_folder_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, "here/photos/a.jpg", "here/photos/b.jpg", "lists/c.jpg")
    listed = tmp_path / "lists/list.txt"
    monkeypatch.chdir(tmp_path / "here")
    listed.write_text("photos/a.jpg\n./photos/b.jpg\n")
    with pytest.raises(InputError, match=r"relative to the current folder, not to that of the list: 'photos/a\.jpg'"):
        find_images(listed)
    listed.write_text("photos/a.jpg\nc.jpg\ngone.jpg\n")
    found = find_images(listed)
    assert names(found) == ["c.jpg", "gone.jpg"]
    assert "not next to the list, but below the current folder" in found.failures["photos/a.jpg"]
    monkeypatch.chdir(tmp_path / "lists")
    assert names(find_images("list.txt")) == ["photos/a.jpg", "c.jpg", "gone.jpg"]


def test_a_misplaced_line_beside_absolute_ones_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, "here/a.jpg", "there/b.jpg")
    store(tmp_path, "lists/list.txt", content=f"a.jpg\n{tmp_path}/there/b.jpg\n".encode())
    monkeypatch.chdir(tmp_path / "here")
    found = find_images(tmp_path / "lists/list.txt")
    assert [image.path for image in found.images] == [tmp_path / "there/b.jpg"]
    assert list(found.failures) == [f"{tmp_path}/lists/a.jpg".removeprefix("/")]
    assert found.roots == (Root(tmp_path.anchor),)
    check_files(found)


def test_lines_that_name_no_file_fail_each_for_its_reason(tmp_path: Path) -> None:
    store(tmp_path, "a.jpg", "folder/b.jpg")
    os.mkfifo(tmp_path / "pipe")
    link(tmp_path / "dangling.jpg", "gone")
    long = "x" * 300
    store(tmp_path, "list.txt", content=f"folder\na.jpg\npipe\n{long}\ndangling.jpg\ngone.jpg\n.\n".encode())
    found = find_images(tmp_path / "list.txt")
    assert names(found) == ["a.jpg", "dangling.jpg", "gone.jpg"]
    assert found.failures.keys() == {"folder", "pipe", long, "."}
    assert found.failures["folder"].startswith("is a folder, but a list names files")
    assert found.failures["pipe"].startswith("is a pipe or a device")
    assert found.failures[long] == "cannot be examined: File name too long; correct the line"


def test_a_file_named_twice_in_a_list_is_taken_once(tmp_path: Path) -> None:
    store(tmp_path, "b.jpg", "a.jpg")
    link(tmp_path / "latest.jpg", "b.jpg")
    store(tmp_path, "list.txt", content=f"latest.jpg\nb.jpg\na.jpg\n./b.jpg\n{tmp_path}/a.jpg\n".encode())
    found = find_images(tmp_path / "list.txt")
    assert names(found) == ["b.jpg", "a.jpg"] and found.same == {"latest.jpg": "b.jpg"}


# --------------------------------------------------------------------------------------------------- strange inputs


def test_inputs_that_are_no_files_are_refused_in_one_line(tmp_path: Path) -> None:
    store(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    link(tmp_path / "dangling", tmp_path / "away")
    link(tmp_path / "loop.jpg", "loop.jpg")
    for name, error, message in [
        ("dangling", NotFoundError, r"dangling: a broken link to .*/away; correct it"),
        ("loop.jpg", NotFoundError, r"loop\.jpg: a broken link to loop\.jpg; correct it"),
        ("pipe.jpg", InputError, r"pipe\.jpg: a pipe or a device; give a folder"),
        ("n\0l", NotFoundError, "no such folder or file"),
        ("a.jpg/b.jpg", NotFoundError, "no such folder or file"),
        ("x" * 300, StorageError, "cannot be examined: File name too long"),
    ]:
        with pytest.raises(error, match=message) as caught:
            find_images([tmp_path, tmp_path / name])
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="/dev/null: a pipe or a device"):
        find_images("/dev/null")
