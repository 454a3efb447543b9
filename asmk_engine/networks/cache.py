"""The folder of weights on this machine: published files once fetched.

    <cache>/weights/resnet18-f37072fd.pth         as it was published, fetched or put there by hand
    <cache>/weights/resnet18-f37072fd.pth.json    its sha256 when it was first seen, and where it came from

A file is compared with its record each time it is asked for: one that was altered is refused by name.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from platformdirs import PlatformDirs

from asmk_engine.errors import DamagedError, InputError, NotFoundError
from asmk_engine.iteration import Progress
from asmk_engine.networks.downloads import by_hand, download
from asmk_engine.networks.registry import PublishedWeights
from asmk_engine.storage.folder import Folder, WriterLock
from asmk_engine.storage.user_files import file_sha256

VARIABLE = "ASMK_ENGINE_CACHE"
RECORD = ".json"


def cache_folder() -> Path:
    """Where files that can be fetched again are kept; it need not exist.

    $ASMK_ENGINE_CACHE, else $XDG_CACHE_HOME/asmk-engine, else the folder of the platform: ~/.cache/asmk-engine,
    ~/Library/Caches/asmk-engine on macOS, %LOCALAPPDATA%\\asmk-engine\\Cache on Windows. A relative XDG_CACHE_HOME does
    not count (XDG Base Directory Specification). InputError when the home folder is not known.
    """
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen)
    try:
        return PlatformDirs("asmk-engine", appauthor=False).user_cache_path
    except (RuntimeError, ValueError):
        raise InputError(f"the home folder is not known; set {VARIABLE} to a folder for fetched weights") from None


def weights_folder() -> Path:
    """Where published weights lie, and where they can be put by hand; it need not exist."""
    return cache_folder() / "weights"


def fetch_weights(entry: PublishedWeights, *, progress: Progress | None = None) -> Path:
    """The file of published weights, downloaded unless it is there; its sha256 is recorded beside it.

    progress  called with (done, total) bytes; total is 0 where the server does not say

    Raises InputError for weights that cannot be used here, DamagedError for a file that was altered or that is not the
    one that was published, NotFoundError and StorageError when it cannot be had; see `downloads.download`.
    """
    _check_usable(entry)
    folder = Folder(weights_folder())
    folder.make()
    with WriterLock(folder.path):
        if (folder.path / entry.file).exists():
            return _checked(folder, entry)
        digest = download(entry.url, folder, entry.file, sha256=entry.sha256, progress=progress)
        _record(folder, entry.file, digest, entry.url)
    return folder.path / entry.file


def weights_path(entry: PublishedWeights) -> Path:
    """The file of published weights on this machine, compared with its record; nothing is fetched.

    Raises NotFoundError that says what to run, or which file to put where; InputError and DamagedError as for
    `fetch_weights`.
    """
    _check_usable(entry)
    folder = Folder(weights_folder())
    place = folder.path / entry.file
    if not place.exists():
        raise NotFoundError(
            f"{place}: the weights {entry.name!r} are not on this machine; run `asmk-engine weights fetch "
            f"{entry.name}`, or {by_hand(entry.url, place)}"
        )
    return _checked(folder, entry)


def _check_usable(entry: PublishedWeights) -> None:
    if entry.obstacle:
        raise InputError(f"{entry.name}: cannot be used here: {entry.obstacle}")


def _checked(folder: Folder, entry: PublishedWeights) -> Path:
    """The file of an entry; one without a record was put there by hand, and gets its record now."""
    place = folder.path / entry.file
    if _read_record(folder, entry.file) is not None:
        _check_recorded(folder, entry.file)
        return place
    digest = file_sha256(place)
    if not digest.startswith(entry.sha256):
        raise DamagedError(
            f"{place}: its sha256 begins with {digest[:8]}, {entry.sha256} was published; remove it and "
            f"{by_hand(entry.url, place)}"
        )
    _record(folder, entry.file, digest, entry.url)
    return place


def _record(folder: Folder, name: str, digest: str, origin: str) -> None:
    content = {"sha256": digest, "bytes": folder.size(name), "origin": origin}
    folder.write(f"{name}{RECORD}", [json.dumps(content, indent=1).encode() + b"\n"])
    folder.sync()


def _read_record(folder: Folder, name: str) -> str | None:
    """The recorded sha256, or None where there is no record; DamagedError when it is not readable."""
    path = folder.path / f"{name}{RECORD}"
    if not path.exists():
        return None
    try:
        content: Any = json.loads(path.read_bytes())
        digest = content["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        digest = None
    if not isinstance(digest, str) or len(digest) != 64:
        raise DamagedError(f"{path}: the record of a fetched file is not readable; remove both and fetch again")
    return digest


def _check_recorded(folder: Folder, name: str) -> None:
    digest, known = file_sha256(folder.path / name), _read_record(folder, name)
    if digest != known:
        raise DamagedError(
            f"{folder.path / name}: altered since it was fetched: sha256 {digest[:12]}…, recorded "
            f"{(known or '')[:12]}…; remove it and its {RECORD} file, and fetch it again"
        )


def find_weights(sha256: str) -> Path | None:
    """A fetched file of exactly this sha256 (64 digits), or None.

    DamagedError when the file that was recorded under it has been altered since.
    """
    folder = Folder(weights_folder())
    for name in folder.names():
        content = name.removesuffix(RECORD)
        if content != name and (folder.path / content).is_file() and _read_record(folder, content) == sha256:
            _check_recorded(folder, content)
            return folder.path / content
    return None
