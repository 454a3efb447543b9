"""What changes while a server runs: photographs added and deleted, commits of other processes, indexes replaced."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage import data

from asmk_engine import Index
from asmk_engine.serve import shelf
from asmk_engine.serve.adding import added_folder, safe_name, unused_path
from asmk_engine.serve.jobs import BackgroundJob, CancelledError
from asmk_engine.serve.refusals import Refusal
from asmk_engine.serve.service import Service
from serving import Client, encoded, make_index, photographs, serving, write_photographs
from skimage_pairs import astronaut, coffee, halved

PERSON = "people/astronaut.png"
MOON = np.repeat(np.asarray(data.moon())[::2, ::2, None], 3, axis=2)


@pytest.fixture
def place(served_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the photographs, their features and their index."""
    monkeypatch.setattr(shelf, "REFRESH_SECONDS", 0.02)
    for name in ("photos", "photos.features", "photos.index"):
        shutil.copytree(served_place / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def writable(place: Path) -> Iterator[tuple[Service, Client]]:
    with serving([place / "photos.index"], writable=True) as found:
        yield found


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    waiting = threading.Event()
    for _ in range(3000):
        if is_so():
            return
        waiting.wait(0.01)
    raise AssertionError("it did not happen")


def added(client: Client, *files: tuple[str, bytes]) -> dict[str, Any]:
    """Add photographs and return the job at its end."""
    answer = client.post("/add", files=[("file", file) for file in files])
    assert answer.status_code == 202, answer.text
    key = answer.json()["job"]
    assert client.get(f"/jobs/{key}/events").status_code == 200
    job: dict[str, Any] = client.get(f"/jobs/{key}").json()
    return job


def names(client: Client) -> list[str]:
    return [one["name"] for one in client.get("/images", search="g", limit=500).json()["images"]]


# --- adding -----------------------------------------------------------------------------------------------------------


def test_photographs_are_added_and_found(writable: tuple[Service, Client], place: Path) -> None:
    service, client = writable
    moon = encoded(MOON)
    job = added(
        client, ("../moon <b>.png", moon), ("no.png", b"not a photograph"), ("cut.png", encoded(coffee())[:999])
    )
    assert job["state"] == "done" and len(job["added"]) == 1, job
    name = job["added"][0]
    assert name.startswith("added ") and name.endswith("/moon _b.png")
    assert {one["name"] for one in job["failures"]} == {"no.png", "cut.png"}
    assert all(str(place) not in one["reason"] and one["reason"] for one in job["failures"])
    assert client.get("/indexes").json()["indexes"][0]["images"] == 8
    kept = client.post("/search", files={"file": ("q.png", moon)}).json()
    assert kept["hits"][0]["name"] == name and kept["hits"][0]["verdict"] == "match"
    assert client.get(f"/thumbnails/{name}").status_code == 200
    assert (added_folder(place / "photos.index") / name).is_file()
    assert len(list(service.uploads._folder.path.iterdir())) == 2  # the lock, and the photograph of the question


def test_equal_names_and_equal_photographs(writable: tuple[Service, Client], place: Path) -> None:
    _, client = writable
    moon, brick = encoded(MOON), encoded(np.repeat(np.asarray(data.brick())[::2, ::2, None], 3, axis=2))
    job = added(client, ("a.png", moon), ("a.png", brick), ("b.png", moon))
    assert [name.rpartition("/")[2] for name in job["added"]] == ["a-2.png", "a.png", "b.png"]
    again = added(client, ("a.png", encoded(halved(astronaut())[:, ::-1].copy())))
    assert [name.rpartition("/")[2] for name in again["added"]] == ["a-3.png"]
    known = added(client, ("known.png", (place / "photos" / PERSON).read_bytes()))
    assert known["state"] == "done", known
    files = [path.relative_to(added_folder(place / "photos.index")).as_posix() for path in place.rglob("added */*.png")]
    assert all(client.get(f"/images/{name}").status_code == 200 for name in files)  # nothing else is kept


def test_nothing_is_added(writable: tuple[Service, Client]) -> None:
    service, client = writable
    assert added(client, ("no.png", b"no"))["message"] == "no photograph was added"
    empty = {"content": b"--x--\r\n", "headers": {"content-type": "multipart/form-data; boundary=x"}}
    assert client.post("/add", **empty).status_code == 422
    assert client.post("/add", files={"file": ("a.png", b"x")}, data={"index": "x"}).status_code == 404
    assert len(list(service.uploads._folder.path.iterdir())) == 1


def test_a_job_is_cancelled_and_another_must_wait(
    writable: tuple[Service, Client], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, client = writable
    begun, go = threading.Event(), threading.Event()
    real = service.thumbnails.of_file

    def slow(path: Path, side: int) -> Any:
        begun.set()
        assert go.wait(60)
        return real(path, side)

    monkeypatch.setattr(service.thumbnails, "of_file", slow)
    moon = encoded(MOON)
    key = client.post("/add", files=[("file", ("a.png", moon)), ("file", ("b.png", moon))]).json()["job"]
    assert begun.wait(60)
    refused = client.post("/add", files={"file": ("c.png", moon)})
    assert refused.status_code == 409 and "running already" in refused.json()["error"]
    assert len(list(service.uploads._folder.path.iterdir())) == 3  # the lock and the photographs of the first job
    assert client.post(f"/jobs/{key}/cancel").status_code == 204
    go.set()
    client.get(f"/jobs/{key}/events")
    assert client.get(f"/jobs/{key}").json()["state"] == "cancelled"
    assert Index.open(place / "photos.index").images == 7
    assert not list(added_folder(place / "photos.index").rglob("*.png"))
    assert len(list(service.uploads._folder.path.iterdir())) == 1


def test_a_folder_that_cannot_be_made(writable: tuple[Service, Client], place: Path) -> None:
    service, client = writable
    added_folder(place / "photos.index").write_bytes(b"a file is in the way")
    job = added(client, ("a.png", encoded(MOON)))
    assert job["state"] == "failed" and "cannot make the folder" in job["message"]
    assert str(place) not in str(job)
    assert len(list(service.uploads._folder.path.iterdir())) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a.JPG", "a.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\x\\a.png", "a.png"),
        ("/", "photograph"),
        ("", "photograph"),
        ("...", "photograph"),
        ("..", "photograph"),
        (".htaccess", "photograph.htaccess"),
        ("-rf *.png", "-rf.png"),
        ("a\0b\n\r\x1b[31m.png", "a_b___ _31m.png".replace(" ", "")),
        ("<script>.png", "script.png"),
        ("图 ü.png", "图 ü.png"),
        ("u\u0308.png", "ü.png"),
        ("a.tar.gz", "a_tar.gz"),
        ("x" * 500 + ".png", "x" * 120 + ".png"),
        ("a.png/", "photograph"),
        ("a\u202egnp.exe", "a_gnp.exe"),
        ("con.png", "con.png"),
    ],
)
def test_names_of_files(given: str, expected: str) -> None:
    assert safe_name(given) == expected


def test_unused_paths(tmp_path: Path) -> None:
    assert unused_path(tmp_path, "a.b.png") == tmp_path / "a.b.png"
    (tmp_path / "a.png").symlink_to("nowhere")
    (tmp_path / "a-2.png").mkdir()
    assert unused_path(tmp_path, "a.png") == tmp_path / "a-3.png"


# --- deleting and restoring -------------------------------------------------------------------------------------------


def test_images_are_deleted_and_restored(writable: tuple[Service, Client], place: Path) -> None:
    service, client = writable
    service.jobs.get(client.post("/groups", json={}).json()["job"])
    until(lambda: client.get("/groups").json()["state"] == "ready")
    answer = client.post("/delete", json={"names": [PERSON, PERSON, "cat.png"]})
    assert answer.json() == {"deleted": 2, "undo": [PERSON, "cat.png"]}
    assert client.get(f"/images/{PERSON}").status_code == 404 and PERSON not in names(client)
    assert client.post("/search", json={"name": PERSON}).status_code == 404
    assert client.get(f"/thumbnails/{PERSON}").status_code == 404
    found = client.get("/groups").json()
    assert found["state"] == "ready" and PERSON not in str(found)
    assert (place / "photos" / PERSON).is_file()
    hits = client.post("/search", json={"name": "people/turned.png"}).json()["hits"]
    assert PERSON not in [hit["name"] for hit in hits]
    assert client.post("/restore", json={"names": [PERSON]}).json() == {"restored": 1}
    assert client.get(f"/images/{PERSON}").json()["group"] is not None
    assert client.post("/search", json={"name": PERSON}).status_code == 200


def test_deleted_photographs_stay_deleted_when_others_are_added(writable: tuple[Service, Client]) -> None:
    _, client = writable
    first = added(client, ("a.png", encoded(MOON)))["added"]
    assert client.post("/delete", json={"names": first}).status_code == 200
    second = added(client, ("b.png", encoded(halved(coffee())[::-1].copy())))["added"]
    assert client.get(f"/images/{first[0]}").status_code == 404
    assert client.get(f"/images/{second[0]}").status_code == 200
    assert client.post("/restore", json={"names": first}).status_code == 200


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/delete", {"names": [PERSON, "nobody.png"]}, 404),
        ("/delete", {"names": []}, 422),
        ("/delete", {"names": PERSON}, 422),
        ("/delete", {"names": [1]}, 422),
        ("/delete", {"names": [PERSON], "index": ["photos"]}, 422),
        ("/delete", {"names": ["x"] * 10_001}, 422),
        ("/restore", {"names": ["nobody.png"]}, 404),
        ("/restore", {"names": [PERSON]}, None),
    ],
)
def test_changes_that_are_refused(
    writable: tuple[Service, Client], place: Path, path: str, content: dict[str, Any], status: int | None
) -> None:
    answer = writable[1].post(path, json=content)
    assert answer.status_code == status or (status is None and answer.status_code < 500), answer.text
    assert str(place) not in answer.text
    assert Index.open(place / "photos.index").images == 7


def test_restoring_after_a_merge_is_refused(writable: tuple[Service, Client], place: Path) -> None:
    _, client = writable
    assert client.post("/delete", json={"names": [PERSON]}).status_code == 200
    Index.open(place / "photos.index").merge()
    answer = client.post("/restore", json={"names": [PERSON]})
    assert answer.status_code in (404, 409) and str(place) not in answer.text


# --- other processes --------------------------------------------------------------------------------------------------


def test_commits_of_others_are_seen(place: Path) -> None:
    with serving([place / "photos.index"]) as (_, client):
        assert client.post("/search", json={"name": "cat.png"}).json()["commit"] == 2
        Index.open(place / "photos.index").delete([PERSON])
        until(lambda: client.get("/indexes").json()["indexes"][0]["images"] == 6)
        assert client.get(f"/images/{PERSON}").status_code == 404
        assert client.post("/search", json={"name": "cat.png"}).json()["commit"] == 3


def test_searches_during_commits(place: Path) -> None:
    with serving([place / "photos.index"], waiting=200) as (_, client):
        found: list[int] = []

        def ask() -> None:
            found.extend(client.post("/search", json={"name": "cat.png"}).status_code for _ in range(15))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        index = Index.open(place / "photos.index")
        for _ in range(10):
            index.delete([PERSON])
            index.restore([PERSON])
        for thread in threads:
            thread.join()
        assert found == [200] * 60


def test_another_index_takes_the_place(place: Path, tmp_path: Path) -> None:
    others = {f"{number}.png": pixels for number, pixels in enumerate(photographs().values())}
    make_index(write_photographs(tmp_path / "new" / "photos", others), tmp_path / "new" / "new.index")
    with serving([place / "photos.index"]) as (_, client):
        assert client.get(f"/thumbnails/{PERSON}").status_code == 200
        shutil.move(place / "photos.index", place / "old.index")
        shutil.move(tmp_path / "new" / "new.index", place / "photos.index")
        until(lambda: client.get("/images/0.png").status_code == 200)
        assert client.get(f"/images/{PERSON}").status_code == 404
        hits = client.post("/search", json={"name": "0.png"}).json()["hits"]
        assert hits[0]["verdict"] == "match"
        assert client.post("/search", files={"file": ("a.png", encoded(astronaut()))}).json()["hits"][0]["verdict"]


def test_an_index_of_another_kind_takes_the_place(place: Path, served_place: Path) -> None:
    with serving([place / "photos.index"]) as (_, client):
        assert client.get("/indexes").json()["indexes"][0]["verifies"]
        shutil.move(place / "photos.index", place / "old.index")
        shutil.copytree(served_place / "others" / "vectors.index", place / "photos.index")
        until(lambda: not client.get("/indexes").json()["indexes"][0]["verifies"])
        assert client.post("/search", json={"name": "image 000.jpg"}).json()["hits"]


def test_an_index_that_is_gone_or_damaged_is_served_as_it_was(place: Path) -> None:
    with serving([place / "photos.index"], writable=True) as (service, client):
        shutil.move(place / "photos.index", place / "away")
        until(lambda: service.shelf.failures > 2)
        assert client.post("/search", json={"name": PERSON}).status_code == 200
        gone = client.post("/delete", json={"names": [PERSON]})
        assert gone.status_code in (404, 500) and str(place) not in gone.text
        (place / "photos.index").mkdir()
        for name in ("manifest.json", "manifest.backup.json"):
            (place / "photos.index" / name).write_bytes(b'{"kind": 1')
        damaged = client.post("/delete", json={"names": [PERSON]})
        assert damaged.status_code >= 400 and str(place) not in damaged.text
        assert client.post("/search", json={"name": PERSON}).status_code == 200
        shutil.rmtree(place / "photos.index")
        shutil.move(place / "away", place / "photos.index")
        Index.open(place / "photos.index").delete([PERSON])
        until(lambda: client.get(f"/images/{PERSON}").status_code == 404)


def test_whatever_happens_to_one_index_others_are_looked_after(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(place / "photos.index", place / "second.index")
    with serving([place / "photos.index", place / "second.index"]) as (service, client):

        def fail() -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(service.shelf.served["photos"], "refresh", fail)
        Index.open(place / "second.index").delete([PERSON])
        until(lambda: client.get(f"/images/{PERSON}", index="second").status_code == 404)
        assert "asmk_refresh_failures" in client.get("/metrics").text


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_groups_are_found_for_one_index_at_a_time(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(place / "photos.index", place / "second.index")
    with serving([place / "photos.index", place / "second.index"]) as (service, client):
        go = threading.Event()
        monkeypatch.setattr(service.groups, "find", lambda job, served: str(go.wait(60)))
        key = client.post("/groups", json={}).json()["job"]
        assert client.get("/groups").json()["state"] == "running"
        for index in ("photos", "second"):
            assert client.post("/groups", json={"index": index}).status_code == 409
        go.set()
        client.get(f"/jobs/{key}/events")
        assert client.post("/groups", json={"index": "second"}).status_code == 202


def test_many_watchers_of_a_job_do_not_stop_the_server(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving([place / "photos.index"]) as (service, client):
        go = threading.Event()
        monkeypatch.setattr(service.groups, "find", lambda job, served: str(go.wait(60)))
        key = client.post("/groups", json={}).json()["job"]
        watchers = [threading.Thread(target=client.get, args=(f"/jobs/{key}/events",)) for _ in range(220)]
        for one in watchers:
            one.start()
        assert client.get("/images").status_code == 200
        go.set()
        for one in watchers:
            one.join()


def test_jobs_are_forgotten_and_a_bug_ends_one(library: tuple[Service, Client]) -> None:
    jobs = type(library[0].jobs)()

    def bug(job: BackgroundJob) -> str:
        raise ZeroDivisionError("/secret/path")

    first = jobs.start("add", "a", bug)
    jobs.close()
    assert first.state == "failed" and "secret" not in first.message
    for _ in range(150):
        jobs.start("add", "a", lambda job: "done")
        jobs.close()
    with pytest.raises(Refusal, match="no such job"):
        jobs.get(first.key)


def test_a_cancelled_job_ends_at_its_next_report() -> None:
    job = BackgroundJob("add")
    job.cancel()
    with pytest.raises(CancelledError):
        job.say("x")
    with pytest.raises(CancelledError), job.bar("a", "b"):
        pass
