"""Getting a published file: whole, with the hash that was promised, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import math
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from asmk_engine.errors import AsmkError, DamagedError, InputError, NotFoundError, StorageError
from asmk_engine.iteration import Progress
from asmk_engine.storage.folder import Folder
from asmk_engine.version import __version__

CHUNK = 1 << 20
MOST_BYTES = 4 << 30
"""The largest published network is a tenth of this; a server may send for ever."""
TIMEOUT = 30.0
"""Seconds without a byte after which a server is given up."""


def download(url: str, folder: Folder, name: str, *, sha256: str = "", progress: Progress | None = None) -> str:
    """Write what `url` sends as the new file `name` of the folder, and return its sha256.

    sha256    the first hexadecimal digits that are expected; empty where nothing is known
    progress  called with (done, total) bytes; total is 0 where the server does not say

    The file appears under its name when all of it is there, synced, and of the promised hash; a part of it never does.
    Raises NotFoundError when the server does not have it, StorageError when the server cannot be reached or the disk
    refuses, DamagedError when it was cut or is of another hash, InputError for an address that is not of the web.
    """
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url}: not an address that is fetched; expected http:// or https://")
    digest, place = hashlib.sha256(), folder.path / name
    with _Errors(url, place):
        response = _open(url)
    with response:
        length = response.headers.get("Content-Length") or ""
        total = int(length) if length.isdecimal() else 0
        folder.write(name, _chunks(response, url, place, total, digest, sha256, progress))
    folder.sync()
    return digest.hexdigest()


def by_hand(url: str, place: object) -> str:
    """What a person without a network can do."""
    return f"fetch {url} with another machine and put it here: {place}"


def _open(url: str) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": f"asmk-engine/{__version__}"})
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def _chunks(
    response: Any, url: str, place: object, total: int, digest: Any, sha256: str, progress: Progress | None
) -> Iterator[bytes]:
    """The bytes of an answer; raises before the end is told, so that a wrong file is never given its name."""
    done = 0
    while chunk := _read(response, url, place):
        done += len(chunk)
        if done > MOST_BYTES:
            raise DamagedError(f"{url}: sends more than {MOST_BYTES} bytes, which no network has; the address is wrong")
        digest.update(chunk)
        yield chunk
        if progress:
            progress(done, total)
    if total and done != total:
        raise DamagedError(f"{url}: ended after {done} of {total} bytes, nothing is kept; run the same command again")
    if not digest.hexdigest().startswith(sha256):
        found = digest.hexdigest()[: max(len(sha256), 8)]
        raise DamagedError(
            f"{url}: its sha256 begins with {found}, {sha256} was published: altered on its way or replaced, nothing "
            "is kept; run the same command again"
        )


def _read(response: Any, url: str, place: object) -> bytes:
    """The next bytes; an error of the network must not look like one of the disk that they are written to."""
    with _Errors(url, place):
        return bytes(response.read(CHUNK))


class _Errors:
    """Turns what urllib raises into errors that name the address and what can be done."""

    def __init__(self, url: str, place: object) -> None:
        self._url, self._place = url, place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AsmkError):
            return
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            raise self._refused(error) from None
        if isinstance(error, http.client.IncompleteRead):
            raise DamagedError(f"{self._url}: ended too early, nothing is kept; run the same command again") from None
        if isinstance(error, OSError | http.client.HTTPException):
            reason = getattr(error, "reason", None) or error
            said = " ".join(str(reason).split()) or type(error).__name__
            raise StorageError(
                f"{self._url}: cannot be reached ({said[:160]}); go online, or {by_hand(self._url, self._place)}"
            ) from None

    def _refused(self, error: urllib.error.HTTPError) -> AsmkError:
        said = f"{self._url}: the server answered {error.code} {error.reason}"
        if error.code in (404, 410):
            return NotFoundError(f"{said}; the file has moved: find it elsewhere and put it here: {self._place}")
        return StorageError(f"{said}; try later, or {by_hand(self._url, self._place)}")


def mebibytes(progress: Progress) -> Progress:
    """A progress callback in bytes that tells another one in MiB, rounded up."""
    return lambda done, total: progress(math.ceil(done / CHUNK), math.ceil(total / CHUNK))
