"""Photographs that the server shows and keeps: thumbnails, files that are gone or links, uploads that are forgotten."""

from __future__ import annotations

import io
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from asmk_engine.serve import pictures, private_folder, processes, questions, uploads
from asmk_engine.serve.refusals import Refusal
from asmk_engine.serve.service import Service
from asmk_engine.serve.shelf import ServedIndex
from asmk_engine.serve.uploads import Uploads
from serving import STRANGE, Client, encoded, serving
from skimage_pairs import astronaut, coffee, halved

PERSON = "people/astronaut.png"


@pytest.fixture
def place(served_place: Path, tmp_path: Path) -> Path:
    for name in ("photos", "photos.index"):
        shutil.copytree(served_place / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def server(place: Path) -> Iterator[tuple[Service, Client]]:
    """A server whose index finds the photographs below `place`."""
    with serving([place / "photos.index"], images_roots=(place / "photos",)) as found:
        yield found


# --- thumbnails -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [PERSON, STRANGE])
def test_thumbnails(client: Client, name: str) -> None:
    path = f"/thumbnails/{quote(name, safe='/')}"
    for size in (160, 320, 640, 1280):
        shown = client.get(path, size=size)
        assert shown.status_code == 200 and shown.headers["content-type"] == "image/jpeg"
        assert max(Image.open(io.BytesIO(shown.content)).size) <= min(size, 256)
        again = client.get(path, size=size, headers={"if-none-match": shown.headers["etag"]})
        assert again.status_code == 304 and again.content == b"" and again.headers["etag"] == shown.headers["etag"]
    for bad in ("0", "161", "-1", "1e9", "x", str(10**30)):
        assert client.get(path, size=bad).status_code == 422
    assert client.get("/thumbnails/nobody.png").status_code == 404


def test_photographs_that_are_gone_or_changed(server: tuple[Service, Client], place: Path) -> None:
    _, client = server
    (place / "photos" / PERSON).unlink()
    (place / "photos" / "cat.png").write_bytes(encoded(coffee()))
    for name in (PERSON, "cat.png"):
        gone = client.get(f"/thumbnails/{name}")
        assert gone.status_code == 404 and "is gone or was changed" in gone.json()["error"]
        assert client.post("/search", json={"name": name, "box": "1,2,100,100"}).status_code in (200, 404)
    assert client.get("/thumbnails/rocket.png").status_code == 200
    assert client.get("/compare/picture", name=PERSON, query="rocket.png").status_code in (404, 422)


def test_links_out_of_the_folders_are_followed_only_if_asked(place: Path) -> None:
    secret = place / "elsewhere.png"
    shutil.move(place / "photos" / "cat.png", secret)
    (place / "photos" / "cat.png").symlink_to(secret)
    os.rename(place / "photos" / "things", place / "moved")
    (place / "photos" / "things").symlink_to(place / "moved")
    roots = {"images_roots": (place / "photos",)}
    with serving([place / "photos.index"], **roots) as (_, client):
        for name in ("cat.png", "things/cup.png"):
            refused = client.get(f"/thumbnails/{name}")
            assert refused.status_code == 404 and "--follow-links" in refused.json()["error"]
            assert client.get("/compare/picture", name=name, query="rocket.png").status_code == 404
        assert client.get("/thumbnails/rocket.png").status_code == 200
    with serving([place / "photos.index"], follow_links=True, **roots) as (_, client):
        for name in ("cat.png", "things/cup.png"):
            assert client.get(f"/thumbnails/{name}").status_code == 200


def test_names_that_lead_out_of_the_folders(
    server: tuple[Service, Client], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index of features of another program may hold such names."""
    service, client = server
    (place / "secret.png").write_bytes(encoded(coffee()))
    source = service.shelf.served["photos"].source
    for path in (place / "photos" / ".." / "secret.png", place / "secret.png", Path("/etc/passwd"), Path("a.png")):
        monkeypatch.setattr(source, "image_path", lambda name, path=path: path)
        refused = client.get("/thumbnails/rocket.png")
        assert refused.status_code == 404 and "not in the folders" in refused.json()["error"]


def test_the_kept_pictures_have_an_end(server: tuple[Service, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    service, client = server
    monkeypatch.setattr(pictures, "KEPT_BYTES", 12_000)
    for name in (PERSON, "cat.png", "rocket.png"):
        assert client.get(f"/thumbnails/{name}").status_code == 200
        assert service.thumbnails._bytes <= 12_000
        assert service.thumbnails._bytes == sum(len(one.data) for one in service.thumbnails._kept.values())


# --- uploads ----------------------------------------------------------------------------------------------------------


def files(service: Service) -> int:
    return len([path for path in service.uploads._folder.path.iterdir() if path.name != "lock"])


def test_uploads_are_forgotten(server: tuple[Service, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    service, client = server
    data = encoded(halved(astronaut()))

    def sent() -> str:
        key: str = client.post("/uploads", files={"file": ("a.png", data)}).json()["upload"]
        return key

    monkeypatch.setattr(uploads, "KEPT_FILES", 3)
    keys = [sent() for _ in range(3)]
    assert client.get(f"/uploads/{keys[0]}").status_code == 200  # it was asked for last, so the second is the oldest
    keys.append(sent())
    assert [client.get(f"/uploads/{key}").status_code for key in keys] == [200, 404, 200, 200] and files(service) == 3
    monkeypatch.setattr(uploads, "KEPT_BYTES", len(data) + 1)
    keys.append(sent())
    assert client.get(f"/uploads/{keys[-1]}").status_code == 200 and files(service) == 1
    later = time.monotonic() + uploads.KEPT_SECONDS + 1
    monkeypatch.setattr(uploads.time, "monotonic", lambda: later)
    assert client.post("/search", json={"upload": keys[-1]}).status_code == 404 and files(service) == 0


def test_what_cannot_be_used_is_not_kept(server: tuple[Service, Client]) -> None:
    service, client = server
    for path in ("/uploads", "/search"):
        refused = client.post(path, files={"file": ("a.png", b"no photograph")})
        assert refused.status_code == 422 and files(service) == 0
    two = [("file", ("a.png", encoded(halved(astronaut())))), ("file", ("b.png", b"no"))]
    assert client.post("/search", files=two).status_code == 422 and files(service) == 0
    data = {"file": ("a.png", encoded(halved(astronaut())))}
    assert (
        client.post("/search", files=data, data={"box": "900,900,901,901"}).status_code == 422 and files(service) == 0
    )


def test_a_full_disk(server: tuple[Service, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    service, client = server

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "/tmp/secret")

    monkeypatch.setattr(uploads.shutil, "copyfileobj", full)
    refused = client.post("/uploads", files={"file": ("a.png", b"x")})
    assert refused.status_code == 503 and "No space left" in refused.json()["error"]
    assert "secret" not in refused.text and refused.headers["retry-after"] and files(service) == 0


def test_an_upload_is_forgotten_while_it_is_described(
    server: tuple[Service, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, client = server
    key = client.post("/uploads", files={"file": ("a.png", encoded(halved(astronaut())))}).json()["upload"]
    real = service.describing.ask

    def ask(order: dict[str, Any]) -> Any:
        found = real(order)
        service.uploads.forget(key)
        return found

    monkeypatch.setattr(service.describing, "ask", ask)
    assert client.post("/search", json={"upload": key}).json()["hits"][0]["name"] == PERSON
    assert client.post("/search", json={"upload": key}).status_code == 404


def test_features_of_uploads_are_kept_with_an_end(
    server: tuple[Service, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, client = server
    key = client.post("/uploads", files={"file": ("a.png", encoded(halved(astronaut())))}).json()["upload"]
    asked: list[Any] = []
    real = service.describing.ask
    monkeypatch.setattr(service.describing, "ask", lambda order: asked.append(order) or real(order))
    first = client.post("/search", json={"upload": key}).json()
    assert client.post("/search", json={"upload": key}).json()["hits"] == first["hits"] and len(asked) == 1
    monkeypatch.setattr(questions, "KEPT_BYTES", 3 * service.describer._bytes)
    for edge in range(8):
        assert client.post("/search", json={"upload": key, "box": [edge, 0, 200, 200]}).status_code == 200
        assert service.describer._bytes <= questions.KEPT_BYTES
    assert len(service.describer._kept) < 9


def test_folders_of_killed_servers_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_folder.tempfile, "tempdir", str(tmp_path))
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "lock").touch()
    for name in ("dead", "new"):
        (tmp_path / f"{private_folder.PREFIX}{name}").mkdir()
    (tmp_path / f"{private_folder.PREFIX}dead" / "lock").touch()
    (tmp_path / f"{private_folder.PREFIX}dead" / "photograph").touch()
    (tmp_path / f"{private_folder.PREFIX}link").symlink_to(tmp_path / "others")
    first, second = Uploads(), Uploads()
    left = {path.name.removeprefix(private_folder.PREFIX) for path in tmp_path.iterdir()}
    assert len(left) == 5 and {"others", "new", "link"} < left and "dead" not in left
    assert (tmp_path / "others" / "lock").exists()
    if hasattr(os, "getuid"):
        assert first._folder.path.stat().st_mode & 0o077 == 0
    for one in (first, second):
        one.close()
    assert len(list(tmp_path.iterdir())) == 3


# --- worker processes and queues --------------------------------------------------------------------------------------


def scripted(monkeypatch: pytest.MonkeyPatch, service: Service, **options: Any) -> None:
    """Let photographs be described by `misbehaving.Scripted`, for which a file is a text that says what happens."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    service._warming.join()
    origin = {"function": "misbehaving:Scripted", "options": {"seed": 0, "delay": 0.0}}
    monkeypatch.setattr(ServedIndex, "extractors", property(lambda self: ([origin], "")))
    service.describing.close()
    made = processes.WorkerProcesses(1, options.get("seconds", 60.0), 2048, options.get("waiting", 4))
    service.describing = service.describer._workers = made


@pytest.mark.parametrize("word", ["killed", "exit", "hang", "bug", "broken", "nan", "interrupted"])
def test_a_photograph_that_ends_its_process(
    server: tuple[Service, Client], monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    service, client = server
    scripted(monkeypatch, service)
    if word == "hang":
        monkeypatch.setattr(service.describing, "seconds", 1.0)
        assert client.post("/search", json={"name": "cat.png"}).status_code == 200
    answer = client.post("/search", files={"file": ("a.png", word.encode())})
    assert answer.status_code == 422, answer.text
    assert "/tmp" not in answer.text and "\\n" not in answer.json()["error"]
    expected = {"hang": "took longer", "killed": "SIGKILL", "exit": "status 3", "bug": "by none", "broken": "says the"}
    assert expected.get(word, "") in answer.json()["error"]
    monkeypatch.setattr(service.describing, "seconds", 60.0)
    # The next one is described by another process: its features are of another dimension than those of the index.
    answer = client.post("/search", files={"file": ("a.png", b"fine 3")})
    assert answer.status_code == 422 and "crashed" not in answer.text and "longer" not in answer.text
    assert service.describing.deaths == (1 if word in ("killed", "exit", "hang") else 0)


def test_a_full_queue(server: tuple[Service, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    service, client = server
    scripted(monkeypatch, service, waiting=1)
    go, statuses = threading.Event(), []
    real = service.describing._idle.get

    def get() -> Any:
        assert go.wait(60)
        return real()

    monkeypatch.setattr(service.describing._idle, "get", get)

    def ask(word: bytes) -> None:
        statuses.append(client.post("/search", files={"file": ("a.png", word)}).status_code)

    threads = [threading.Thread(target=ask, args=(b"fine 3",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    while service.describing._room._value:  # type: ignore[attr-defined]
        threading.Event().wait(0.01)
    answer = client.post("/search", files={"file": ("a.png", b"fine 3")})
    assert answer.status_code == 429 and answer.headers["retry-after"] == "2" and "too many" in answer.json()["error"]
    go.set()
    for thread in threads:
        thread.join()
    assert statuses == [422, 422]


def test_a_full_queue_of_searches(server: tuple[Service, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    service, client = server
    room = service.searches._room
    taken = 0
    while room.acquire(blocking=False):
        taken += 1
    answer = client.post("/search", json={"name": PERSON})
    assert answer.status_code == 429 and answer.headers["retry-after"]
    for _ in range(taken):
        room.release()
    assert client.post("/search", json={"name": PERSON}).status_code == 200


def test_a_process_without_memory_and_one_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = processes.WorkerProcesses(1, 60, 2048, 4)
    monkeypatch.setattr(processes, "_PROGRAM", "raise SystemExit(3)")
    with pytest.raises(Refusal, match="does not start") as caught:
        workers.ask({"task": "shrink", "path": "a", "side": 160})
    assert caught.value.status == 503 and caught.value.retry
    workers.close()
    with pytest.raises(Refusal):
        workers.ask({"task": "shrink", "path": "a", "side": 160})


def asked_of(workers: processes.WorkerProcesses, path: Path, function: str) -> Any:
    extractors = [{"function": f"misbehaving:{function}", "options": {}}]
    return workers.ask(
        {"task": "describe", "path": str(path), "box": None, "turns": [[0, False]], "extractors": extractors}
    )


def test_a_worker_knows_no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASMK_ENGINE_TOKEN", "a secret token")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    workers = processes.WorkerProcesses(1, 60, 2048, 4)
    with pytest.raises(Refusal, match="the token is ''"):
        asked_of(workers, tmp_path, "tell_token")
    workers.close()


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="threads have no signal mask here")
def test_ctrl_c_is_blocked_in_the_worker_but_not_in_the_thread_that_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A mask left behind would be inherited by every process that the thread starts later."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    workers = processes.WorkerProcesses(1, 60, 2048, 4)
    with pytest.raises(Refusal, match="SIGINT is blocked: True"):
        asked_of(workers, tmp_path, "tell_mask")
    workers.close()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before and signal.SIGINT not in before


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="this system ends no process by itself")
def test_a_worker_that_hangs_ends_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """When the server was killed, nobody else would end it."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(processes, "_PROGRAM", "import asmk_engine.serve.worker as w; w.GRACE_SECONDS = -59; w.main()")
    workers = processes.WorkerProcesses(1, 60, 2048, 4)
    (tmp_path / "a").write_text("hang")
    with pytest.raises(Refusal, match="SIGALRM"):
        asked_of(workers, tmp_path / "a", "Scripted")
    workers.close()
