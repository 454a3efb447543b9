"""The local cache of published weights.

    <cache>/weights/resnet18-f37072fd.pth         the published file, fetched or put there by hand
    <cache>/weights/resnet18-f37072fd.pth.json    its sha256 when it was first seen, and where it came from

Each time a file is used, it is compared with its record; an altered file is refused.
"""

from __future__ import annotations

import importlib.util
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
    """Return the folder for files that can be fetched again; it need not exist.

    $ASMK_ENGINE_CACHE, else $XDG_CACHE_HOME/asmk-engine, else the folder of the platform: ~/.cache/asmk-engine,
    ~/Library/Caches/asmk-engine on macOS, %LOCALAPPDATA%\\asmk-engine\\Cache on Windows. A relative XDG_CACHE_HOME is
    ignored (XDG Base Directory Specification). Raises InputError if the home folder is unknown.
    """
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen)
    try:
        return PlatformDirs("asmk-engine", appauthor=False).user_cache_path
    except (RuntimeError, ValueError):
        raise InputError(f"the home folder is not known; set {VARIABLE} to a folder for fetched weights") from None


def weights_folder() -> Path:
    """Return the folder of published weights, where they can also be put by hand; it need not exist."""
    return cache_folder() / "weights"


def fetch_weights(entry: PublishedWeights, *, progress: Progress | None = None) -> Path:
    """Return the file of published weights; download it unless it exists, and record its sha256 next to it.

    progress  called with (done, total) bytes; total is 0 if the server does not send the size

    Raises InputError for weights that cannot be used here, DamagedError for a file that was altered or is not the
    published one, and NotFoundError or StorageError if the download fails, see `downloads.download`; NotFoundError,
    which says what to do, also for weights that only a person can download.
    """
    _check_usable(entry)
    if entry.package:
        return packaged_file(entry)
    folder = Folder(weights_folder())
    folder.make()
    with WriterLock(folder.path):
        if (folder.path / entry.file).exists():
            return _checked(folder, entry)
        if entry.page:
            raise _to_be_fetched(entry, folder.path / entry.file)
        digest = download(entry.url, folder, entry.file, sha256=entry.sha256, progress=progress)
        _record(folder, entry.file, digest, entry.url)
    return folder.path / entry.file


def weights_path(entry: PublishedWeights) -> Path:
    """Return the file of published weights on this machine, compared with its record; nothing is fetched.

    Raises NotFoundError, which says what to run or where to put the file, and InputError and DamagedError as
    `fetch_weights` does.
    """
    _check_usable(entry)
    if entry.package:
        return packaged_file(entry)
    folder = Folder(weights_folder())
    place = folder.path / entry.file
    if not place.exists() and entry.page:
        raise _to_be_fetched(entry, place)
    if not place.exists():
        raise NotFoundError(
            f"{place}: the weights {entry.name!r} are not on this machine; run `asmk-engine weights fetch "
            f"{entry.name}`, or {by_hand(entry.url, place)}"
        )
    return _checked(folder, entry)


def _to_be_fetched(entry: PublishedWeights, place: Path) -> NotFoundError:
    return NotFoundError(
        f"{place}: the weights {entry.name!r} are not on this machine, and {entry.url} is a page for people; download "
        f"the file there ({entry.purpose}) and put it here: {place}"
    )


def packaged_file(entry: PublishedWeights) -> Path:
    """Return the file of weights that a package contains, compared with its sha256; the package is not imported.

    Raises NotFoundError, which says how to install it, and DamagedError for another file.
    """
    place = find_packaged(entry)
    if place is None or not place.is_file():
        found = "is not installed" if place is None else f"does not contain {place}; another version was expected"
        raise NotFoundError(f"the weights {entry.name!r} are in a package that {found}: {entry.source}")
    if (digest := file_sha256(place)) != entry.sha256:
        raise DamagedError(
            f"{place}: its sha256 begins with {digest[:8]}, expected {entry.sha256[:8]}; {entry.source} "
            "--force-reinstall"
        )
    return place


def find_packaged(entry: PublishedWeights) -> Path | None:
    """Return where the file of a package is, None if the package is not installed."""
    module, _, within = entry.url.partition("/")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / within


def _check_usable(entry: PublishedWeights) -> None:
    if entry.obstacle:
        raise InputError(f"{entry.name}: cannot be used here: {entry.obstacle}")


def _checked(folder: Folder, entry: PublishedWeights) -> Path:
    """Return the checked file of an entry. A file without a record was put there by hand; its record is written now."""
    place = folder.path / entry.file
    if _read_record(folder, entry.file) is not None:
        _check_recorded(folder, entry.file)
        return place
    digest = file_sha256(place)
    if not digest.startswith(entry.sha256):
        raise DamagedError(
            f"{place}: its sha256 begins with {digest[:8]}, expected {entry.sha256}; remove it and "
            f"{by_hand(entry.url, place)}"
        )
    _record(folder, entry.file, digest, entry.url)
    return place


def _record(folder: Folder, name: str, digest: str, origin: str) -> None:
    content = {"sha256": digest, "bytes": folder.size(name), "origin": origin}
    folder.write(f"{name}{RECORD}", [json.dumps(content, indent=1).encode() + b"\n"])
    folder.sync()


def _read_record(folder: Folder, name: str) -> str | None:
    """Return the recorded sha256, or None without a record; raises DamagedError if the record is not readable."""
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
    """Return the fetched file of exactly this sha256 (64 digits), or None.

    Raises DamagedError if the file recorded under it has been altered since.
    """
    folder = Folder(weights_folder())
    for name in folder.names():
        content = name.removesuffix(RECORD)
        if content != name and (folder.path / content).is_file() and _read_record(folder, content) == sha256:
            _check_recorded(folder, content)
            return folder.path / content
    return None
