"""`asmk-engine weights`: published weights, fetched, found and converted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Console, check_network_name, human_bytes, json_option, quiet_option

if TYPE_CHECKING:
    from asmk_engine.networks.registry import PublishedWeights


@click.group()
def weights() -> None:
    """Get the published weights of networks, and read the checkpoints of others.

    Files are kept in $ASMK_ENGINE_CACHE, or in the cache folder of this system; `weights list` names it. Without a
    network, fetch a file with another machine and put it there.
    """


@weights.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the published weights that are known, and which of them are on this machine."""
    from asmk_engine.networks.cache import weights_folder
    from asmk_engine.networks.registry import WEIGHTS

    folder = weights_folder()
    if as_json:
        entries = [_described(entry, folder) for entry in WEIGHTS.values()]
        click.echo(json.dumps({"kind": "weights", "folder": str(folder), "weights": entries}))
        return
    width = max(map(len, WEIGHTS))
    for entry in WEIGHTS.values():
        click.echo(f"{entry.name:<{width}}  {_state(entry, folder):<13} {entry.purpose}")
        if entry.obstacle:
            click.echo(f"{'':<{width}}  {'':<13} {entry.obstacle}")
    click.echo(f"Folder: {folder}", err=True)


def _state(entry: PublishedWeights, folder: Path) -> str:
    path = folder / entry.file
    if entry.obstacle:
        return "unusable"
    return human_bytes(path.stat().st_size) if path.is_file() else "not fetched"


def _described(entry: PublishedWeights, folder: Path) -> dict[str, str | None]:
    path = folder / entry.file
    return {
        "name": entry.name,
        "kind": entry.kind,
        "purpose": entry.purpose,
        "licence": entry.licence,
        "url": entry.url,
        "file": entry.file,
        "sha256": entry.sha256 or None,
        "obstacle": entry.obstacle or None,
        "path": str(path) if path.is_file() else None,
    }


@weights.command()
@click.argument("name")
@quiet_option
def fetch(name: str, quiet: bool) -> None:
    """Download the weights NAME, unless they are here, and print where they lie.

    The file is compared with the hash that was published, where one was; its sha256 is recorded, and compared each time
    the file is used.

    \b
    Example:
      asmk-engine weights fetch resnet18
    """
    from asmk_engine.extractors.presets import PRESETS
    from asmk_engine.networks.cache import fetch_weights
    from asmk_engine.networks.downloads import mebibytes
    from asmk_engine.networks.registry import published_weights
    from asmk_engine.storage.user_files import file_sha256

    console, entry = Console(quiet), published_weights(name)
    with console.bar(entry.file, "MiB") as progress:
        path = fetch_weights(entry, progress=mebibytes(progress))
    known = "as published" if entry.sha256 else "recorded now, none was published"
    console.say(f"{path}: {human_bytes(path.stat().st_size)}, sha256 {file_sha256(path)} ({known})")
    console.say(f"Terms: {entry.licence}")
    if extractor := next((extractor for extractor, preset in PRESETS.items() if preset.published == name), None):
        console.say(f"Now: asmk-engine index PHOTOS -o photos.index --extractor {extractor}")
    click.echo(path)


@weights.command("path")
@click.argument("name")
def path_(name: str) -> None:
    """Print where the weights NAME lie on this machine; an error says how to get them."""
    from asmk_engine.networks.cache import weights_path
    from asmk_engine.networks.registry import published_weights

    click.echo(weights_path(published_weights(name)))


@weights.command()
@click.argument("path", type=PATH, metavar="FILE")
@click.option("-o", "--output", type=PATH, required=True, help="The network to write, .safetensors.")
@click.option(
    "--projection", default="", help="The whitening to take along that a checkpoint of GeM holds, such as NAME/ms."
)
@quiet_option
def convert(path: Path, output: Path, projection: str, quiet: bool) -> None:
    """Make a checkpoint of the official HOW code, or of the GeM family, a network of this program.

    Nothing in FILE is run. The result holds the tensors, what the network is made of, and where it came from.

    \b
    Examples:
      asmk-engine weights convert how_r18.pth -o how_r18.safetensors
      asmk-engine weights convert gl18-tl-resnet50-gem-w-83fdc30.pth -o gem-w.safetensors
    """
    check_network_name(output)
    from asmk_engine.networks.checkpoints import save_checkpoint
    from asmk_engine.networks.global_checkpoints import save_global_checkpoint
    from asmk_engine.networks.official import read_official
    from asmk_engine.networks.official_global import is_official_global, read_content, read_official_global

    network: Any
    if projection or is_official_global(read_content(path)):
        network, origin = read_official_global(path, projection)
        digest = save_global_checkpoint(output, network, origin)
    else:
        network, origin = read_official(path)
        digest = save_checkpoint(output, network, origin)
    options = network.options
    made = f"{options.backbone} without its last {options.skip}" if options.skip else options.backbone
    Console(quiet).say(f"{output}: {made}, {network.dim} dimensions, {origin['format']}, sha256 {digest}")
