"""The server behind a socket: what is no HTTP, slow and many connections, and how it stops."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from click.testing import CliRunner

from asmk_engine.cli import commands
from asmk_engine.errors import AsmkError
from asmk_engine.serve import connections
from asmk_engine.serve.metadata import Metadata
from asmk_engine.serve.options import ServeOptions
from asmk_engine.serve.private_folder import PREFIX
from asmk_engine.serve.running import address_of, bound_socket, make_server
from asmk_engine.serve.service import Service
from asmk_engine.serve.shelf import open_shelf
from serving import command, encoded, started
from skimage_pairs import astronaut


class Listening:
    """A server in a thread, and raw connections to it."""

    def __init__(self, index: Path, **options: Any) -> None:
        wanted = ServeOptions(port=0, rate=1e6, memory=2048, **options)
        self.bound = bound_socket(wanted)
        self.address = address_of(wanted, self.bound)
        self.port: int = self.bound.getsockname()[1]
        self.service = Service(open_shelf([index], wanted, Metadata()), wanted)
        ready = threading.Event()
        self.server: uvicorn.Server = make_server(self.service, ready.set)
        self.thread = threading.Thread(target=self.server.run, args=([self.bound],))
        self.thread.start()
        assert ready.wait(60)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 30)

    def ask(self, data: bytes) -> bytes:
        """Send bytes and return all that comes until the server closes the connection."""
        with self.connect() as connection:
            connection.sendall(data)
            return everything(connection)

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(60)
        assert not self.thread.is_alive()


def everything(connection: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while block := connection.recv(1 << 16):
            found += block
    return found


@pytest.fixture
def listening(served_place: Path) -> Iterator[Callable[..., Listening]]:
    made: list[Listening] = []

    def listen(**options: Any) -> Listening:
        made.append(Listening(served_place / "photos.index", **options))
        return made[-1]

    yield listen
    for one in made:
        one.close()


def head(*lines: str, path: str = "/health", method: str = "GET", host: str = "localhost") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode("latin-1")


def refused(answer: bytes, status: int) -> str:
    """Check a refusal of one line, with the headers of every answer."""
    top, _, body = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"content-security-policy: default-src 'none'" in top and b"x-content-type-options: nosniff" in top
    content = json.loads(body)
    assert list(content) == ["error"]
    said: str = content["error"]
    return said


def test_what_is_no_http(listening: Callable[..., Listening]) -> None:
    server = listening()
    for data in (
        b"\r\n\r\n\r\nx\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(99) + b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /health\r\n\r\n", head("host: evil.example"), head("content-length: 1", "content-length: 2"),
        head("content-length: x"), head("transfer-encoding: gzip"), head("a b: c"), head(": x"), head("x: \0"),
        head("content-length: 5", "transfer-encoding: gzip, chunked"), b"G\0T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n", head("x: " + "y" * 400_000), b"GET /" + b"a" * 400_000,
        head(*[f"x{number}: y" for number in range(40_000)]),
    ):  # fmt: skip
        assert refused(server.ask(data), 400) == "the request is not valid HTTP"
    assert refused(server.ask(b"GET / HTTP/1.0\r\n\r\n"), 421)
    assert server.ask(head("connection: close")).endswith(b'{"status":"ok"}')
    assert b" 404 " in server.ask(head("connection: close", path="http://localhost/health")).partition(b"\r\n")[0]
    assert b" 404 " in server.ask(head("connection: close", path="*", method="OPTIONS")).partition(b"\r\n")[0]
    upgrade = head("connection: upgrade", "upgrade: websocket", "sec-websocket-key: x", "connection: close")
    assert b"101" not in server.ask(upgrade).partition(b"\r\n")[0]


def test_requests_hidden_in_bodies_are_not_answered(listening: Callable[..., Listening]) -> None:
    hidden = head(path="/indexes")
    answer = listening().ask(head(f"content-length: {len(hidden)}", "connection: close") + hidden)
    assert answer.count(b"HTTP/1.1") == 1
    chunked = head("transfer-encoding: chunked", "connection: close") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(hidden), hidden)
    assert listening().ask(chunked).count(b"HTTP/1.1") == 1


def test_a_broken_body_after_the_answer(listening: Callable[..., Listening], caplog: pytest.LogCaptureFixture) -> None:
    server = listening()
    for host, path in (("evil.example", "/search"), ("localhost", "/health")):
        with server.connect() as connection:
            connection.sendall(head("transfer-encoding: chunked", path=path, host=host))
            first = connection.recv(1 << 16)
            assert first.startswith(b"HTTP/1.1 ")
            connection.sendall(b"no number\r\n\r\n")
            assert b"HTTP/1.1" not in everything(connection)
    assert "protocol" not in caplog.text and "Traceback" not in caplog.text


def test_slow_heads_and_idle_connections(listening: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.1)
    server = listening()
    server.server.config.timeout_keep_alive = 0.1  # type: ignore[assignment]
    for data in (b"", b"GET / HT", head()[:-2], head() + b"GET /he"):
        with server.connect() as connection:
            connection.sendall(data)
            assert everything(connection).count(b"HTTP/1.1") == (1 if data.startswith(head()) else 0)


def test_answers_that_nobody_reads(listening: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "READ_SECONDS", 0.1)
    server = listening()
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.2)
        sent = head(path="/openapi.json") * 60
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(200):
                connection.sendall(sent)
        state = server.server.server_state
        waiting = threading.Event()
        for _ in range(3000):
            if not state.connections and not state.tasks:
                break
            waiting.wait(0.01)
        assert not state.connections and not state.tasks


def test_many_connections(listening: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_OF_ADDRESS", 6)
    server = listening()
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(server.connect()) for _ in range(6)]
        assert "too many connections" in refused(server.ask(b""), 503)
        assert b"retry-after: 5" in server.ask(head())
        held[0].sendall(head("connection: close"))
        assert everything(held[0]).endswith(b'{"status":"ok"}')
        waiting = threading.Event()
        while len(server.server.server_state.connections) > 5:
            waiting.wait(0.01)
        assert server.ask(head("connection: close")).endswith(b'{"status":"ok"}')
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 0)
    refused(server.ask(head()), 503)


def test_clients_of_a_proxy_share_its_address(
    listening: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST_OF_ADDRESS", 0)
    assert listening(behind_proxy=True).ask(head("connection: close")).endswith(b'{"status":"ok"}')


def test_the_address_of_a_client_is_believed_only_from_a_proxy(
    listening: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch
) -> None:
    for behind, expected in ((False, "127.0.0.1"), (True, "9.8.7.6")):
        server = listening(behind_proxy=behind)
        seen: list[str] = []
        monkeypatch.setattr(server.service.access._rates, "check", seen.append)
        server.ask(head("x-forwarded-for: 1.2.3.4, 9.8.7.6", "connection: close", path="/images"))
        assert seen == [expected]


# --- the command ------------------------------------------------------------------------------------------------------


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_the_command_answers_and_stops(served_place: Path, tmp_path: Path) -> None:
    """An answer under way finishes after SIGTERM, events end, and nothing is left in the folder of temporary files."""
    titles = tmp_path / "titles.csv"
    titles.write_text("name,title\ncat.png,Chelsea\n", encoding="utf-8")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    token = "a-secret-token"
    (temporary / f"{PREFIX}dead").mkdir()
    (temporary / f"{PREFIX}dead" / "lock").touch()
    environment = {"ASMK_ENGINE_TOKEN": token, "TMPDIR": str(temporary)}
    with started(served_place / "photos.index", "--metadata", titles, **environment) as (process, address):
        assert address.startswith("http://127.0.0.1:") and token not in address
        assert [path.name for path in temporary.iterdir()] != [f"{PREFIX}dead"]
        with httpx.Client(base_url=address, headers={"authorization": f"Bearer {token}"}, timeout=60) as client:
            assert client.get("/images/cat.png").json()["metadata"] == {"title": "Chelsea"}
            assert httpx.get(f"{address}indexes").status_code == 401
            key = client.post("/groups", json={}).json()["job"]
            port = int(address.rstrip("/").rpartition(":")[2])
            body = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n' + encoded(astronaut())
            body += b"\r\n--b--\r\n"
            lines = ["content-type: multipart/form-data; boundary=b", f"content-length: {len(body)}"]
            with socket.create_connection(("127.0.0.1", port), 60) as connection:
                connection.sendall(head(*lines, f"authorization: Bearer {token}", path="/search", method="POST"))
                connection.sendall(body[:1000])
                client.get("/health")  # the head before it was read by now
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(httpx.HTTPError):
                    client.get(f"/jobs/{key}/events")
                connection.sendall(body[1000:])
                answer = everything(connection)
            assert answer.startswith(b"HTTP/1.1 200") and b'"hits":[{' in answer
        code, _, err = ended(process)
        assert code in (0, -signal.SIGTERM) and token not in err and "Traceback" not in err
        assert list(temporary.iterdir()) == []


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let processes that a test starts receive Ctrl-C, which a shell lets its background jobs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_the_command_quietly(served_place: Path) -> None:
    with started(served_place / "photos.index", "--quiet") as (process, address):
        assert httpx.get(f"{address}health").json() == {"status": "ok"}
        process.send_signal(signal.SIGINT)
        assert ended(process) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.index"], "no such index"),
        (["."], "neither an index nor a folder of indexes"),
        (["INDEX", "--host", "0.0.0.0"], "--token"),
        (["INDEX", "--host", "no.such.host.invalid", "--no-auth"], "no such address"),
        (["INDEX", "--host", "x" * 80 + ".example", "--no-auth"], "no such address"),
        (["INDEX", "--token", "short"], "too short"),
        (["INDEX", "--metadata", "missing.csv"], "missing.csv"),
        (["INDEX", "--metadata", __file__], "no column of names"),
        (["INDEX", "--port", "PORT"], "cannot listen there"),
        (["INDEX", "--rate", "nan"], "nan"),
    ],
)
def test_errors_of_the_command(served_place: Path, arguments: list[str], said: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        known = {"INDEX": str(served_place / "photos.index"), "PORT": str(taken.getsockname()[1])}
        result = CliRunner().invoke(commands, ["serve", *(known.get(one, one) for one in arguments)])
    found = result.output if isinstance(result.exception, SystemExit) else str(result.exception)
    assert result.exit_code != 0 and said in found
    assert isinstance(result.exception, AsmkError | SystemExit)


def test_an_error_is_one_line(tmp_path: Path) -> None:
    code, out, err = ended(command(tmp_path / "nothing.index"))
    assert code == 1 and out == "" and re.fullmatch(r"Error: [^\n]*no such index[^\n]*\n", err)
