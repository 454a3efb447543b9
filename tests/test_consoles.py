"""Outputs that lack characters, are full or are closed: printed names can be used as input, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from asmk_engine.escape import PLAIN_ASCII, register_escapes, unencodable, unescape_name
from asmk_engine.inverted.index import Index
from samples import ENVIRONMENT, make_features, random_codebook, write_features

pytestmark = pytest.mark.skipif(os.name == "nt", reason="descriptors of POSIX")

GREEK, ACCENT, SURROGATE, PERCENT = "Αθήνα/πύλη 1.jpg", "café.jpg", "photo\udce9.jpg", "100%.jpg"
NAMES = [GREEK, ACCENT, SURROGATE, PERCENT, "plain.jpg"]
# What Linux sets where nothing is set, and where somebody asked for it.
ENCODINGS = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "latin-1": {"PYTHONIOENCODING": "latin-1:strict"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "utf-8": {"PYTHONIOENCODING": "utf-8"},
}
WRITTEN = {"cp1252": "cp1252", "latin-1": "latin-1", "ascii": "ascii", "C": "ascii", "utf-8": "utf-8"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index whose images all resemble each other, beside its features; one has a name that is not UTF-8."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(12, 16))
    images = {name: make_features(descriptors + 0.1 * rng.normal(size=(12, 16))) for name in NAMES if name != SURROGATE}
    index = Index.create(folder / "i.index", random_codebook(4, 16))
    index.add(write_features(folder / "f.features", images))
    plain = {f"{number}.jpg": features for number, features in enumerate(images.values())}
    index = Index.create(folder / "plain.index", random_codebook(4, 16))
    index.add(write_features(folder / "plain.features", plain))
    return folder


def _run(
    *arguments: object, encoding: str = "utf-8", redirection: str = "", code: int = 0
) -> subprocess.CompletedProcess[bytes]:
    """Run the program by a shell that redirects its streams, and expect this exit code."""
    environment = {key: value for key, value in ENVIRONMENT.items() if not key.startswith(("LC_", "LANG", "PYTHONIO"))}
    words = [sys.executable, "-m", "asmk_engine", *map(os.fspath, map(str, arguments))]
    command = ["sh", "-c", f'"$@" {redirection}', "sh", *words]
    done = subprocess.run(command, capture_output=True, env=environment | ENCODINGS[encoding], timeout=300)
    assert done.returncode == code and b"Traceback" not in done.stderr, (done.returncode, done.stdout, done.stderr)
    return done


def _query(world: Path, form: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    return _run("query", world / "i.index", "--features", world / "f.features", "--format", form, *arguments, **options)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_names_of_a_table_can_be_given_back(world: Path, encoding: str) -> None:
    lines = _query(world, "table", "--all", encoding=encoding).stdout.decode(WRITTEN[encoding]).splitlines()
    asked = [unescape_name(line[2:]) for line in lines if line.startswith("# ")]
    found = {unescape_name(line.split()[2]) for line in lines if not line.startswith("# ")}
    assert sorted(asked) == sorted(found) == sorted(set(NAMES) - {SURROGATE})
    assert any("100%25.jpg" in line for line in lines)
    assert any("café.jpg" in line for line in lines) == (WRITTEN[encoding] != "ascii")
    assert any("caf%C3%A9.jpg" in line for line in lines) == (WRITTEN[encoding] == "ascii")


@pytest.mark.parametrize("encoding", ["cp1252", "C"])
def test_names_of_a_run_can_be_given_back(world: Path, encoding: str) -> None:
    lines = _query(world, "trec", "--all", encoding=encoding).stdout.decode(WRITTEN[encoding]).splitlines()
    assert {unescape_name(line.split()[2]) for line in lines} == set(NAMES) - {SURROGATE}


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_lines_of_json_carry_every_name(world: Path, encoding: str) -> None:
    lines = _query(world, "jsonl", "--all", encoding=encoding).stdout.decode(WRITTEN[encoding]).splitlines()
    assert {json.loads(line)["query"] for line in lines} == set(NAMES) - {SURROGATE}
    assert {hit["name"] for line in lines for hit in json.loads(line)["hits"]} == set(NAMES) - {SURROGATE}


@pytest.mark.parametrize("encoding", ["latin-1", "C"])
def test_lists_of_names_can_be_given_back(world: Path, encoding: str) -> None:
    printed = _run("info", world / "i.index", "--names", encoding=encoding).stdout.decode(WRITTEN[encoding])
    assert sorted(map(unescape_name, printed.splitlines())) == sorted(set(NAMES) - {SURROGATE})


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_a_name_that_is_not_utf_8_fits_into_an_error(world: Path, encoding: str) -> None:
    told = _query(world, "table", SURROGATE, encoding=encoding, code=1).stderr.decode(WRITTEN[encoding])
    assert told.count("Error: ") == 1 and "photo" in told


def test_pairs_that_cannot_be_written_are_refused_before_the_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(12, 16))
    images = {name: make_features(descriptors) for name in ("a.jpg", "b.jpg", "łódź.jpg", "café.jpg")}
    Index.create(tmp_path / "i", random_codebook(4, 16)).add(write_features(tmp_path / "f", images))
    arguments = ("query", tmp_path / "i", "--features", tmp_path / "f", "--all", "--format", "pairs")
    for encoding, first in (("cp1252", "ódź.jpg"), ("ascii", "caf")):
        done = _run(*arguments, encoding=encoding, code=1)
        told = done.stderr.decode(WRITTEN[encoding])
        assert done.stdout == b"" and told.count("Error: ") == 1 and "PYTHONIOENCODING=utf-8" in told, told
        assert unescape_name(told.splitlines()[-1]).index(first) > 0
    assert "café.jpg" in _run(*arguments).stdout.decode()


@pytest.mark.parametrize("redirection", ["2>&-", "<&-", "<&- 2>&-", "2>/dev/full"])
def test_messages_that_nobody_hears_stop_nothing(world: Path, redirection: str) -> None:
    expected = _query(world, "jsonl", "--all").stdout
    assert _query(world, "jsonl", "--all", redirection=redirection).stdout == expected != b""
    assert _run("info", world / "i.index", redirection=redirection).stdout == _run("info", world / "i.index").stdout


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_a_run_with_progress_ends_well(world: Path, tmp_path: Path, redirection: str) -> None:
    target = tmp_path / "copy.index"
    words = ("index", world / "plain.features", "--codebook", tmp_path / "c.h5", "-o", target)
    random_codebook(4, 16).save(tmp_path / "c.h5")
    _run(*words, redirection=redirection)
    assert Index.open(target).images == 4


def test_no_file_of_data_takes_the_place_of_a_closed_descriptor(world: Path, tmp_path: Path) -> None:
    random_codebook(4, 16).save(tmp_path / "c.h5")
    code = (
        "import os, sys\nfrom asmk_engine import cli\ncli._occupy_descriptors()\ncli._prepare_streams()\n"
        "opened = os.open(sys.argv[1], os.O_RDONLY)\nfor number in (0, 1, 2): os.fstat(number)\n"
        "sys.exit(0 if opened > 2 and sys.stdin.read() == '' else 7)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "c.h5")]
    for redirection in (">&-", "2>&-", "<&-", "<&- >&- 2>&-"):
        command = ["sh", "-c", f'"$@" {redirection}', "sh", *words]
        assert subprocess.run(command, env=ENVIRONMENT, timeout=100).returncode == 0, redirection


@pytest.mark.parametrize(
    ("arguments", "redirection", "told"),
    [
        (("info",), ">&-", "it is closed"),
        (("info", "--json"), ">/dev/full", "free some space"),
        (("query", "--all"), ">&- <&-", "it is closed"),
        (("query", "--all"), ">/dev/full", "free some space"),
    ],
)
def test_results_that_cannot_be_written_are_one_error(
    world: Path, arguments: tuple[str, ...], redirection: str, told: str
) -> None:
    command, *options = arguments
    done = _run(command, world / "plain.index", *options, redirection=redirection, code=1)
    error = done.stderr.decode()
    assert error.splitlines() == [error.strip()] and error.startswith("Error: standard output: cannot write"), error
    assert told in error


def test_a_reader_may_stop_early(world: Path) -> None:
    words = [sys.executable, "-m", "asmk_engine", "query", str(world / "plain.index"), "--all", "--format", "jsonl"]
    for reader in ("head -n 1", "true"):
        command = ["bash", "-c", f'"$@" | {reader}; exit "${{PIPESTATUS[0]}}"', "bash", *words]
        done = subprocess.run(command, capture_output=True, env=ENVIRONMENT, timeout=300)
        assert (done.returncode, done.stderr) == (0, b""), reader


def test_plain_ascii_is_ascii_and_escapes_what_it_lacks() -> None:
    register_escapes()
    assert "a%".encode(PLAIN_ASCII) == b"a%" and b"a".decode(PLAIN_ASCII) == "a"
    written = "é €\ud83d\ude00😀\udcff".encode(PLAIN_ASCII, "asmk-escapes")
    assert unescape_name(written.decode("ascii")) == "é €\ud83d\ude00😀\udcff"
    with pytest.raises(UnicodeDecodeError):
        b"\xe9".decode("utf-8", "asmk-escapes")


def test_names_that_an_encoding_lacks_come_in_byte_order() -> None:
    register_escapes()
    assert unencodable(NAMES, "utf-8") == [SURROGATE]
    assert unencodable(["z€", "é", "a", "𝄞", "€"], "latin-1") == ["z€", "€", "𝄞"]
    assert unencodable([ACCENT, "a"], PLAIN_ASCII) == [ACCENT]
    assert unencodable([], "ascii") == []
