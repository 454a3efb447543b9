"""Photographs that clients sent: files in a private folder, kept for a while under names that nobody can guess."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asmk_engine.serve.refusals import Refusal

KEPT_SECONDS = 3600.0
KEPT_FILES = 500
KEPT_BYTES = 1 << 30


@dataclass
class Upload:
    """A photograph of a client.

    key    what requests call it
    name   what the client calls it, which is only shown
    path   the file, whose name the server chose
    size   width and height of the upright photograph
    found  what was computed of it, by question
    """

    key: str
    name: str
    path: Path
    bytes: int
    size: tuple[int, int]
    born: float = field(default_factory=time.monotonic)
    found: dict[Any, Any] = field(default_factory=dict)


class Uploads:
    """The uploads of a server; the oldest are forgotten when there are too many, or after an hour."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="asmk-engine-uploads-")
        self._known: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def bytes(self) -> int:
        """The bytes of all files."""
        with self._lock:
            return sum(one.bytes for one in self._known.values())

    def new_path(self) -> Path:
        """Return the path of a new file, which does not exist yet."""
        return Path(self._folder.name) / secrets.token_hex(16)

    def keep(self, path: Path, name: str, size: tuple[int, int]) -> Upload:
        """Keep the file at a new path under a key of its own."""
        upload = Upload(secrets.token_urlsafe(18), name[:300], path, path.stat().st_size, size)
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
        self._folder.cleanup()
