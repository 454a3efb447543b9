"""Photographs that clients sent: files in a private folder, kept for a while under names that nobody can guess."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from asmk_engine.serve.private_folder import PrivateFolder
from asmk_engine.serve.refusals import Refusal

KEPT_SECONDS = 3600.0
KEPT_FILES = 500
KEPT_BYTES = 1 << 30
MOST_LETTERS = 300


@dataclass
class Upload:
    """A photograph of a client.

    key    what requests call it
    name   what the client calls it, which is only shown
    path   the file, whose name the server chose
    size   width and height of the upright photograph
    """

    key: str
    name: str
    path: Path
    bytes: int
    size: tuple[int, int]
    born: float = field(default_factory=time.monotonic)


class Uploads:
    """The uploads of a server; the oldest are forgotten when there are too many, or after an hour."""

    def __init__(self) -> None:
        self._folder = PrivateFolder()
        self._known: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def bytes(self) -> int:
        """The bytes of all files."""
        with self._lock:
            return sum(one.bytes for one in self._known.values())

    def write(self, file: BinaryIO) -> Path:
        """Copy a file of a request to a new one of our own; raises Refusal 503 if the disk is full."""
        path = self._folder.path / secrets.token_hex(16)
        try:
            file.seek(0)
            with open(path, "xb") as target:
                shutil.copyfileobj(file, target, 1 << 20)
        except (OSError, ValueError) as error:  # ValueError: the client is gone, and its file closed
            path.unlink(missing_ok=True)
            reason = getattr(error, "strerror", None) or "it was not sent as a whole"
            raise Refusal(503, f"the photograph cannot be kept ({reason}); try again later", 60) from None
        return path

    def keep(self, path: Path, name: str, size: tuple[int, int]) -> Upload:
        """Keep a file that was written under a key of its own."""
        upload = Upload(secrets.token_urlsafe(18), name[:MOST_LETTERS], path, path.stat().st_size, size)
        with self._lock:
            self._known[upload.key] = upload
            self._forget()
        return upload

    def get(self, key: str) -> Upload:
        """Return an upload; raises Refusal 404 if it is unknown or forgotten."""
        with self._lock:
            self._forget()
            if key not in self._known:
                raise Refusal(404, "this photograph is no longer kept by the server; send it again")
            self._known.move_to_end(key)
            return self._known[key]

    def forget(self, key: str) -> None:
        """Remove an upload, if it is there."""
        with self._lock:
            if (upload := self._known.pop(key, None)) is not None:
                upload.path.unlink(missing_ok=True)

    def _forget(self) -> None:
        oldest = time.monotonic() - KEPT_SECONDS
        gone = [key for key, one in self._known.items() if one.born < oldest]
        rest = [one for key, one in self._known.items() if key not in gone]
        total = sum(one.bytes for one in rest)
        while len(rest) > KEPT_FILES or (total > KEPT_BYTES and len(rest) > 1):
            total -= rest[0].bytes
            gone.append(rest.pop(0).key)
        for key in gone:
            with contextlib.suppress(OSError):
                os.unlink(self._known.pop(key).path)

    def close(self) -> None:
        """Remove all files."""
        self._folder.close()
