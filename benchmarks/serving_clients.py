"""The clients of the load test: those that search and upload, whose answers are checked, and those that misbehave."""

from __future__ import annotations

import collections
import contextlib
import http.client
import io
import itertools
import json
import os
import random
import signal
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from serving_index import Answer
from serving_process import Server

HANG_SECONDS = 60.0
BUSY = (429, 503)
TOLERANCE = 2e-6
"""Scores are rounded to six digits."""
UPLOAD_TOLERANCE = 0.02
"""A network that shares its processors may add in another order."""


@dataclass
class Record:
    """What clients measured: seconds by kind of request, numbers of events, and what was wrong."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(list))
    events: collections.Counter[str] = field(default_factory=collections.Counter)
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def took(self, kind: str, seconds: float) -> None:
        """Add the time of a request."""
        with self.lock:
            self.seconds[kind].append(seconds)

    def count(self, event: str) -> None:
        """Count an event."""
        with self.lock:
            self.events[event] += 1

    def wrong(self, what: str) -> None:
        """Note an error."""
        with self.lock:
            self.errors.append(what)


class Connection:
    """A connection that is kept, and made again where the server closed it."""

    def __init__(self, server: Server) -> None:
        self._server, self._open = server, http.client.HTTPConnection(server.host, server.port, timeout=HANG_SECONDS)

    def post(self, path: str, kind: str, body: bytes) -> tuple[int, bytes]:
        """Send a request and return status and body; raises OSError or HTTPException if the server breaks off."""
        try:
            self._open.request("POST", path, body, {"Content-Type": kind})
            answer = self._open.getresponse()
            return answer.status, answer.read()
        except BaseException:
            self._open.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._open.close()


def search_body(name: str, top: int, rerank: int) -> bytes:
    """Return the JSON of a search for an indexed image."""
    return json.dumps({"name": name, "top": top, "rerank": rerank}).encode()


def search_names(
    server: Server,
    names: Iterator[str],
    right: dict[str, Answer],
    sizes: tuple[int, int],
    end: float,
    record: Record,
    pace: float = 0.0,
) -> None:
    """Search by names until the end, of the phase or of the names, and compare every answer with the right one.

    pace  seconds from one request to the next, if it was answered by then
    """
    connection = Connection(server)
    for name in names:
        if time.monotonic() > end:
            break
        begun = time.perf_counter()
        try:
            status, body = connection.post("/search", "application/json", search_body(name, *sizes))
        except (OSError, http.client.HTTPException) as error:
            record.wrong(f"search {name}: {type(error).__name__} {error}")
            continue
        seconds = time.perf_counter() - begun
        if status in BUSY:
            record.count("searches refused")
            time.sleep(0.2)
        elif status != 200:
            record.wrong(f"search {name}: {status} {body[:200]!r}")
        else:
            record.took("search", seconds)
            if not is_right(json.loads(body), right[name], TOLERANCE):
                record.wrong(f"search {name}: another answer than the library's")
        time.sleep(max(0.0, begun + pace - time.perf_counter()))
    connection.close()


def is_right(answer: dict[str, object], right: Answer, tolerance: float) -> bool:
    """Return whether the hits have these names and scores; equal scores within the tolerance may change places."""
    hits = answer["hits"]
    assert isinstance(hits, list)
    found = [(hit["name"], hit["score"]) for hit in hits]
    if len(found) != len(right):
        return False
    same_scores = all(abs(one - other) <= tolerance for (_, one), (_, other) in zip(found, right, strict=True))
    if tolerance <= TOLERANCE:
        return same_scores and [name for name, _ in found] == [name for name, _ in right]
    return same_scores and found[0][0] == right[0][0]


def upload_photographs(
    server: Server, photographs: dict[Path, Answer], sizes: tuple[int, int], end: float, record: Record
) -> None:
    """Search with photographs until the end, and compare the answers with the right ones."""
    connection, waiting = Connection(server), itertools.cycle(photographs)
    while time.monotonic() < end:
        path = next(waiting)
        fields = {"top": str(sizes[0]), "rerank": str(sizes[1])}
        kind, body = form(path.read_bytes(), path.name, fields)
        begun = time.perf_counter()
        try:
            status, answered = connection.post("/search", kind, body)
        except (OSError, http.client.HTTPException) as error:
            record.wrong(f"upload {path.name}: {type(error).__name__} {error}")
            continue
        if status == 200:
            record.took("upload", time.perf_counter() - begun)
            if not is_right(json.loads(answered), photographs[path], UPLOAD_TOLERANCE):
                record.wrong(f"upload {path.name}: another answer than the library's")
        elif status in BUSY or (status == 422 and b"crashed the decoder" in answered):  # its process was killed
            record.count("uploads refused")
            time.sleep(0.2)
        else:
            record.wrong(f"upload {path.name}: {status} {answered[:200]!r}")
    connection.close()


def form(data: bytes, name: str, fields: dict[str, str]) -> tuple[str, bytes]:
    """Return content type and body of a multipart form with a file."""
    mark = "----------4f1d0c5e"
    head = "".join(
        f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n' for key, value in fields.items()
    )
    head += f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return f"multipart/form-data; boundary={mark}", head.encode() + data + f"\r\n--{mark}--\r\n".encode()


# -------------------------------------------------------------------------------------------------- misbehaving


def send_slowly(server: Server, end: float, record: Record, *, head: bool) -> None:
    """Send a head, or the body after a proper head, a byte a second, until the server or the phase ends it."""
    text = f"POST /search HTTP/1.1\r\nHost: {server.host}\r\nContent-Type: application/json\r\n"
    start, rest = ("", text) if head else (f"{text}Content-Length: 1000\r\n\r\n", "{" + " " * 999)
    while time.monotonic() < end:
        begun = time.monotonic()
        with contextlib.suppress(OSError), socket.create_connection((server.host, server.port), 5) as sent:
            sent.sendall(start.encode())
            sent.settimeout(1.0)
            for byte in rest:
                sent.sendall(byte.encode())
                if time.monotonic() > end or _has_ended(sent):
                    break
        record.count("slow requests")
        if head and time.monotonic() - begun > HANG_SECONDS:
            record.wrong("a slow head was not refused")


def _has_ended(connection: socket.socket) -> bool:
    """Wait a second for the end of the connection, or an answer."""
    try:
        connection.recv(1000)
    except TimeoutError:
        return False
    return True


def upload_broken(server: Server, photograph: bytes, end: float, record: Record) -> None:
    """Upload what is no photograph, or break off, until the end; nothing of it may be accepted or break the server."""
    for make in itertools.cycle(BROKEN):
        if time.monotonic() > end:
            return
        kind, body = make(photograph)
        connection = Connection(server)
        path = random.choice(["/search", "/uploads"])
        try:
            status, answered = connection.post(path, kind, body)
        except (OSError, http.client.HTTPException) as error:
            record.wrong(f"{make.__name__}: {type(error).__name__} {error}")
        else:
            record.count("broken uploads")
            accepted = (400, 413, 415, 422, *BUSY)
            if status not in accepted:
                record.wrong(f"{make.__name__}: {status} {answered[:200]!r}")
        connection.close()
        abort(server, photograph)
        time.sleep(0.1)


def truncated(photograph: bytes) -> tuple[str, bytes]:
    """Return the first half of a JPEG."""
    return form(photograph[: len(photograph) // 2], "truncated.jpg", {})


def noise(photograph: bytes) -> tuple[str, bytes]:
    """Return random bytes."""
    return form(random.randbytes(50_000), "noise.jpg", {})


def bomb(photograph: bytes) -> tuple[str, bytes]:
    """Return a small PNG that claims 60 000 x 60 000 pixels."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1_000_000))), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in chunks:
        data += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return form(data, "bomb.png", {})


def wrong_form(photograph: bytes) -> tuple[str, bytes]:
    """Return a form whose boundary is another than it says."""
    kind, body = form(photograph, "wrong.jpg", {})
    return kind.replace("4f1d", "5f1d"), body


def altered(photograph: bytes) -> tuple[str, bytes]:
    """Return a PNG whose pixels are noise where compressed data should be."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[45:] = random.randbytes(len(data) - 45)
    return form(bytes(data), "altered.png", {})


BROKEN: tuple[Callable[[bytes], tuple[str, bytes]], ...] = (truncated, noise, bomb, wrong_form, altered)


def abort(server: Server, photograph: bytes) -> None:
    """Send half an upload and reset the connection."""
    kind, body = form(photograph, "aborted.jpg", {})
    text = f"POST /search HTTP/1.1\r\nHost: {server.host}\r\nContent-Type: {kind}\r\n"
    text += f"Content-Length: {len(body)}\r\n\r\n"
    with contextlib.suppress(OSError), socket.create_connection((server.host, server.port), 5) as sent:
        sent.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sent.sendall(text.encode() + body[: len(body) // 2])


def kill_workers(server: Server, pause: float, end: float, record: Record) -> None:
    """Kill a random process below the server now and then."""
    while time.monotonic() + pause < end:
        time.sleep(pause)
        children = server.family[1:]
        if children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(children), signal.SIGKILL)
                record.count("killed processes")
