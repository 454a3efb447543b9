"""`asmk-engine serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from asmk_engine.cli.cluster_options import cluster_options_of, hosts_of, search_cluster_options
from asmk_engine.cli.common import PATH, Console, images_option, plural, quiet_option
from asmk_engine.cli.server_options import announcement, prepare_server, server_options


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="INDEX...")
@images_option
@server_options
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
@search_cluster_options
@quiet_option
def serve(
    paths: tuple[Path, ...],
    images_roots: tuple[Path, ...],
    writable: bool,
    metadata: Path | None,
    follow_links: bool,
    workers: int,
    seconds: float,
    memory: int,
    upload: int,
    no_browser: bool,
    quiet: bool,
    **more: Any,
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
    prepare_server()
    from asmk_engine.serve.metadata import Metadata, read_metadata
    from asmk_engine.serve.options import ServeOptions
    from asmk_engine.serve.running import bound_socket, run_server
    from asmk_engine.serve.service import Service
    from asmk_engine.serve.shelf import open_shelf

    opener = hosts_of(cluster_options_of(more))
    options = ServeOptions(
        writable=writable, images_roots=images_roots, follow_links=follow_links, workers=workers, seconds=seconds,
        memory=memory, upload=upload, **more,
    )  # fmt: skip
    console = Console(quiet)
    shelf = open_shelf(paths, options, read_metadata(metadata) if metadata else Metadata(), opener)
    bound = bound_socket(options)
    images = sum(one.index.images for one in shelf.served.values())
    console.say(f"{', '.join(shelf.served)}: {plural(images, 'image')}; Ctrl-C stops the server")
    run_server(Service(shelf, options), bound, announcement(options, bound, no_browser))
