"""The API of the server: what it says of indexes, images and questions, compared with what the library says."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from asmk_engine import Index, Searcher
from asmk_engine.search.several import search_several
from asmk_engine.search.turned import search_turned, turns
from asmk_engine.serve.service import Service
from asmk_engine.version import __version__
from serving import STRANGE, Client, encoded, photographs
from skimage_pairs import astronaut, halved

PERSON, TURNED = "people/astronaut.png", "people/turned.png"


@pytest.fixture(scope="module")
def searcher(served_place: Path) -> Searcher:
    return Searcher(Index.open(served_place / "photos.index"))


def upload(client: Client, data: bytes, name: str = "photo.png") -> dict[str, Any]:
    answer = client.post("/uploads", files={"file": (name, data)})
    assert answer.status_code == 200, answer.text
    kept: dict[str, Any] = answer.json()
    return kept


def asked(client: Client, **fields: Any) -> dict[str, Any]:
    answer = client.post("/search", json=fields)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refusal(answer: Any, status: int) -> str:
    """The line of a refusal, which nothing of the inside of the server is in."""
    assert answer.status_code == status, answer.text
    content = answer.json()
    assert list(content) == ["error"] and content["error"] and "\n" not in content["error"]
    assert "Traceback" not in content["error"] and "/tmp" not in content["error"]
    said: str = content["error"]
    return said


def check_hits(hits: list[dict[str, Any]], expected: list[Any]) -> None:
    """Compare the hits of an answer with those of the library."""
    assert [hit["name"] for hit in hits] == [hit.name for hit in expected]
    assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))
    for hit, known in zip(hits, expected, strict=True):
        assert hit["score"] == pytest.approx(known.score, abs=1e-6)
        assert (hit["verdict"], hit["turn"]) == (known.verdict, known.turn)
        match = known.matches[0] if known.matches else None
        if match is None:
            assert hit["inliers"] is None and hit["region"] == [] and hit["affine"] is None
        else:
            values = match.as_dict()
            assert (hit["inliers"], hit["places"], hit["box"]) == (values["inliers"], values["places"], values["box"])
            assert (hit["region"], hit["query_region"]) == (values["outline"], values["query_outline"])
            assert hit["size"] == list(match.size)


# --- what there is ----------------------------------------------------------------------------------------------------


def test_health_and_indexes(client: Client) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    found = client.get("/indexes").json()
    assert found["version"] == __version__
    told = {one["name"]: one for one in found["indexes"]}
    assert list(told) == ["photos", "fused", "vectors"]
    assert told["photos"] == {
        "name": "photos", "images": 7, "commit": 2, "writable": False, "kinds": ["rootsift"], "verifies": True,
        "asks_photographs": True, "metadata": ["title", "year"], "groups": told["photos"]["groups"],
    }  # fmt: skip
    assert told["vectors"]["kinds"] == ["gem"] and not told["vectors"]["verifies"]
    assert not told["vectors"]["asks_photographs"] and not told["fused"]["asks_photographs"]
    assert told["fused"]["verifies"] and len(told["fused"]["kinds"]) == 2


def test_metrics_count_requests(client: Client) -> None:
    client.get("/health")
    text = client.get("/metrics").text
    assert 'asmk_requests_total{path="/health",status="200"}' in text and "asmk_images 32.0" in text


def test_description_of_the_api(client: Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    expected = {"/health", "/metrics", "/login", "/indexes", "/images", "/images/{name}", "/thumbnails/{name}"}
    expected |= {"/uploads", "/uploads/{key}", "/search", "/compare", "/compare/picture", "/groups", "/jobs/{key}"}
    expected |= {"/jobs/{key}/events", "/jobs/{key}/cancel", "/add", "/delete", "/restore"}
    assert expected <= set(paths)


def test_pages(client: Client) -> None:
    for path in ("/", "/api"):
        page = client.get(path)
        assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
        again = client.get(path, headers={"if-none-match": page.headers["etag"]})
        assert again.status_code == 304 and again.content == b""
    refusal(client.get("/nothing"), 404)
    refusal(client.get("/static/nothing.js"), 404)
    refusal(client.post("/health"), 405)


def test_unknown_index(client: Client) -> None:
    for path in ("/images", "/images/cat.png", "/thumbnails/cat.png", "/groups"):
        assert "no index is named 'x'" in refusal(client.get(path, index="x"), 404)


# --- folders and names ------------------------------------------------------------------------------------------------


def test_folders(client: Client) -> None:
    top = client.get("/images").json()
    assert top["folders"] == [
        {"name": "people/", "images": 2}, {"name": "strange/", "images": 1}, {"name": "things/", "images": 2},
    ]  # fmt: skip
    assert [one["name"] for one in top["images"]] == ["cat.png", "rocket.png"] and top["total"] == 2
    people = client.get("/images", folder="people").json()
    assert people["folder"] == "people/" and not people["folders"]
    assert people["images"][0] == {"name": PERSON, "metadata": {"title": "Eileen Collins", "year": "1999"}}
    assert client.get("/images", folder="peopl").json()["total"] == 0


def test_pages_of_names(client: Client) -> None:
    names, after = [], None
    while True:
        page = client.get("/images", search=".png", limit=2, **({} if after is None else {"after": after})).json()
        assert page["total"] == 7 and len(page["images"]) <= 2
        names += [one["name"] for one in page["images"]]
        after = page["next"]
        if after is None:
            break
    assert names == sorted(photographs(), key=str.encode)
    for limit in (0, -1, 501, 10**30):
        assert "limit" in refusal(client.get("/images", limit=limit), 422)
    assert "limit" in refusal(client.get("/images", limit="many"), 422)


@pytest.mark.parametrize(
    ("search", "folder", "expected"),
    [
        ("EILEEN", "", [PERSON]),
        ("collins astro 1999", "", [PERSON]),
        ("collins", "things", []),
        ("图", "", [STRANGE]),
        ("<i>", "", [STRANGE]),
        ("cup PNG", "things/", ["things/cup.png"]),
        ("no such thing", "", []),
    ],
)
def test_words_of_names_and_metadata(client: Client, search: str, folder: str, expected: list[str]) -> None:
    found = client.get("/images", search=search, folder=folder).json()
    assert [one["name"] for one in found["images"]] == expected and found["total"] == len(expected)


def test_one_image(client: Client) -> None:
    found = client.get(f"/images/{PERSON}").json()
    assert (found["previous"], found["following"]) == (None, TURNED)
    assert found["folder"] == "people/" and found["metadata"]["year"] == "1999" and found["group"] is None
    strange = client.get(f"/images/{quote(STRANGE, safe='')}").json()
    assert strange["name"] == STRANGE and strange["metadata"] == {"title": "<i>Strange</i> 图"}
    refusal(client.get("/images/people"), 404)
    refusal(client.get("/images/cat.png/"), 404)


# --- questions --------------------------------------------------------------------------------------------------------


def test_an_indexed_image_asks(client: Client, searcher: Searcher) -> None:
    expected = [hit for hit in searcher.search_name(PERSON, 7, rerank=50) if hit.name != PERSON]
    found = asked(client, name=PERSON)
    check_hits(found["hits"], expected)
    assert (found["index"], found["commit"], found["box"], found["more"], found["notes"]) == (
        "photos", 2, None, False, [],
    )  # fmt: skip
    assert found["question"] == [{"name": PERSON, "size": [256, 256]}]
    assert found["hits"][0]["name"] == STRANGE and found["hits"][0]["verdict"] == "match"
    assert found["hits"][0]["metadata"] == {"title": "<i>Strange</i> 图"}


def test_a_part_of_the_answer(client: Client) -> None:
    whole = asked(client, name=PERSON)
    found = asked(client, name=PERSON, top=2)
    assert found["hits"] == whole["hits"][:2] and found["more"]
    plain = asked(client, name=PERSON, rerank=0)
    assert {hit["verdict"] for hit in plain["hits"]} == {None}


def test_a_file_asks(client: Client, searcher: Searcher, tmp_path: Path) -> None:
    data = encoded(astronaut(), "JPEG")
    (tmp_path / "query.jpg").write_bytes(data)
    expected = searcher.search(tmp_path / "query.jpg", 30, rerank=50)
    answer = client.post("/search", files={"file": ("../../q 图.jpg", data)}, data={"top": "30"}).json()
    check_hits(answer["hits"], expected)
    assert answer["question"][0]["name"] == "../../q 图.jpg" and answer["question"][0]["size"] == [512, 512]
    again = asked(client, upload=answer["question"][0]["upload"])
    check_hits(again["hits"], expected)
    assert {hit["name"] for hit in again["hits"][:3]} == {PERSON, TURNED, STRANGE}


def test_a_region_asks(client: Client, searcher: Searcher, served_place: Path) -> None:
    box = (20.0, 10.0, 200.0, 180.0)
    expected = [hit for hit in searcher.search_name(PERSON, 7, box=box, rerank=50) if hit.name != PERSON]
    for given in (list(box), "20,10,200,180", " 20, 10,200.0,180 "):
        found = asked(client, name=PERSON, box=given)
        check_hits(found["hits"], expected)
        assert found["box"] == list(box)
    kept = upload(client, (served_place / "photos" / PERSON).read_bytes())
    check_hits(
        asked(client, upload=kept["upload"], box=list(box))["hits"],
        searcher.search(served_place / "photos" / PERSON, 30, box=box, rerank=50),
    )


def test_turned_photographs_ask(client: Client, searcher: Searcher, tmp_path: Path) -> None:
    pixels = np.ascontiguousarray(np.rot90(halved(astronaut())[:, ::-1]))
    Image.fromarray(pixels).save(tmp_path / "turned.png")
    expected = search_turned(searcher, pixels, turns(rotations=True, mirror=True), 30, rerank=50)
    kept = upload(client, (tmp_path / "turned.png").read_bytes())
    found = asked(client, upload=kept["upload"], rotations=True, mirror=True)
    check_hits(found["hits"], expected)
    best = found["hits"][0]
    assert best["name"] == PERSON and best["turn"].startswith("mirrored")
    assert found["question"][0]["size"] == [256, 256]
    compared = client.get("/compare", name=PERSON, upload=kept["upload"], turn=best["turn"]).json()
    assert compared["hit"]["inliers"] == best["inliers"] and compared["hit"]["turn"] == best["turn"]


def test_several_photographs_ask(client: Client, searcher: Searcher, served_place: Path) -> None:
    path = served_place / "photos" / "things/cup.png"
    kept = upload(client, path.read_bytes())
    found = asked(client, name=[PERSON, "cat.png"], upload=[kept["upload"]])
    features = [searcher.index.extractor.extract(served_place / "photos" / name) for name in (PERSON, "cat.png")]
    expected = search_several(searcher, [*features, path], None, rerank=50)
    kept_hits = [one for one in expected if one.hit.name not in (PERSON, "cat.png")]
    assert [hit["name"] for hit in found["hits"]] == [one.hit.name for one in kept_hits]
    assert [hit["question"] for hit in found["hits"]] == [one.photograph for one in kept_hits]
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([one.hit.score for one in kept_hits], abs=1e-5)
    assert len(found["question"]) == 3


def test_other_kinds_of_index_ask(client: Client) -> None:
    found = asked(client, index="vectors", name="image 000.jpg")
    assert found["hits"][0]["name"] == "image 001.jpg" and found["hits"][0]["score"] == pytest.approx(1, abs=1e-3)
    assert {hit["verdict"] for hit in found["hits"]} == {None}
    fused = asked(client, index="fused", name="photo 000.jpg")
    assert len(fused["hits"]) > 3 and all(hit["name"] != "photo 000.jpg" for hit in fused["hits"])
    answer = client.post("/search", files={"file": ("a.png", encoded(astronaut()))}, data={"index": "vectors"})
    assert "cannot be described" in refusal(answer, 422)
    assert "no places" in refusal(
        client.get("/compare", index="vectors", name="image 000.jpg", query="image 001.jpg"), 422
    )


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({}, 422, "0 photographs"),
        ({"name": "nobody.png"}, 404, "no image is named 'nobody.png'"),
        ({"upload": "unknown"}, 404, "no longer kept"),
        ({"name": [PERSON] * 9}, 422, "9 photographs"),
        ({"name": [PERSON, "cat.png"], "box": "1,2,3,4"}, 422, "a box is a region of one photograph"),
        ({"name": PERSON, "top": 0}, 422, "top is 0"),
        ({"name": PERSON, "top": 1001}, 422, "give 1 to 1000"),
        ({"name": PERSON, "top": "ten"}, 422, "whole number"),
        ({"name": PERSON, "rerank": 201}, 422, "give 0 to 200"),
        ({"name": PERSON, "rotations": "perhaps"}, 422, "true or false"),
        ({"name": PERSON, "box": "1,2,3"}, 422, "x1,y1,x2,y2"),
        ({"name": PERSON, "box": "1,2,nan,4"}, 422, "finite"),
        ({"name": PERSON, "box": [300, 300, 400, 400]}, 422, "box"),
        ({"name": PERSON, "box": [9, 9, 1, 1]}, 422, "box"),
        ({"name": PERSON, "box": [1e308, -1e308, 1e308, 1e308]}, 422, "box"),
        ({"name": {"a": 1}}, 422, "name holds an object"),
        ({"index": "x", "name": PERSON}, 404, "no index"),
    ],
)
def test_questions_that_are_refused(client: Client, fields: dict[str, Any], status: int, said: str) -> None:
    assert said in refusal(client.post("/search", json=fields), status)


# --- uploads and comparison -------------------------------------------------------------------------------------------


def test_uploads(client: Client) -> None:
    kept = upload(client, encoded(astronaut(), "WEBP"), "ü <b>.png")
    assert kept["size"] == [512, 512] and kept["name"] == "ü <b>.png"
    shown = client.get(f"/uploads/{kept['upload']}", size=160)
    assert shown.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(shown.content)).size == (160, 160)
    refusal(client.get(f"/uploads/{kept['upload']}", size=161), 422)
    refusal(client.get("/uploads/unknown"), 404)
    two = [("file", ("a.png", encoded(astronaut()))), ("file", ("b.png", encoded(astronaut())))]
    assert "2 files" in refusal(client.post("/uploads", files=two), 422)
    empty = {"content": b"--x--\r\n", "headers": {"content-type": "multipart/form-data; boundary=x"}}
    assert "0 files" in refusal(client.post("/uploads", **empty), 422)


def test_two_images_compared(client: Client, searcher: Searcher) -> None:
    found = client.get("/compare", name=TURNED, query=PERSON).json()
    known = next(hit for hit in searcher.search_name(PERSON, 7, rerank=50) if hit.name == TURNED)
    match = known.matches[0]
    assert match is not None
    assert found["hit"]["score"] is None and found["hit"]["inliers"] == match.as_dict()["inliers"]
    assert found["hit"]["verdict"] == known.verdict
    assert found["pairs"] == match.contributions() and len(found["pairs"]) == match.inliers
    assert found["query"]["size"] == found["image"]["size"] == [256, 256]
    kept = upload(client, encoded(halved(astronaut())))
    same = client.get("/compare", name=TURNED, upload=kept["upload"]).json()
    assert same["hit"]["inliers"] == found["hit"]["inliers"]
    part = client.get("/compare", name=TURNED, upload=kept["upload"], box="20,10,200,180").json()
    assert 0 < len(part["pairs"]) < len(same["pairs"])


def test_a_picture_of_two_images(client: Client) -> None:
    shown = client.get("/compare/picture", name=STRANGE, query=PERSON)
    assert shown.status_code == 200 and shown.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(shown.content)).size[0] > 400
    assert (
        shown.headers["content-disposition"].startswith("attachment;")
        and "<" not in shown.headers["content-disposition"]
    )
    for name in ("\N{GRINNING FACE}\r\nSet-Cookie: a=b", "a\0b", "x" * 3000, "%s%d{}", "مرحبا"):
        kept = upload(client, encoded(halved(astronaut())), name)
        assert client.get("/compare/picture", name=PERSON, upload=kept["upload"]).status_code == 200


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"name": PERSON}, 422),
        ({"name": PERSON, "query": TURNED, "upload": "x"}, 422),
        ({"query": PERSON}, 422),
        ({"name": "x", "query": PERSON}, 404),
        ({"name": PERSON, "query": "x"}, 404),
        ({"name": PERSON, "upload": "x"}, 404),
        ({"name": PERSON, "query": TURNED, "turn": "91"}, 422),
        ({"name": PERSON, "query": TURNED, "box": "a"}, 422),
    ],
)
def test_comparisons_that_are_refused(client: Client, query: dict[str, str], status: int) -> None:
    for path in ("/compare", "/compare/picture"):
        refusal(client.get(path, **query), status)


# --- groups -----------------------------------------------------------------------------------------------------------


def test_groups_of_other_kinds_are_refused(client: Client) -> None:
    assert "no local features" in refusal(client.post("/groups", json={"index": "vectors"}), 422)
    refusal(client.post("/groups", content=b"x"), 415)
    assert client.get("/groups", index="vectors").json()["state"] == "none"
    for limit in (0, 201):
        refusal(client.get("/groups", limit=limit), 422)


def test_groups(library: tuple[Service, Client]) -> None:
    _, client = library
    job = client.post("/groups", json={"index": "photos"})
    assert job.status_code == 202
    key = job.json()["job"]
    events = client.get(f"/jobs/{key}/events")
    assert events.headers["content-type"].startswith("text/event-stream")
    said = [line for line in events.text.splitlines() if line.startswith("data: ")]
    assert '"state": "done"' in said[-1]
    told = client.get(f"/jobs/{key}").json()
    assert told["state"] == "done" and told["kind"] == "groups" and told["failures"] == []
    found = client.get("/groups").json()
    assert found["state"] == "ready" and found["total"] == len(found["groups"]) and found["next"] is None
    people = next(group for group in found["groups"] if PERSON in group["images"])
    assert {PERSON, STRANGE} <= set(people["images"])
    assert client.get(f"/images/{PERSON}").json()["group"] == {
        key: people[key] for key in ("number", "images", "kinds")
    }
    first = client.get("/groups", limit=1).json()
    assert first["groups"] == found["groups"][:1] and first["next"] == (1 if found["total"] > 1 else None)
    assert client.get("/groups", after=10**30).json()["groups"] == []
    again = client.post("/groups", json={}).json()["job"]
    client.get(f"/jobs/{again}/events")
    assert client.get(f"/jobs/{again}").json()["step"] == ""  # they were known
    assert client.post(f"/jobs/{again}/cancel").status_code == 204
    refusal(client.get("/jobs/unknown"), 404)
    refusal(client.get("/jobs/unknown/events"), 404)
    refusal(client.post("/jobs/unknown/cancel"), 404)


# --- what changes nothing ---------------------------------------------------------------------------------------------


def test_changes_are_refused(client: Client, served_place: Path) -> None:
    for path in ("/delete", "/restore"):
        assert "--writable" in refusal(client.post(path, json={"names": [PERSON]}), 403)
    assert "--writable" in refusal(client.post("/add", files={"file": ("a.png", encoded(astronaut()))}), 403)
    assert Index.open(served_place / "photos.index").images == 7
