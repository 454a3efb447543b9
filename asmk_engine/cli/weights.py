"""`asmk-engine weights`: list, download, locate and convert published weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmk_engine.cli.common import PATH, Console, check_network_name, human_bytes, json_option, quiet_option

if TYPE_CHECKING:
    from asmk_engine.networks.registry import PublishedWeights


@click.group()
def weights() -> None:
    """Download and convert the weights of networks.

    Files are kept in $ASMK_ENGINE_CACHE, by default in the cache folder of the system; `weights list` shows the path.
    On a machine without internet access, copy the file there from another machine.
    """


@weights.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the known published weights, and the vocabularies of this package.

    Shows for each its purpose, and whether it is on this machine.
    """
    from asmk_engine.codebooks.shipped import vocabularies
    from asmk_engine.networks.cache import weights_folder
    from asmk_engine.networks.registry import WEIGHTS

    folder = weights_folder()
    if as_json:
        entries = [_described(entry, folder) for entry in WEIGHTS.values()]
        cards = [{**asdict(card), "path": str(card.path)} for card in vocabularies().values()]
        content = {"kind": "weights", "folder": str(folder), "weights": entries, "vocabularies": cards}
        click.echo(json.dumps(content))
        return
    width = max(map(len, [*WEIGHTS, *vocabularies()]))
    for entry in WEIGHTS.values():
        click.echo(f"{entry.name:<{width}}  {_state(entry, folder):<13} {entry.purpose}")
        if entry.obstacle:
            click.echo(f"{'':<{width}}  {'':<13} {entry.obstacle}")
    for card in vocabularies().values():
        size = human_bytes(card.path.stat().st_size)
        click.echo(f"{card.name:<{width}}  {size:<13} vocabulary of {card.words} words: {card.purpose}")
    click.echo(f"Folder: {folder}", err=True)


def _place(entry: PublishedWeights, folder: Path) -> Path:
    """Return where the file is, or would be."""
    from asmk_engine.networks.cache import find_packaged

    return (find_packaged(entry) if entry.package else None) or folder / entry.file


def _state(entry: PublishedWeights, folder: Path) -> str:
    path = _place(entry, folder)
    if entry.obstacle:
        return "unusable"
    missing = "not installed" if entry.package else "by hand" if entry.page else "not fetched"
    return human_bytes(path.stat().st_size) if path.is_file() else missing


def _described(entry: PublishedWeights, folder: Path) -> dict[str, str | bool | None]:
    path = _place(entry, folder)
    return {
        "name": entry.name,
        "kind": entry.kind,
        "purpose": entry.purpose,
        "licence": entry.licence,
        "url": None if entry.package else entry.url,
        "package": entry.package or None,
        "file": entry.file,
        "sha256": entry.sha256 or None,
        "by_hand": entry.page,
        "obstacle": entry.obstacle or None,
        "path": str(path) if path.is_file() else None,
    }


@weights.command()
@click.argument("name")
@quiet_option
def fetch(name: str, quiet: bool) -> None:
    """Download weights unless present, and print their path.

    NAME is one that `weights list` shows. The file is compared with the published hash, if there is one; its sha256 is
    recorded and compared each time the file is used.

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
    known = "as published" if entry.sha256 else "recorded now, since none was published"
    console.say(f"{path}: {human_bytes(path.stat().st_size)}, sha256 {file_sha256(path)} ({known})")
    console.say(f"Terms: {entry.licence}")
    if extractor := next((extractor for extractor, preset in PRESETS.items() if preset.published == name), None):
        console.say(f"Now: asmk-engine index PHOTOS -o photos.index --extractor {extractor}")
    click.echo(path)


@weights.command("path")
@click.argument("name")
def path_(name: str) -> None:
    """Print the path of weights, or of a vocabulary, on this machine.

    NAME is one that `weights list` shows. If the file is missing, the error describes how to get it.
    """
    from asmk_engine.codebooks.shipped import vocabularies
    from asmk_engine.networks.cache import weights_path
    from asmk_engine.networks.registry import published_weights

    card = vocabularies().get(name)
    click.echo(card.path if card else weights_path(published_weights(name)))


@weights.command()
@click.argument("path", type=PATH, metavar="FILE")
@click.option("-o", "--output", type=PATH, required=True, help="Network file to write, .safetensors.")
@click.option(
    "--projection",
    default="",
    help="Whitening of a checkpoint to include: NAME/ms of GeM; NAME/POWER of DIR, or none.  [default: that of DIR]",
)
@quiet_option
def convert(path: Path, output: Path, projection: str, quiet: bool) -> None:
    """Convert an official checkpoint to a network file.

    FILE is a checkpoint of the official code of HOW, the GeM family, SOLAR, DIR (GeM-AP), DOLG, CVNet or Token. No code
    in FILE is executed. The network file contains the tensors, the architecture, and the origin.

    \b
    Examples:
      asmk-engine weights convert how_r18.pth -o how_r18.safetensors
      asmk-engine weights convert gl18-tl-resnet50-gem-w-83fdc30.pth -o gem-w.safetensors
    """
    check_network_name(output)
    from asmk_engine.networks.checkpoints import save_checkpoint
    from asmk_engine.networks.composed.checkpoints import save_composed_checkpoint
    from asmk_engine.networks.composed.official import layout_of, read_official_composed, refuse_saved_model
    from asmk_engine.networks.global_checkpoints import save_global_checkpoint
    from asmk_engine.networks.official import read_official
    from asmk_engine.networks.official_global import is_official_global, read_content, read_official_global

    network: Any
    refuse_saved_model(path)
    content = read_content(path)
    if layout_of(content) is not None:
        network, origin = read_official_composed(path, projection)
        digest = save_composed_checkpoint(output, network, origin)
    elif projection or is_official_global(content):
        network, origin = read_official_global(path, projection)
        digest = save_global_checkpoint(output, network, origin)
    else:
        network, origin = read_official(path)
        digest = save_checkpoint(output, network, origin)
    options = network.options
    made = f"{options.backbone} without its last {options.skip}" if options.skip else options.backbone
    Console(quiet).say(f"{output}: {made}, {network.dim} dimensions, {origin['format']}, sha256 {digest}")
