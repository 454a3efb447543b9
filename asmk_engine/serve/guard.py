"""What every request passes before and after its endpoint: access, size and time limits, headers, counters, errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import JSONResponse

from asmk_engine.serve.access import HEADERS, Access
from asmk_engine.serve.metrics import Metrics
from asmk_engine.serve.refusals import Refusal

BODY_PAUSE = 20.0
"""Seconds in which some bytes of a body must come."""
BODY_SECONDS = 300.0
"""Seconds in which a whole body must come."""
MOST_FLYING = 1 << 30
"""Bytes of all bodies together that are on their way: they lie in memory and in temporary files."""
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application around another.

    access      who may ask
    most_bytes  of a body
    """

    def __init__(self, inner: Application, access: Access, metrics: Metrics, most_bytes: int) -> None:
        self._inner, self._access, self._metrics, self._most_bytes = inner, access, metrics, most_bytes
        self._flying = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or pass on the messages about the life of the server."""
        if scope["type"] == "lifespan":
            return await self._inner(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        began = time.perf_counter()
        path, seen = label_of(scope["path"]), Seen(send)
        try:
            await self._answer(scope, receive, seen)
        finally:
            self._metrics.requests.labels(path, str(seen.status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - began)
        return None

    async def _answer(self, scope: Message, receive: Receive, seen: Seen) -> None:
        given = [(key.decode("latin-1").lower(), value.decode("latin-1")) for key, value in scope["headers"]]
        headers = dict(given)
        client = (scope.get("client") or ("unknown",))[0]
        body = Body(receive, self._most_bytes, self._fly)
        try:
            if [name for name, _ in given].count("host") > 1:
                raise Refusal(400, "the request names two hosts")
            self._access.check(scope["method"], scope["path"], headers, client)
            body.check_length(headers.get("content-length"))
            await self._inner(scope, body.receive, seen.send)
        except Refusal as error:
            if not seen.begun:
                await refused(error)(scope, receive, seen.send)
        finally:
            self._flying -= body.bytes

    def _fly(self, count: int) -> None:
        """Count bytes of a body that came; raises Refusal 503 if there are too many of all together."""
        self._flying += count
        if self._flying > max(MOST_FLYING, 2 * self._most_bytes):
            raise Refusal(503, "too many photographs are being sent; try again in a few seconds", 5)


class Seen:
    """Sends the messages of an answer with the headers of every answer, and remembers its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status, self.begun = 0, False

    async def send(self, message: Message) -> None:
        """Send a message."""
        if message["type"] == "http.response.start":
            self.status, self.begun = message["status"], True
            message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in HEADERS.items())]
        await self._send(message)


class Body:
    """The body of a request, with an end to its size and to the patience with its sender."""

    def __init__(self, receive: Receive, most: int, fly: Callable[[int], None]) -> None:
        self._receive, self._most, self._fly = receive, most, fly
        self.bytes, self._began, self._is_complete = 0, time.monotonic(), False

    def check_length(self, stated: str | None) -> None:
        """Refuse a body that is said to be too large, before it comes."""
        if stated is None:
            return
        if not (stated.isascii() and stated.isdigit() and len(stated) < 20):
            raise Refusal(400, "the length of the request is no number")
        if int(stated) > self._most:
            raise self._too_large()

    async def receive(self) -> Message:
        """Return the next message; raises Refusal 408, 413 or 503."""
        if self._is_complete:  # what follows is only the end of the connection
            return await self._receive()
        left = min(BODY_PAUSE, BODY_SECONDS - (time.monotonic() - self._began))
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.01))
        except TimeoutError:
            raise Refusal(408, "the request came too slowly; send it again") from None
        count = len(message.get("body", b""))
        self.bytes += count
        self._is_complete = message["type"] != "http.request" or not message.get("more_body", False)
        self._fly(count)
        if self.bytes > self._most:
            raise self._too_large()
        return message

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the request has more than {self._most >> 20} MiB; send smaller or fewer photographs")


def label_of(path: str) -> str:
    """Return the first part of a path, by which requests are counted: there are few of them."""
    first = path.split("/")[1] if path.startswith("/") else ""
    known = ("static", "api", "login", "health", "metrics", "indexes", "images", "thumbnails", "uploads", "search",
             "compare", "groups", "jobs", "add", "delete", "restore", "questions", "pictures", "judgements",
             "")  # fmt: skip
    return f"/{first}" if first in known else "other"


def refused(error: Refusal) -> JSONResponse:
    """Return the answer of a refusal."""
    headers = {"cache-control": "no-store"} | ({} if error.retry is None else {"retry-after": str(error.retry)})
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": str(error)}, error.status, headers)
