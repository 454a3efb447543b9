"""Who may ask the server what: hosts, origins, the token, headers, paths, rates."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from asmk_engine.errors import InputError
from asmk_engine.serve import access
from asmk_engine.serve.access import Access, Rates
from asmk_engine.serve.options import ServeOptions
from asmk_engine.serve.refusals import Refusal, discreet
from asmk_engine.serve.service import Service
from serving import HOST, Client, encoded, serving
from skimage_pairs import astronaut, halved

TOKEN = "correct-horse-1"
BEARER = ("authorization", f"Bearer {TOKEN}")
JSON = ("content-type", "application/json")
ENDPOINTS = [
    ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/indexes"), ("GET", "/images"), ("GET", "/images/cat.png"),
    ("GET", "/thumbnails/cat.png"), ("POST", "/uploads"), ("GET", "/uploads/x"), ("POST", "/search"),
    ("GET", "/compare"), ("GET", "/compare/picture"), ("GET", "/groups"), ("POST", "/groups"), ("GET", "/jobs/x"),
    ("GET", "/jobs/x/events"), ("POST", "/jobs/x/cancel"), ("POST", "/add"), ("POST", "/delete"), ("POST", "/restore"),
    ("GET", "/nothing"), ("GET", "//indexes"), ("GET", "/static"), ("GET", "/health/"), ("GET", "/HEALTH"),
    ("GET", "/login/../indexes"), ("DELETE", "/images/cat.png"), ("OPTIONS", "/search"),
    ("GET", "/api/../openapi.json"), ("GET", ""), ("GET", "indexes"), ("GET", "http://x/static/"),
]  # fmt: skip


@pytest.fixture(scope="module")
def guarded(served_place: Path) -> Iterator[Client]:
    """A server with a token, which listens everywhere and changes indexes."""
    options = {
        "token": TOKEN,
        "host": "0.0.0.0",
        "allowed_hosts": ("Photos.Example:443", "[fd00::1]"),
        "writable": True,
    }
    with serving([served_place / "photos.index"], **options) as (_, client):
        yield client


# --- hosts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8765", "LOCALHOST:1", "127.0.0.1:8765", "[::1]:8765", "0.0.0.0", "photos.example",
     "PHOTOS.example:8443", "[FD00::1]:1", " localhost ", "localhost:"],
)  # fmt: skip
def test_hosts_that_are_ours(guarded: Client, host: str) -> None:
    assert guarded.send("/health", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["", None, "evil.example", "localhost.", "localhost.evil.example", "evil.example:8765", "localhost:8765:8765",
     "localhost@evil.example", "evil.example#localhost", "127.0.0.1.nip.io", "127.1", "2130706433", "[::]", "::1",
     "localhost, evil.example", "localhost:8765x", "xn--localhost", "localhost\\", "localhost/", "[::1", "\xff",
     "x" * 10_000],
)  # fmt: skip
def test_hosts_that_are_not(guarded: Client, host: str | None) -> None:
    answer = guarded.send("/health", host=host)
    assert answer.status == 421 and list(answer.json) == ["error"]


def test_two_hosts(guarded: Client) -> None:
    assert guarded.send("/health", headers=[("host", "evil.example")]).status == 400
    assert guarded.send("/health", headers=[("Host", HOST)]).status == 400


# --- origins ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    ["null", "", "http://evil.example", "http://localhost", "http://localhost:8766", "http://localhost:8765.evil.example",
     "http://localhost:8765@evil.example", "http://evil@localhost:8765", "http://127.0.0.1:8765", "file://", "http://[",
     "http://[::1", "http://\u2100:8765", "localhost:8765", "javascript:alert(1)", "x" * 5000],
)  # fmt: skip
def test_pages_of_others(client: Client, origin: str) -> None:
    answer = client.send("/health", headers=[("origin", origin.encode().decode("latin-1"))])
    assert answer.status == 403 and "other sites" in answer.json["error"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize(
    "headers",
    [
        [("origin", "http://evil.example")],
        [("origin", "null")],
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site"), ("sec-fetch-mode", "navigate")],
    ],
)
def test_forms_of_others(client: Client, kind: str, headers: list[tuple[str, str]]) -> None:
    for path in ("/search", "/groups", "/login", "/uploads"):
        answer = client.send(path, "POST", [*headers, ("content-type", kind)], [b"{}"])
        assert answer.status == 403


def test_our_page_and_links_to_it(client: Client) -> None:
    own = [("origin", f"http://{HOST}"), ("sec-fetch-site", "same-origin")]
    assert client.send("/groups", "POST", [*own, JSON], [b'{"index": "vectors"}']).status == 422
    assert client.send("/health", headers=[("origin", f"HTTP://{HOST.upper()}")]).status == 200
    assert client.send("/", headers=[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]).status == 200
    assert (
        client.send("/images", headers=[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")]).status == 403
    )
    assert client.send("/thumbnails/cat.png", headers=[("sec-fetch-site", "cross-site")]).status == 403
    assert client.send("/health", headers=[("sec-fetch-site", "none")]).status == 200


def test_no_answer_allows_other_origins(client: Client) -> None:
    answer = client.send("/search", "OPTIONS", [("access-control-request-method", "POST")])
    assert answer.status == 405
    assert not [name for name, _ in answer.headers if name.startswith("access-control")]


# --- the token --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_the_token_is_needed(guarded: Client, method: str, path: str) -> None:
    for headers in ([], [("authorization", "Bearer wrong-token")], [("authorization", f"Basic {TOKEN}")]):
        answer = guarded.send(path, method, headers)
        assert answer.status == 401 and answer.header("www-authenticate") == "Bearer", path
    assert guarded.send(path, method, [BEARER]).status not in (401, 200) or method == "GET"


def test_what_needs_no_token(guarded: Client) -> None:
    for path in ("/", "/api", "/health"):
        assert guarded.send(path).status == 200
    for path in ("/static/nothing.js", "/static/../indexes", "/static/../images/cat.png", "/static/"):
        assert guarded.send(path).status == 404


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", "bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN.upper()}",
     f"Bearer {TOKEN},{TOKEN}", f"Token {TOKEN}", TOKEN, "Bearer \xff\xfe", "Bearer " + "x" * 20_000, f"Bearer\t{TOKEN}"],
)  # fmt: skip
def test_wrong_tokens(guarded: Client, given: str) -> None:
    assert guarded.send("/indexes", headers=[("authorization", given)]).status == 401


def test_tokens_in_other_places_do_not_count(guarded: Client) -> None:
    assert guarded.send("/indexes", query=f"token={TOKEN}".encode()).status == 401
    assert guarded.send("/indexes", headers=[("cookie", f"asmk_engine={TOKEN}; token={TOKEN}")]).status == 401
    assert guarded.send("/indexes", headers=[("x-token", TOKEN), ("x-forwarded-for", "127.0.0.1")]).status == 401
    assert guarded.send("/indexes", headers=[BEARER]).status == 200
    assert guarded.send("/indexes", headers=[("authorization", f"bEaReR  {TOKEN} ")]).status == 200


def test_signing_in(guarded: Client) -> None:
    for body in (
        b'{"token": "wrong"}',
        b"{}",
        b'{"token": 1}',
        b'{"token": null}',
        b'{"token": ["x"]}',
        b'{"token": ""}',
    ):
        answer = guarded.send("/login", "POST", [JSON], [body])
        assert answer.status == 401 and answer.header("set-cookie") is None
    answer = guarded.send("/login", "POST", [JSON], [b'{"token": "%s"}' % TOKEN.encode()])
    cookie = answer.header("set-cookie") or ""
    assert answer.status == 204 and TOKEN not in cookie
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "Domain" not in cookie
    own = cookie.partition(";")[0]
    assert guarded.send("/indexes", headers=[("cookie", f"a=b; {own}; c")]).status == 200
    name, _, value = own.partition("=")
    for wrong in (f"{name}=x{value[1:]}", f"x{own}", name, f"{name}=", "=", ";;;", "\xff"):
        assert guarded.send("/indexes", headers=[("cookie", wrong)]).status == 401
    assert guarded.send("/indexes", headers=[("cookie", own), ("origin", "http://evil.example")]).status == 403


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    real = access.hmac.compare_digest
    monkeypatch.setattr(access.hmac, "compare_digest", lambda one, other: compared.append(other) or real(one, other))
    rules = Access(ServeOptions(token=TOKEN))
    assert not rules.has_token({"authorization": "Bearer wrong"}) and compared == [TOKEN.encode()]
    assert not rules.has_token({"cookie": f"{rules.cookie_name}=x"}) and compared[1:] == [rules.cookie.encode()]


def test_servers_with_other_tokens_have_other_cookies() -> None:
    """Browsers share cookies among the ports of a host."""
    one, other = (Access(ServeOptions(token=token)) for token in ("token-one", "token-two"))
    assert one.cookie_name != other.cookie_name and one.cookie != other.cookie
    assert not other.has_token({"cookie": f"{other.cookie_name}={one.cookie}"})


def test_guesses_are_counted(served_place: Path) -> None:
    with serving([served_place / "photos.index"], token=TOKEN, rate=1) as (_, client):
        for path in ("/thumbnails/cat.png", "/uploads/x", "/indexes", "/login"):
            method = "POST" if path == "/login" else "GET"
            found = [client.send(path, method, [JSON], [b"{}"]).status for _ in range(6)]
            assert found[-1] == 429
        assert client.send("/static/x.js").status == 404  # the page itself always comes


def test_nothing_tells_the_token(guarded: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for path, _ in ((path, method) for method, path in ENDPOINTS if method == "GET"):
        answer = guarded.send(path, headers=[BEARER])
        assert TOKEN.encode() not in answer.body and TOKEN not in str(answer.headers)
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"host": "0.0.0.0"}, "--token"),
        ({"host": "::"}, "--token"),
        ({"host": "photos.example"}, "--token"),
        ({"host": ""}, "host is empty"),
        ({"host": "[]"}, "host is empty"),
        ({"token": "short"}, "too short"),
        ({"token": "ü" * 20}, "not ASCII"),
        ({"token": TOKEN, "no_auth": True}, "exclude each other"),
        ({"port": 65536}, "port is 65536"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"memory": 1}, "memory is 1"),
    ],
)
def test_options_that_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ServeOptions(**values)  # type: ignore[arg-type]


# --- headers ----------------------------------------------------------------------------------------------------------


def test_every_answer_has_the_headers(guarded: Client, client: Client) -> None:
    etag = client.send("/").header("etag") or ""
    picture = client.send("/thumbnails/cat.png").header("etag") or ""
    answers = [
        client.send(path) for path in ("/", "/api", "/health", "/indexes", "/nothing", "/metrics", "/openapi.json")
    ]
    answers += [
        client.send("/", headers=[("if-none-match", etag)]),
        client.send("/", "POST"),
        client.send("/", host="x"),
    ]
    answers += [client.send("/thumbnails/cat.png", headers=[("if-none-match", picture)]), guarded.send("/indexes")]
    answers += [client.send("/search", "POST", [JSON], [b"x"]), guarded.send("/login", "POST", [JSON], [b"{}"])]
    assert {answer.status for answer in answers} == {200, 304, 400, 401, 404, 405, 421}
    for answer in answers:
        found = dict(answer.headers)
        assert len(found) == len(answer.headers)  # none twice
        assert "default-src 'none'" in found["content-security-policy"] and "unsafe" not in str(found)
        assert "frame-ancestors 'none'" in found["content-security-policy"]
        assert found["x-content-type-options"] == "nosniff" and found["referrer-policy"] == "no-referrer"
        assert found["cross-origin-resource-policy"] == "same-origin" and found["x-frame-options"] == "DENY"
        assert "server" not in found


def test_a_bug_tells_nothing(library: tuple[Service, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    service, client = library

    def fail() -> None:
        raise ZeroDivisionError("/secret/path and more")

    monkeypatch.setattr(service.shelf, "get", lambda name: fail())
    answer = client.send("/images")
    assert answer.status == 500 and b"secret" not in answer.body and b"Traceback" not in answer.body
    assert list(answer.json) == ["error"] and answer.header("x-frame-options") == "DENY"


def test_everything_of_clients_is_json_or_a_picture(client: Client) -> None:
    script = "<script>alert(1)</script>.png"
    answers = [
        client.get("/images", search=script),
        client.get(f"/images/{script}"),
        client.get("/images", index=script),
    ]
    answers += [client.post("/uploads", files={"file": (script, encoded(halved(astronaut())))})]
    for answer in answers:
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"


# --- paths ------------------------------------------------------------------------------------------------------------

HOSTILE = [
    "../../etc/passwd", "/etc/passwd", "//etc/passwd", "..\\..\\etc\\passwd", "C:\\Windows\\win.ini", "..", ".", "",
    "../photos.index/manifest.json", "people/../../photos.index/manifest.json", "people/./astronaut.png",
    "cat.png\0", "\0", "cat.png/..", "x" * 9000, "..%2f..%2fetc%2fpasswd", "%2e%2e/etc/passwd", "....//etc/passwd",
    "cat.png\n", "\ufffd", "file:///etc/passwd", "\\\\host\\share\\a.png", "CAT.PNG", "cat.png::$DATA", "~/a", "%00",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_paths_reach_no_file(client: Client, name: str) -> None:
    for folder in ("/static/", "/images/", "/thumbnails/", "/uploads/", "/jobs/"):
        answer = client.send(folder + name)
        assert answer.status in (404, 422), (folder, answer.status, answer.body)
        assert b"root:" not in answer.body and b"/tmp" not in answer.body
    answer = client.send("/search", "POST", [JSON], [b'{"name": %s}' % _json(name)])
    assert answer.status in (404, 422) and b"/tmp" not in answer.body
    answer = client.send("/search", "POST", [JSON], [b'{"upload": %s}' % _json(name)])
    assert answer.status in (404, 422)


def _json(text: str) -> bytes:
    import json

    return json.dumps(text).encode()


@pytest.mark.parametrize(
    "path", ["/static/index.html", "/static/%69ndex.html", "/static/index.html/", "/static//index.html"]
)
def test_files_of_the_page_have_one_address(client: Client, path: str) -> None:
    assert client.send(path).status == (200 if path == "/static/index.html" else 404)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/jo/photos.index: damaged", "photos.index: damaged"),
        ("/home/jo smith/my photos/a b.jpg: broken; give /x/y z", "a b.jpg: broken; give y z"),
        ("'/srv/a/b.npz' and \"/srv/c\"", "'b.npz' and \"c\""),
        ("`asmk-engine index /data/photos -o /data/p.index`", "`asmk-engine index p.index`"),
        (r"C:\Users\jo\photos.index: damaged", "photos.index: damaged"),
        ("width/height is 3/4, and/or; 1 / 2", "width/height is 3/4, and/or; 1 / 2"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("two\nlines\t here", "two lines here"),
        ("(/tmp/asmk/x) [/tmp/y/z] =/tmp/y/z", "(x) [z] =z"),
    ],
)
def test_folders_are_told_to_nobody(text: str, told: str) -> None:
    assert discreet(text) == told


# --- rates ------------------------------------------------------------------------------------------------------------


def test_rates() -> None:
    rates = Rates(2)
    for _ in range(8):
        rates.check("a", 100.0)
    with pytest.raises(Refusal) as caught:
        rates.check("a", 100.0)
    assert caught.value.status == 429 and caught.value.retry == 1
    rates.check("b", 100.0)
    rates.check("a", 100.5)
    with pytest.raises(Refusal):
        rates.check("a", 100.5)
    rates.check("a", 200.0)


def test_rates_remember_few_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MOST_CLIENTS", 10)
    rates = Rates(1)
    for number in range(100):
        rates.check(str(number), 100.0)
    assert len(rates._known) == 10


def test_a_client_too_fast(served_place: Path) -> None:
    with serving([served_place / "photos.index"], rate=1) as (_, client):
        answers = [client.send("/indexes") for _ in range(6)]
        assert [answer.status for answer in answers][:4] == [200] * 4
        assert answers[-1].status == 429 and re.fullmatch(r"\d+", answers[-1].header("retry-after") or "")
        assert client.send("/thumbnails/cat.png").status == 200
