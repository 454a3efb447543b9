"""What a server is given: indexes and their names, folders of them, a table of metadata; and folders of names."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asmk_engine.errors import AsmkError, FormatError, InputError, NotFoundError
from asmk_engine.serve.metadata import Metadata, read_metadata
from asmk_engine.serve.name_table import NameTable
from asmk_engine.serve.options import ServeOptions
from asmk_engine.serve.refusals import Refusal
from asmk_engine.serve.shelf import Shelf, open_shelf
from serving import serving


def shelf_of(*paths: Path) -> Shelf:
    return open_shelf(paths, ServeOptions(), Metadata())


# --- indexes ----------------------------------------------------------------------------------------------------------


def test_indexes_are_named_by_their_folders(served_place: Path, tmp_path: Path) -> None:
    one = served_place / "photos.index"
    for name in ("a.index", "b", "c/a.index", "ü 图.index", ".index"):
        shutil.copytree(one, tmp_path / name)
    (tmp_path / "link.index").symlink_to(one)
    (tmp_path / "empty").mkdir()
    found = shelf_of(tmp_path, tmp_path / "c", one, one)
    assert sorted(found.served) == sorted(["index", "a", "b", "photos", "ü 图", "a-2", "photos-2", "photos-3"])
    assert found.get(None) is found.get("") is next(iter(found.served.values()))
    assert found.get("a-2").path == tmp_path / "c/a.index"
    with pytest.raises(Refusal, match="no index is named 'x'"):
        found.get("x")


def test_an_index_with_a_name_that_is_no_text(served_place: Path, tmp_path: Path) -> None:
    strange = Path(f"{tmp_path}/\udcff.index")
    try:
        shutil.copytree(served_place / "photos.index", strange)
    except (OSError, UnicodeError):
        pytest.skip("this disk has no such names")
    with serving([strange]) as (_, client):
        assert client.get("/indexes").json()["indexes"][0]["name"] == "?"
        assert client.get("/images", index="?").json()["total"] == 2


def test_what_is_no_index(tmp_path: Path, served_place: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad" / "x.index").mkdir(parents=True)
    (tmp_path / "bad" / "x.index" / "manifest.json").write_text("{}")
    for name in ("nothing", "file"):
        with pytest.raises(NotFoundError, match="no such index"):
            shelf_of(tmp_path / name)
    with pytest.raises(NotFoundError, match="neither an index nor"):
        shelf_of(tmp_path / "empty")
    with pytest.raises(NotFoundError, match="neither an index nor"):
        shelf_of(served_place / "photos")
    with pytest.raises(AsmkError):
        shelf_of(tmp_path / "bad")
    with pytest.raises(InputError, match="no index was given"):
        shelf_of()


# --- metadata ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables(tmp_path: Path, separator: str) -> None:
    lines = [
        ["Title", "FILENAME", "year", "", "Title"],
        ["A, b; c", "a.jpg", "1999", "x", ""],
        ["", "b.jpg"],
        [],
        ["z"],
    ]
    lines += [["second", "a b/ü.jpg", "", "", ""], ["last", "b.jpg", "2000"], ['"quoted\nlines"', "c.jpg"]]
    text = "\r\n".join(separator.join(f'"{v}"' if v[:1] != '"' else v for v in line) for line in lines)
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = read_metadata(tmp_path / "t.csv")
    assert found.columns == ("Title", "year")
    assert found.of("a.jpg") == {"Title": "A, b; c", "year": "1999"} and found.of("a b/ü.jpg") == {"Title": "second"}
    assert found.of("b.jpg") == {"Title": "last", "year": "2000"} and found.of("nobody") == {}
    assert found.of("c.jpg") == {"Title": "quoted\nlines"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no column of names"),
        (b"title,year\na,b\n", "found title, year"),
        ("name,title\nä,b\n".encode("latin-1"), "not UTF-8"),
        ("name,title\n".encode("utf-16"), "not UTF-8"),
        (b"name,title\na," + b"x" * 200_000, "is no CSV"),
        (b'name,title\na,"' + b"x\n" * 100_000, "is no CSV"),
        (b"\x89PNG\r\n\x1a\n", "not UTF-8"),
    ],
)
def test_bad_tables(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(FormatError, match=said) as caught:
        read_metadata(tmp_path / "t.csv")
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.csv", tmp_path):
        with pytest.raises(AsmkError):
            read_metadata(path)


# --- folders of names -------------------------------------------------------------------------------------------------

PARTS = st.text(st.sampled_from("ab/-.0 ü\n図"), min_size=1, max_size=8)


@given(st.sets(PARTS, max_size=30), st.sampled_from(["", "a/", "b/", "a/b/", "ü/"]))
def test_folders_against_a_slow_twin(given: set[str], folder: str) -> None:
    names = sorted(given, key=str.encode)
    found = NameTable(names, {}).listing(folder)
    below = [name for name in names if name.startswith(folder)]
    rests = [name.removeprefix(folder) for name in below]
    folders = itertools.groupby(sorted(f"{folder}{rest.partition('/')[0]}/" for rest in rests if "/" in rest))
    assert sorted(found.folders) == [(name, len(list(group))) for name, group in folders]
    assert list(found.names) == [name for name, rest in zip(below, rests, strict=True) if "/" not in rest]


@given(st.sets(PARTS, max_size=30), st.text(st.sampled_from("abB ü/"), max_size=4), st.integers(1, 4))
def test_searches_and_pages_against_a_slow_twin(given: set[str], words: str, limit: int) -> None:
    names = sorted(given, key=str.encode)
    titles = {name: {"title": name[::-1].upper()} for name in names[::2]}
    found = NameTable(names, titles).found("", words)
    texts = {name: "\n".join([name, *titles.get(name, {}).values()]).casefold() for name in names}
    expected = [name for name in names if all(word in texts[name] for word in words.casefold().split())]
    pages, after = [], None
    while True:
        page, after = found.page(after, limit)
        pages += page
        if after is None:
            break
    assert pages == expected == list(found.names)
    for name in names:
        table = NameTable(names, {})
        before, following = table.neighbours(name)
        siblings = table.listing(name[: name.rfind("/") + 1]).names
        own = siblings.index(name)
        assert before == (siblings[own - 1] if own else None)
        assert following == (siblings[own + 1] if own + 1 < len(siblings) else None)
