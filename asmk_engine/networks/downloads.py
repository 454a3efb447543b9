"""Downloads of published files: complete and with the expected hash, or not at all."""

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
"""The largest published network is a tenth of this; the limit stops a server that never ends its answer."""
TIMEOUT = 30.0
"""Seconds without a byte after which a download fails."""


def download(url: str, folder: Folder, name: str, *, sha256: str = "", progress: Progress | None = None) -> str:
    """Download `url` to the new file `name` of the folder, and return its sha256.

    sha256    the first hexadecimal digits that are expected; empty if unknown
    progress  called with (done, total) bytes; total is 0 if the server does not send the size

    The file appears under its name only when it is complete, synced, and has the expected hash.
    Raises NotFoundError if the server does not have it, StorageError if the server cannot be reached or the disk
    cannot be written, DamagedError if it was cut short or has another hash, InputError if `url` is not http or https.
    """
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url}: not a web address; expected http:// or https://")
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
    """Return the instruction for getting a file without a network connection, for error messages."""
    return f"fetch {url} on another machine and put it here: {place}"


def _open(url: str) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": f"asmk-engine/{__version__}"})
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def _chunks(
    response: Any, url: str, place: object, total: int, digest: Any, sha256: str, progress: Progress | None
) -> Iterator[bytes]:
    """Yield the bytes of a response; raises before the iterator ends, so that a wrong file never gets its name."""
    done = 0
    while chunk := _read(response, url, place):
        done += len(chunk)
        if done > MOST_BYTES:
            raise DamagedError(f"{url}: sends more than {MOST_BYTES} bytes, too many for a network; check the address")
        digest.update(chunk)
        yield chunk
        if progress:
            progress(done, total)
    if total and done != total:
        raise DamagedError(f"{url}: ended after {done} of {total} bytes, nothing was kept; run the same command again")
    if not digest.hexdigest().startswith(sha256):
        found = digest.hexdigest()[: max(len(sha256), 8)]
        raise DamagedError(
            f"{url}: its sha256 begins with {found}, expected {sha256}: altered in transit or replaced, nothing was "
            "kept; run the same command again"
        )


def _read(response: Any, url: str, place: object) -> bytes:
    """Return the next bytes; network errors are converted here, so that they do not look like disk errors."""
    with _Errors(url, place):
        return bytes(response.read(CHUNK))


class _Errors:
    """Context that turns urllib's exceptions into errors that name the address and the cure."""

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
            raise DamagedError(f"{self._url}: ended too early, nothing was kept; run the same command again") from None
        if isinstance(error, OSError | http.client.HTTPException):
            reason = getattr(error, "reason", None) or error
            said = " ".join(str(reason).split()) or type(error).__name__
            raise StorageError(
                f"{self._url}: cannot be reached ({said[:160]}); go online, or {by_hand(self._url, self._place)}"
            ) from None

    def _refused(self, error: urllib.error.HTTPError) -> AsmkError:
        said = f"{self._url}: the server answered {error.code} {error.reason}"
        if error.code in (404, 410):
            return NotFoundError(f"{said}: the file has moved; find it elsewhere and put it here: {self._place}")
        return StorageError(f"{said}; try later, or {by_hand(self._url, self._place)}")


def mebibytes(progress: Progress) -> Progress:
    """Return a progress callback in bytes that calls `progress` in MiB, rounded up."""
    return lambda done, total: progress(math.ceil(done / CHUNK), math.ceil(total / CHUNK))
