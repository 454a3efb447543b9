"""`asmk-engine serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from asmk_engine.cli.cluster_options import cluster_options_of, hosts_of, search_cluster_options
from asmk_engine.cli.common import PATH, Console, images_option, plural, quiet_option
from asmk_engine.errors import NotFoundError


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="INDEX...")
@images_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 is all of them.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--token", envvar="ASMK_ENGINE_TOKEN", help="What clients must know; also ASMK_ENGINE_TOKEN.")
@click.option("--no-auth", is_flag=True, help="Let everybody in who can reach the address.")
@click.option("--allow-host", "allowed_hosts", multiple=True, metavar="NAME", help="Another name of this server.")
@click.option("--behind-proxy", is_flag=True, help="A proxy on this machine says who the client is.")
@click.option("--writable", is_flag=True, help="Let clients add photographs and delete images.")
@click.option("--metadata", type=PATH, help="CSV with a column `name` and others, which are shown and searched.")
@click.option("--follow-links", is_flag=True, help="Show photographs that are links to other folders.")
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True,
              help="Processes that describe photographs of clients.")  # fmt: skip
@click.option("--photo-seconds", "seconds", type=click.FloatRange(1, 3600), default=60, show_default=True,
              help="Time for one photograph.")  # fmt: skip
@click.option("--photo-memory", "memory", type=click.IntRange(512), default=4096, show_default=True, metavar="MIB",
              help="Memory of a process that describes photographs.")  # fmt: skip
@click.option("--upload-limit", "upload", type=click.IntRange(1, 4096), default=64, show_default=True, metavar="MIB",
              help="Size of a request.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(1), default=50, show_default=True, help="Requests a second of a client.")
@search_cluster_options
@click.option("--no-browser", is_flag=True, help="Do not open the page.")
@quiet_option
def serve(
    paths: tuple[Path, ...],
    images_roots: tuple[Path, ...],
    host: str,
    port: int,
    token: str | None,
    no_auth: bool,
    allowed_hosts: tuple[str, ...],
    behind_proxy: bool,
    writable: bool,
    metadata: Path | None,
    follow_links: bool,
    workers: int,
    seconds: float,
    memory: int,
    upload: int,
    rate: float,
    no_browser: bool,
    quiet: bool,
    **cluster: Any,
) -> None:
    """Open a search page in the browser, with an HTTP API.

    INDEX is an index, or a folder of several. The address is printed on standard output. Only this machine can reach
    it, unless --host says otherwise, which needs --token. Ctrl-C stops the server when answers under way are finished.

    \b
    Examples:
      asmk-engine serve photos.index
      asmk-engine serve photos.index --writable --metadata titles.csv
      asmk-engine serve photos.shards --ray 10.0.0.1:6379 --replicas 2
      asmk-engine serve indexes/ --host 0.0.0.0 --token "$(openssl rand -hex 16)" --no-browser
    """
    # Before numpy is imported: searches at the same time share the processors better than the threads of one product.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from asmk_engine.serve.running import address_of, bound_socket, run_server
    except ModuleNotFoundError as error:
        raise NotFoundError(
            f"{error.name} is not installed, which the server needs; pip install 'asmk-engine[serve]'"
        ) from None
    from asmk_engine.serve.metadata import Metadata, read_metadata
    from asmk_engine.serve.options import ServeOptions
    from asmk_engine.serve.service import Service
    from asmk_engine.serve.shelf import open_shelf

    options = ServeOptions(
        host, port, token or None, no_auth, allowed_hosts, behind_proxy, writable, images_roots, follow_links, workers,
        seconds, memory, upload, rate=rate,
    )  # fmt: skip
    console = Console(quiet)
    opener = hosts_of(cluster_options_of(cluster))
    shelf = open_shelf(paths, options, read_metadata(metadata) if metadata else Metadata(), opener)
    bound = bound_socket(options)
    address = address_of(options, bound)
    images = sum(one.index.images for one in shelf.served.values())
    console.say(f"{', '.join(shelf.served)}: {plural(images, 'image')}; Ctrl-C stops the server")

    def started() -> None:
        click.echo(address)
        if not no_browser:
            import webbrowser

            webbrowser.open(f"{address}#token={token}" if token else address)

    run_server(Service(shelf, options), bound, started)
