"""What the commands that open a page in the browser share: where it is, who is let in, and how it starts."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import option_group
from asmk_engine.errors import NotFoundError

if TYPE_CHECKING:
    import socket

    from asmk_engine.serve.options import ServeOptions

server_options = option_group(
    click.option("--host", default="127.0.0.1", show_default=True,
                 help="Address to listen at; 0.0.0.0 is all of them."),
    click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True,
                 help="Port; 0 takes a free one."),
    click.option("--token", envvar="ASMK_ENGINE_TOKEN", callback=lambda context, parameter, value: value or None,
                 help="What clients must know; also ASMK_ENGINE_TOKEN."),
    click.option("--no-auth", is_flag=True, help="Let everybody in who can reach the address."),
    click.option("--allow-host", "allowed_hosts", multiple=True, metavar="NAME", help="Another name of this server."),
    click.option("--behind-proxy", is_flag=True, help="A proxy on this machine says who the client is."),
    click.option("--rate", type=click.FloatRange(1), default=50, show_default=True,
                 help="Requests a second of a client."),
    click.option("--no-browser", is_flag=True, help="Do not open the page."),
)  # fmt: skip


def prepare_server() -> None:
    """Set up the process before numpy is imported; raises NotFoundError if what the server needs is not installed."""
    # Searches at the same time share the processors better than the threads of one product.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        importlib.import_module("asmk_engine.serve.running")
    except ModuleNotFoundError as error:
        raise NotFoundError(
            f"{error.name} is not installed, which the server needs; pip install 'asmk-engine[serve]'"
        ) from None


def announcement(options: ServeOptions, bound: socket.socket, no_browser: bool) -> Callable[[], Any]:
    """Return what prints the address of a server, and opens its page, when it answers."""
    from asmk_engine.serve.running import address_of

    address = address_of(options, bound)

    def started() -> None:
        click.echo(address)
        if not no_browser:
            import webbrowser

            webbrowser.open(f"{address}#token={options.token}" if options.token else address)

    return started
