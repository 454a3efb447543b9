"""Connections with an end to their number, and to the patience with clients that send or read too slowly."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from asmk_engine.serve.access import HEADERS
from asmk_engine.serve.guard import refused
from asmk_engine.serve.refusals import Refusal

HEADER_SECONDS = 15.0
"""Seconds in which the head of a request must come."""
READ_SECONDS = 30.0
"""Seconds in which some bytes of an answer must be taken."""
MOST_CONNECTIONS = 512
MOST_OF_ADDRESS = 256


class PatientProtocol(H11Protocol):
    """A connection that is closed if a request comes too slowly, or its answer is not read: many would fill the server.

    The bodies of requests are looked after where they are read.
    """

    _deadline: asyncio.TimerHandle | None = None
    _looking: asyncio.TimerHandle | None = None
    _unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request, or refuse one connection too many."""
        super().connection_made(transport)
        self._look()
        if self._is_too_many():
            self._refuse(Refusal(503, "too many connections; try again in a few seconds", 5))
        else:
            self._wait()

    def _is_too_many(self) -> bool:
        if len(self.connections) > MOST_CONNECTIONS:
            return True
        if self.client is None or self.config.proxy_headers:  # clients of a proxy all have its address
            return False
        clients = [getattr(one, "client", None) for one in self.connections]
        return sum(client is not None and client[0] == self.client[0] for client in clients) > MOST_OF_ADDRESS

    def data_received(self, data: bytes) -> None:
        """Take data; a head that began must end in time as well."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._deadline is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, as all other refusals."""
        self._refuse(Refusal(400, "the request is not valid HTTP"))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal, if no answer has begun, and close the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._send(refusal)
        self.transport.close()

    def _send(self, refusal: Refusal) -> None:
        answer = refused(refusal)
        headers = [
            *answer.raw_headers,
            *((k.encode(), v.encode()) for k, v in HEADERS.items()),
            (b"connection", b"close"),
        ]
        reason = STATUS_PHRASES[refusal.status]
        for event in (
            h11.Response(status_code=refusal.status, headers=headers, reason=reason),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self._expired)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expired(self) -> None:
        self._deadline = None
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.close()

    def resume_writing(self) -> None:
        """Note that the client reads."""
        self._unsent = 0
        super().resume_writing()

    def _look(self) -> None:
        """Break the connection if nothing of what is unsent was taken since the last look."""
        unsent = self.transport.get_write_buffer_size()
        if 0 < self._unsent <= unsent:
            self.transport.abort()
            return
        self._unsent = unsent
        self._looking = self.loop.call_later(READ_SECONDS, self._look)
