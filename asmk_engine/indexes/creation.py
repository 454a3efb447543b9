"""Creation of an empty index of any kind, and the file names that belong to an index."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from asmk_engine.errors import InputError
from asmk_engine.indexes.manifest import NAMES, FileEntry, Manifest
from asmk_engine.indexes.neighbours import PATTERN as NEIGHBOURS
from asmk_engine.indexes.snapshot import copy_network, map_network
from asmk_engine.regions.options import RegionOptions
from asmk_engine.storage.folder import LOCK, TEMPORARY, Folder, WriterLock, storage_errors
from asmk_engine.version import __version__

IndexT = TypeVar("IndexT")
OURS = re.compile(
    rf"(?:(?:segment|geometry)-\d+-\d+|(?:segment|geometry|deleted|moved)-\d+|{NEIGHBOURS}"
    r"|(?:codebook|codec|network)-[0-9a-f]+)\.safetensors|manifest(?:\.copy)?\.json|calibration\.json|shard\.json"
)


def make_empty(
    path: Path | str,
    kind: str,
    write_encoder: Callable[[Folder], FileEntry],
    network: Path | None,
    geometry: int | None = None,
    regions: RegionOptions | None = None,
) -> Path:
    """Make an empty index in a new or empty folder; raises InputError if the path is taken.

    kind           KIND or GLOBAL_KIND of `manifest`
    write_encoder  writes the codebook or codec
    network        the file of the network that makes the features, copied into the index, or None
    geometry, regions  as in the manifest
    """
    source = map_network(network) if network else None

    def first(folder: Folder) -> Manifest:
        manifest = replace(new_manifest(write_encoder(folder), kind), geometry=geometry, regions=regions)
        return manifest if source is None else replace(manifest, network=copy_network(folder, source))

    return make_folder(path, first)


def new_manifest(encoder: FileEntry, kind: str) -> Manifest:
    """Return the manifest of an empty index with an identity of its own."""
    return Manifest(uuid.uuid4().hex, f"asmk-engine {__version__}", encoder, kind=kind)


def make_folder(path: Path | str, first: Callable[[Folder], Manifest]) -> Path:
    """Make the folder of an empty index; raises InputError if the path is taken.

    first  writes the files of the first commit and returns its manifest
    """
    folder = Folder(path)
    check_vacant(folder)
    folder.make()
    with WriterLock(folder.path):
        check_vacant(folder)  # again: another process may have made an index while this one waited for the lock
        folder.remove_leftovers(OURS)
        manifest = first(folder)
        folder.sync()
        folder.replace_manifest(NAMES, manifest.to_json())
    return folder.path


def check_vacant(folder: Folder) -> None:
    """Raise InputError unless the folder is missing, or empty except for leftovers of an interrupted creation."""
    if os.path.lexists(folder.path) and not os.path.isdir(folder.path):
        found = "a broken link" if os.path.islink(folder.path) else "a file"
        raise InputError(f"{folder.path}: {found} is in the way; the index needs a new or empty folder")
    names = folder.names()
    foreign = [name for name in names if name != LOCK and not OURS.fullmatch(name.removesuffix(TEMPORARY))]
    if foreign or set(names) & {*NAMES}:
        raise InputError(f"{folder.path}: the folder is not empty; open the index in it, or give another folder")


def in_temporary_folder(create: Callable[[Path], IndexT]) -> IndexT:
    """Create an index in a temporary folder, which is removed with the object, at the latest when the process ends.

    Only the process that created it removes it, not a forked child. A process that is killed leaves it behind, below
    the system's folder for temporary files (`TMPDIR`). Raises StorageError if no folder can be made.

    create  creates the index in a folder that does not exist yet
    """
    with storage_errors(Path(tempfile.gettempdir()), "make a temporary folder"):
        folder = tempfile.mkdtemp(prefix="asmk-engine-")
    process = os.getpid()
    try:
        index = create(Path(folder) / "index")
    except BaseException:
        _remove(folder, process)
        raise
    weakref.finalize(index, _remove, folder, process)
    return index


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
