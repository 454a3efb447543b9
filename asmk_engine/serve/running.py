"""The server process: one port, and a stop that lets answers finish."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from asmk_engine.errors import InputError
from asmk_engine.serve.application import application
from asmk_engine.serve.connections import PatientProtocol
from asmk_engine.serve.guard import Guard
from asmk_engine.serve.options import ServeOptions
from asmk_engine.serve.service import Service

STOP_SECONDS, BACKLOG = 30, 256
_LOG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"err": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stderr"}},
    "loggers": {"uvicorn": {"handlers": ["err"], "level": "WARNING", "propagate": False}},
}


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
    except (OSError, UnicodeError) as error:
        raise InputError(f"{options.host}: no such address ({_reason(error)}); give another --host") from None
    try:
        if os.name == "posix":  # elsewhere it would let two servers listen at one port
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        raise InputError(
            f"{options.host}:{options.port}: cannot listen there ({_reason(error)}); give another --port, or "
            "0 for a free one"
        ) from None
    return found


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def address_of(options: ServeOptions, bound: socket.socket) -> str:
    """Return the address of the page: `http://127.0.0.1:8765/`."""
    host = options.host if ":" not in options.host or options.host.startswith("[") else f"[{options.host}]"
    return f"http://{host}:{bound.getsockname()[1]}/"


def make_server(service: Service, on_start: Callable[[], None]) -> uvicorn.Server:
    """Return a server that is not yet running.

    on_start  called when the server answers
    """
    server = guarded_server(application(service), service.options, on_start)
    service.is_stopping = lambda: server.should_exit
    return server


def guarded_server(app: Guard, guarded_by: ServeOptions, on_start: Callable[[], None]) -> uvicorn.Server:
    """Return a server of any application, as `make_server`."""
    options: dict[str, Any] = {"proxy_headers": False}
    if guarded_by.behind_proxy:
        options = {"proxy_headers": True, "forwarded_allow_ips": "127.0.0.1,::1"}
    config = uvicorn.Config(
        app, http=PatientProtocol, ws="none", loop="asyncio", lifespan="on", log_config=_LOG,
        access_log=False, server_header=False, timeout_keep_alive=30, timeout_graceful_shutdown=STOP_SECONDS,
        h11_max_incomplete_event_size=1 << 16, **options,
    )  # fmt: skip
    return _Server(config, on_start)


def run_server(service: Service, bound: socket.socket, on_start: Callable[[], None]) -> None:
    """Answer until SIGINT or SIGTERM; answers under way finish, for half a minute at most."""
    run_until_stopped(make_server(service, on_start), bound)


def run_until_stopped(server: uvicorn.Server, bound: socket.socket) -> None:
    """Run a server until SIGINT or SIGTERM."""
    with contextlib.suppress(KeyboardInterrupt):  # which uvicorn raises again after it stopped
        server.run(sockets=[bound])
