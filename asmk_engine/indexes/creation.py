"""Making an empty index of any kind, and which files in the folder of an index are ours."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from asmk_engine.errors import InputError
from asmk_engine.indexes.manifest import NAMES, FileEntry, Manifest
from asmk_engine.indexes.snapshot import copy_network, map_network
from asmk_engine.storage.folder import LOCK, TEMPORARY, Folder, WriterLock
from asmk_engine.version import __version__

OURS = re.compile(
    r"(?:(?:segment|deleted|moved)-\d+|(?:codebook|codec|network)-[0-9a-f]+)\.safetensors|manifest(?:\.copy)?\.json"
)


def make_empty(path: Path | str, kind: str, write_encoder: Callable[[Folder], FileEntry], network: Path | None) -> Path:
    """Make an empty index of a kind in a new or empty folder; InputError when something is in the way.

    write_encoder  writes what every descriptor goes through
    network     the file of the network that makes the features, copied into the index, or None
    """
    source = map_network(network) if network else None
    folder = Folder(path)
    check_vacant(folder)
    folder.make()
    with WriterLock(folder.path):
        check_vacant(folder)  # again: another process may have made one while we waited
        folder.remove_leftovers(OURS)
        manifest = Manifest(uuid.uuid4().hex, f"asmk-engine {__version__}", write_encoder(folder), kind=kind)
        if source is not None:
            manifest = replace(manifest, network=copy_network(folder, source))
        folder.sync()
        folder.replace_manifest(NAMES, manifest.to_json())
    return folder.path


def check_vacant(folder: Folder) -> None:
    """Raise InputError unless an index may be made in a folder: it is missing, or empty but for our own leftovers."""
    if os.path.lexists(folder.path) and not os.path.isdir(folder.path):
        found = "a broken link" if os.path.islink(folder.path) else "a file"
        raise InputError(f"{folder.path}: {found} is in the way; the index needs a folder of its own")
    names = folder.names()
    foreign = [name for name in names if name != LOCK and not OURS.fullmatch(name.removesuffix(TEMPORARY))]
    if foreign or set(names) & {*NAMES}:
        raise InputError(f"{folder.path}: the folder is not empty; open the index in it, or give another folder")
