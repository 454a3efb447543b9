"""The server process: one port, connections with an end to their patience, a stop that lets answers finish."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from asmk_engine.errors import InputError
from asmk_engine.serve.application import application
from asmk_engine.serve.options import ServeOptions
from asmk_engine.serve.service import Service

HEADER_SECONDS = 15
STOP_SECONDS = 30
MOST_CONNECTIONS = 512
_LOG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"err": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stderr"}},
    "loggers": {"uvicorn": {"handlers": ["err"], "level": "WARNING", "propagate": False}},
}


class PatientProtocol(H11Protocol):
    """A connection that is closed if the head of a request comes too slowly, since many such would fill the server."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take data; a head that began must end in time as well."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._deadline is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

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


class _Server(uvicorn.Server):
    """A server that says when it answers."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._on_start()


def bound_socket(options: ServeOptions) -> socket.socket:
    """Return a socket at the address of the options; raises InputError if it cannot be had."""
    host = options.host.strip("[]")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, options.port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, proto)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        raise InputError(
            f"{options.host}:{options.port}: cannot listen there ({error.strerror or error}); give another --port, or "
            "0 for a free one"
        ) from None
    return found


def address_of(options: ServeOptions, bound: socket.socket) -> str:
    """Return the address of the page: `http://127.0.0.1:8765/`."""
    host = options.host if ":" not in options.host or options.host.startswith("[") else f"[{options.host}]"
    return f"http://{host}:{bound.getsockname()[1]}/"


def run_server(service: Service, bound: socket.socket, on_start: Callable[[], None]) -> None:
    """Answer until SIGINT or SIGTERM; answers under way finish, for half a minute at most.

    on_start  called when the server answers
    """
    options: dict[str, Any] = {"proxy_headers": False}
    if service.options.behind_proxy:
        options = {"proxy_headers": True, "forwarded_allow_ips": "127.0.0.1,::1"}
    config = uvicorn.Config(
        application(service), http=PatientProtocol, ws="none", loop="asyncio", lifespan="on", log_config=_LOG,
        access_log=False, server_header=False, timeout_keep_alive=30, timeout_graceful_shutdown=STOP_SECONDS,
        limit_concurrency=MOST_CONNECTIONS, h11_max_incomplete_event_size=1 << 16, **options,
    )  # fmt: skip
    server = _Server(config, on_start)
    service.is_stopping = lambda: server.should_exit
    server.run(sockets=[bound])
