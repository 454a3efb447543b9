"""Hostile bodies: photographs that are none, bombs, and forms, JSON, headers and addresses by chance; never a 500."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from asmk_engine.serve import guard
from serving import HOST, STRANGE, Answer, Client, encoded, serving
from skimage_pairs import astronaut, halved

PERSON = "people/astronaut.png"
JSON = ("content-type", "application/json")
FORM = ("content-type", "multipart/form-data; boundary=b")
FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def small(served_place: Path) -> Iterator[Client]:
    """A server that takes 1 MiB at most and changes nothing."""
    with serving([served_place / "photos.index"], upload=1, memory=768) as (_, client):
        yield client


def checked(answer: Answer) -> Answer:
    """Check that an answer is an answer or one line of why not, and tells nothing of the server."""
    assert 200 <= answer.status < 500, answer
    for secret in (b"Traceback", b"/tmp", b"site-packages", b".py"):
        assert secret not in answer.body
    if answer.status >= 400:
        assert list(answer.json) == ["error"] and len(answer.json["error"]) < 2000
    return answer


# --- photographs ------------------------------------------------------------------------------------------------------


def png(width: int, height: int, data: bytes | None = None) -> bytes:
    """A PNG of one grey, packed as well as it can be, or with other data."""
    if data is None:
        packer = zlib.compressobj(9)
        row = bytes(1 + min(width, 60000))
        data = b"".join([*(packer.compress(row) for _ in range(min(height, 64))), packer.flush()])
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )


def gif_bomb() -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HH", 65535, 65535)
        + b"\x80\0\0"
        + b"\0" * 6
        + b","
        + struct.pack("<HHHH", 0, 0, 65535, 65535)
        + b"\0\x02\x02\x4c\x01\0;"
    )


def tiff_bomb() -> bytes:
    tags = ((256, 4, 1, 60000), (257, 4, 1, 60000), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8),
            (277, 3, 1, 1), (278, 4, 1, 60000), (279, 4, 1, 100))  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (
        b"II*\0"
        + struct.pack("<I", 8)
        + struct.pack("<H", len(tags))
        + entries
        + b"\0\0\0\0"
        + zlib.compress(b"\0" * 999)
    )


def webp_bomb() -> bytes:
    whole = bytearray(encoded(np.zeros((16, 16, 3), np.uint8), "WEBP"))
    place = whole.find(b"\x9d\x01\x2a") + 3
    whole[place : place + 4] = b"\xff\x3f\xff\x3f"
    return bytes(whole)


PHOTO = encoded(halved(astronaut()))
JPEG = encoded(halved(astronaut()), "JPEG")
NOT_PHOTOGRAPHS = {
    "empty": b"",
    "text": b"hello",
    "PNG of 60000 x 60000": png(60000, 60000),
    "PNG of 2^31 x 2^31": png(0x7FFFFFFF, 0x7FFFFFFF),
    "PNG of 0 x 0": png(0, 0),
    "PNG of no pixels": png(100, 100, b""),
    "PNG with broken data": png(100, 100, b"\x78\x9c" + b"\xff" * 50),
    "GIF bomb": gif_bomb(),
    "TIFF bomb": tiff_bomb(),
    "WebP bomb": webp_bomb(),
    "half a PNG": PHOTO[: len(PHOTO) // 2],
    "only a signature": PHOTO[:8],
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "HTML": b"<html><script>alert(1)</script></html>",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
    "PDF": b"%PDF-1.4\n",
    "ZIP": b"PK\x03\x04" + bytes(99),
    "ICO": b"\0\0\1\0\1\0" + bytes(99),
    "PPM": b"P6 9 9 255\n" + bytes(243),
    "TGA": bytes((0, 0, 2)) + bytes(9) + struct.pack("<HHBB", 9, 9, 24, 0) + bytes(243),
    "pickle": b"\x80\x04cposix\nsystem\n(S'id'\ntR.",
    "link": b"../../../../etc/passwd",
    "BMP of a minus": b"BM" + bytes(12) + struct.pack("<IiiHHIIiiII", 40, -100, 100, 1, 24, 0, 0, 0, 0, 0, 0),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60),
    "AVIF": b"\0\0\0\x1cftypavif" + bytes(60),
}


@pytest.mark.parametrize("kind", NOT_PHOTOGRAPHS)
def test_what_is_no_photograph(small: Client, kind: str) -> None:
    for path in ("/uploads", "/search"):
        answer = small.post(path, files={"file": ("a.png", NOT_PHOTOGRAPHS[kind], "image/png")})
        assert answer.status_code == 422, (kind, answer.text)
        assert "/tmp" not in answer.text and "asmk-engine-uploads" not in answer.text
    assert small.get("/health").status_code == 200


def test_a_photograph_is_known_by_its_content(small: Client) -> None:
    for name in ("a.exe", "a.png", "", "a.svg", "../a", "a.png\0.exe"):
        for kind in ("text/html", "image/svg+xml", "application/x-httpd-php", "x"):
            answer = small.post("/uploads", files={"file": (name or "x", JPEG, kind)})
            assert answer.status_code == 200
            shown = small.get(f"/uploads/{answer.json()['upload']}")
            assert shown.headers["content-type"] == "image/jpeg" and shown.content[:3] == b"\xff\xd8\xff"


def test_nothing_of_the_file_but_its_pixels_comes_back(small: Client) -> None:
    """A file may be a photograph and something else at once."""
    page = b"<script>alert(1)</script>"
    for data in (PHOTO + page, JPEG[:2] + b"\xff\xfe" + struct.pack(">H", len(page) + 2) + page + JPEG[2:]):
        key = small.post("/uploads", files={"file": ("a.html", data)}).json()["upload"]
        for size in (160, 1280):
            assert page not in small.get(f"/uploads/{key}", size=size).content


def test_exif_of_a_place_is_not_shown(small: Client) -> None:
    exif = Image.Exif()
    exif[0x010E] = "the secret place"
    file = io.BytesIO()
    Image.fromarray(halved(astronaut())).save(file, "JPEG", exif=exif)
    key = small.post("/uploads", files={"file": ("a.jpg", file.getvalue())}).json()["upload"]
    assert b"secret" in file.getvalue() and b"secret" not in small.get(f"/uploads/{key}").content


@FEW
@given(st.integers(0, len(JPEG) - 1), st.binary(min_size=1, max_size=40), st.booleans())
def test_damaged_photographs(small: Client, place: int, damage: bytes, is_cut: bool) -> None:
    data = JPEG[:place] + damage + (b"" if is_cut else JPEG[place + len(damage) :])
    assert small.post("/uploads", files={"file": ("a.jpg", data)}).status_code in (200, 422)


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_large_bodies(small: Client) -> None:
    part = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    large = [part, *[bytes(1 << 16)] * 20, b"\r\n--b--\r\n"]
    length = str(sum(map(len, large)))
    for path in ("/uploads", "/search"):
        for stated in (
            [("content-length", length)],
            [],
            [("content-length", "10")],
            [("transfer-encoding", "chunked")],
        ):
            answer = small.send(path, "POST", [FORM, *stated], large)
            assert answer.status == 413 and "more than 1 MiB" in answer.json["error"]
    for path in ("/search", "/groups", "/login"):
        assert small.send(path, "POST", [JSON], [b" " * (1 << 16)] * 20).status == 413
    for stated in ("-1", "1e3", "", " ", "\xb2", "9" * 4000, "0x10", "1_0"):
        assert small.send("/groups", "POST", [JSON, ("content-length", stated)], [b"{}"]).status in (400, 413)
    assert small.send("/health", headers=[("content-length", str(1 << 40))]).status == 413


def test_slow_bodies(small: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_PAUSE", 0.05)
    for headers in ([FORM], [JSON]):
        answer = small.send("/search", "POST", headers, [b"--b\r\n"], ends=False)
        assert answer.status == 408 and "too slowly" in answer.json["error"]


# --- forms ------------------------------------------------------------------------------------------------------------


def test_forms_of_thousands_of_parts(small: Client) -> None:
    field = b'--b\r\ncontent-disposition: form-data; name="name"\r\n\r\nx\r\n'
    file = b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n\r\n'
    for part in (field, file):
        checked(small.send("/search", "POST", [FORM], [part * 3000 + b"--b--\r\n"]))
        checked(small.send("/uploads", "POST", [FORM], [part * 900 + b"--b--\r\n"]))


@pytest.mark.parametrize(
    "charset",
    ["punycode", "idna", "undefined", "unicode_escape", "utf-7", "utf-16", "zlib", "rot13", "mbcs", "\xff", ""],
)
def test_encodings_of_forms(small: Client, charset: str) -> None:
    part = b'--b\r\ncontent-disposition: form-data; name="name"\r\n\r\n\\ud800\xff+AGE-xn--a\r\n--b--\r\n'
    kind = f'multipart/form-data; boundary=b; charset="{charset}"'
    answer = checked(small.send("/search", "POST", [("content-type", kind)], [part]))
    assert answer.status in (404, 415)


@pytest.mark.parametrize(
    "kind",
    ["", "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "x" * 300,
     "multipart/mixed; boundary=b", "application/x-www-form-urlencoded", "text/plain", "\xff", "application/json; ;;=",
     "multipart/form-data; boundary=\xff", 'multipart/form-data; boundary="', "multipart/form-data;boundary*=utf-8''b"],
)  # fmt: skip
def test_kinds_of_bodies(small: Client, kind: str) -> None:
    for path in ("/search", "/uploads"):
        answer = checked(small.send(path, "POST", [("content-type", kind)], [b"name=cat.png&" * 1000]))
        assert answer.status in (400, 415)


PIECES = st.one_of(
    st.sampled_from(
        [b"--b", b"--b--", b"\r\n", b"\n", b"\r", b":", b";", b"=", b'"', b"\0", b"content-disposition: form-data",
         b'; name="file"', b'; name="name"', b'; name="box"', b'; filename="a.png"', b"; filename*=utf-8''%ff%00",
         b"\r\n\r\n", b"content-type: multipart/mixed; boundary=b", b"content-transfer-encoding: base64", PHOTO[:40],
         b"x" * 5000, b"content-disposition: form-data; name=", b"--b\r\n" * 50]
    ),
    st.binary(max_size=20),
)  # fmt: skip


@FEW
@given(st.lists(PIECES, max_size=25), st.integers(0, 200))
def test_forms_by_chance(small: Client, pieces: list[bytes], cut: int) -> None:
    body = b"".join(pieces)
    for path in ("/search", "/uploads", "/add"):
        checked(small.send(path, "POST", [FORM], [body[:cut], body[cut:]]))


@FEW
@given(st.text(max_size=40), st.text(max_size=40), st.binary(max_size=60))
def test_names_in_forms(small: Client, field: str, name: str, data: bytes) -> None:
    quoted = [
        text.replace('"', "%22").replace("\r", "").replace("\n", "").encode("utf-8", "replace")
        for text in (field, name)
    ]
    part = b'--b\r\ncontent-disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n--b--\r\n' % (*quoted, data)
    checked(small.send("/uploads", "POST", [FORM], [part]))


# --- JSON -------------------------------------------------------------------------------------------------------------

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from(["photos", PERSON, STRANGE, "x", "", "NaN", "true", "1,2,3,4", 10**400, -1, 1e308, "\ud800", "\0"]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
FIELDS = st.sampled_from(
    ["index", "name", "names", "upload", "file", "box", "top", "rerank", "rotations", "mirror", "token", "\ud800", ""]
)


@FEW
@given(st.dictionaries(FIELDS, VALUES, max_size=6))
def test_json_by_chance(small: Client, content: dict[str, Any]) -> None:
    for path in ("/search", "/groups", "/login", "/delete", "/restore"):
        if path == "/groups" and (not content.get("index") or content["index"] == "photos"):
            continue
        checked(small.send(path, "POST", [JSON], [json.dumps(content).encode()]))


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"1", b'"x"', b"{", b"{}}", b"NaN", b'{"top": NaN}', b'{"top": Infinity}', b'{"box": [1e999, 0, 1, 1]}',
     b'{"name": "\\ud800"}', b'{"name": "\xed\xa0\x80"}', b'{"\\udfff": 1}', b"\xff\xfe{\0}\0", b'{"top": ' + b"9" * 5000 + b"}",
     b"\xef\xbb\xbf{}", b'{"name": "a", "name": {}}', b'{"top": 1e400}', b'{"top": 30.0, "name": "cat.png"}'],
)  # fmt: skip
def test_json_that_is_refused(small: Client, body: bytes) -> None:
    for path in ("/search", "/delete", "/login"):
        answer = checked(small.send(path, "POST", [JSON], [body]))
        assert 400 <= answer.status or path == "/login"


def test_deep_json(small: Client) -> None:
    for depth in (*range(100, 1100, 25), 100_000):
        for pattern in (b'{"index": %s1%s}', b'{"name": "cat.png", "box": [%s1%s]}', b'{"names": [%s1%s]}', b"%s%s"):
            body = pattern % (b"[" * depth, b"]" * depth)
            for path in ("/search", "/login", "/delete"):
                answer = checked(small.send(path, "POST", [JSON], [body]))
                assert answer.status >= 400 or path == "/login"


# --- headers and addresses --------------------------------------------------------------------------------------------

HEADERS = st.sampled_from(
    ["host", "origin", "cookie", "authorization", "content-type", "content-length", "if-none-match", "sec-fetch-site",
     "sec-fetch-mode", "range", "accept-encoding", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "expect",
     "x-http-method-override", "upgrade", "te", "if-modified-since", "accept", "forwarded"]
)  # fmt: skip
LATIN = st.text(st.characters(max_codepoint=255), max_size=60)


@FEW
@given(
    st.lists(
        st.tuples(HEADERS, LATIN | st.sampled_from([f"http://{HOST}", "http://[", "*", 'W/"x"', "same-site"])),
        max_size=6,
    )
)
def test_headers_by_chance(small: Client, headers: list[tuple[str, str]]) -> None:
    for path, method in (("/images", "GET"), ("/", "GET"), ("/thumbnails/cat.png", "GET"), ("/search", "POST")):
        checked(small.send(path, method, headers, [b"{}"]))


PATHS = st.sampled_from(
    [
        "/images",
        "/images/cat.png",
        "/thumbnails/cat.png",
        "/groups",
        "/uploads/x",
        "/compare",
        "/compare/picture",
        "/indexes",
    ]
)
PARAMETERS = st.sampled_from(
    ["index", "folder", "search", "after", "limit", "size", "name", "query", "upload", "box", "turn", "x"]
)


@FEW
@given(
    PATHS,
    st.lists(
        st.tuples(PARAMETERS, st.text(max_size=30) | st.sampled_from(["cat.png", PERSON, "photos", "9" * 500, "-1"]))
    ),
)
def test_addresses_by_chance(small: Client, path: str, values: list[tuple[str, str]]) -> None:
    from urllib.parse import urlencode

    checked(small.send(path, query=urlencode(values, errors="replace").encode()))


@FEW
@given(PATHS, st.binary(max_size=60))
def test_queries_of_any_bytes(small: Client, path: str, query: bytes) -> None:
    checked(small.send(path, query=query))


@FEW
@given(
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=40),
    st.sampled_from(["GET", "POST", "HEAD", "PUT", "\u00fc"]),
)
def test_paths_of_any_text(small: Client, path: str, method: str) -> None:
    checked(small.send("/" + path, method))
