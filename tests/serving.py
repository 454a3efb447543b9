"""Indexes to serve, and clients in the same process and in others, shared by the tests of the server."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from skimage import data

import fused_histories
from asmk_engine.errors import InputError
from asmk_engine.flat import Codec, GlobalIndex
from asmk_engine.pipeline.extractor_choice import ExtractionOptions
from asmk_engine.pipeline.indexing import index_images
from asmk_engine.serve.application import application
from asmk_engine.serve.metadata import Metadata
from asmk_engine.serve.options import ServeOptions
from asmk_engine.serve.service import Service
from asmk_engine.serve.shelf import open_shelf
from global_samples import DIM as GLOBAL_DIM
from global_samples import RECIPE as WHOLE_RECIPE
from global_samples import global_images, write_global
from samples import ENVIRONMENT
from skimage_pairs import astronaut, coffee, halved, turned

HOST = "localhost:8765"
STRANGE = "strange/ü 图 <b>&'\"%2f#?;=\n.png"
"""A name with everything that addresses and pages might take for something else."""


def photographs() -> dict[str, np.ndarray]:
    """Photographs by name: three of one person, two of a cup, and others."""
    cat = np.asarray(data.chelsea())
    return {
        "people/astronaut.png": halved(astronaut()),
        "people/turned.png": halved(turned()),
        STRANGE: halved(astronaut())[20:200, 30:220].copy(),
        "things/coffee.png": halved(coffee()),
        "things/cup.png": halved(coffee())[30:190, 60:260].copy(),
        "cat.png": halved(cat),
        "rocket.png": halved(np.asarray(data.rocket())),
    }


def write_photographs(folder: Path, photos: dict[str, np.ndarray] | None = None) -> Path:
    """Write photographs into a folder, which is returned."""
    for name, pixels in (photos or photographs()).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def make_index(photos: Path, index: Path) -> Path:
    """Index photographs by RootSIFT with the words of the package and their geometry."""
    extraction = ExtractionOptions("rootsift", workers=1, others={"max_features": 250, "max_side": 320})
    index_images(photos, index, extraction=extraction, codebook="rootsift", geometry=250)
    return index


def make_place(place: Path) -> Path:
    """Make `photos` with `photos.index`, and `others` with a global and a fused index whose photographs are nowhere."""
    make_index(write_photographs(place / "photos"), place / "photos.index")
    others = place / "others"
    vectors = write_global(place / "vectors", global_images(9))
    GlobalIndex.create(others / "vectors.index", Codec(WHOLE_RECIPE, GLOBAL_DIM, "half")).add(vectors)
    fused = fused_histories.create(others / "fused.index")
    fused.keep_geometry("all")
    fused.add(fused_histories.write_sets(place / "sets", fused_histories.POOL))
    return place


def titles() -> Metadata:
    """Metadata of some of the photographs."""
    rows = {
        "people/astronaut.png": {"title": "Eileen Collins", "year": "1999"},
        STRANGE: {"title": "<i>Strange</i> 图"},
    }
    return Metadata(("title", "year"), rows)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """Pixels as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@dataclass
class Answer:
    """What a request of bytes was answered with."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The value of a header; the last one if there are several."""
        return dict(self.headers).get(name)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A client in this process: requests go to the application without a socket."""

    def __init__(self, app: Any, address: str = "127.0.0.1") -> None:
        self._app, self._address, self._loop = app, address, asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 4321))
        self._http = httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}", timeout=60)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the loop of the client."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(90)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Ask; options as those of httpx."""
        answer: httpx.Response = self.run(self._http.request(method, path, **options))
        return answer

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Ask with GET; keywords besides `headers` are the query."""
        headers = options.pop("headers", None)
        return self.request("GET", path, params=options or None, headers=headers)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """Ask with POST."""
        return self.request("POST", path, **options)

    def send(
        self,
        path: str,
        method: str = "GET",
        headers: Iterable[tuple[str, str]] | None = None,
        body: Iterable[bytes] = (b"",),
        query: bytes = b"",
        host: str | None = HOST,
        ends: bool = True,
    ) -> Answer:
        """Ask with exactly these bytes; the path is the decoded one, and the body may never end."""
        given = [*([("host", host)] if host is not None else []), *(headers or ())]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
            "raw_path": path.encode("utf-8", "replace"), "query_string": query, "scheme": "http", "root_path": "",
            "headers": [(key.encode("latin-1"), value.encode("latin-1")) for key, value in given],
            "client": (self._address, 4321), "server": ("127.0.0.1", 8765),
        }  # fmt: skip
        answer: Answer = self.run(_exchange(self._app, scope, list(body), ends))
        return answer

    def close(self) -> None:
        """End the loop."""
        self.run(self._http.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _exchange(app: Any, scope: dict[str, Any], chunks: list[bytes], ends: bool) -> Answer:
    answer, waiting = Answer(), list(chunks)

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.sleep(3600)
        chunk = waiting.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(waiting) or not ends}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = [(key.decode(), value.decode("latin-1")) for key, value in message["headers"]]
        else:
            answer.body += message.get("body", b"")

    try:
        await app(scope, receive, send)
    except Exception:
        # The server logs what happened, after the answer was sent.
        if not answer.status:
            raise
    return answer


@contextlib.contextmanager
def serving(
    paths: Sequence[Path], metadata: Metadata | None = None, **options: Any
) -> Iterator[tuple[Service, Client]]:
    """Serve indexes in this process, with no limit to the rate unless one is given."""
    wanted = ServeOptions(**{"rate": 1e6, "memory": 2048, **options})
    service = Service(open_shelf(paths, wanted, metadata or Metadata()), wanted)
    client = Client(application(service))
    service.start()
    try:
        yield service, client
    finally:
        service.close()
        client.close()


def command(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start `asmk-engine serve` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "asmk_engine", "serve", *map(str, arguments), "--no-browser"],
        env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=os.path.dirname(__file__),
    )  # fmt: skip


@contextlib.contextmanager
def started(*arguments: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command until the block ends; yields the process and the address that it printed."""
    process = command(*arguments, "--port", 0, **environment)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, process.communicate()[1]
        yield process, address
    finally:
        process.kill()
        process.communicate()


def token_of_the_environment() -> None:
    """An extractor that cannot be made, and says what it knows."""
    raise InputError(f"the token is {os.environ.get('ASMK_ENGINE_TOKEN')!r}")
