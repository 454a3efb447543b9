"""The log of a training: one JSON object per line, truncated to the position at which a run resumes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from asmk_engine.errors import DamagedError
from asmk_engine.storage.folder import storage_errors

LOG = "log.jsonl"


class TrainingLog:
    """Appends to the log of a run.

    begin  length in bytes of the existing log that belongs to the resumed state; the rest is truncated
    """

    def __init__(self, folder: Path, begin: int = 0) -> None:
        self._path = folder / LOG
        with storage_errors(self._path, "open the log"), open(self._path, "ab") as file:
            size = os.fstat(file.fileno()).st_size
            if size < begin:
                raise DamagedError(
                    f"{self._path}: {size} bytes, expected at least {begin}; restore it, or start in another folder"
                )
            file.truncate(begin)
        self.size = begin

    def write(self, kind: str, **content: Any) -> None:
        """Append a line with the key `kind` and the rest, JSON values."""
        line = (json.dumps({"kind": kind, **content}) + "\n").encode()
        with storage_errors(self._path, "write the log"), open(self._path, "ab") as file:
            file.write(line)
        self.size += len(line)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of a log, without a partially written last line; raises DamagedError for invalid JSON."""
    path = folder / LOG
    with storage_errors(path, "read the log"):
        lines = path.read_bytes().split(b"\n")
    entries = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entries.append(dict(json.loads(line)))
        except (ValueError, TypeError, RecursionError):
            raise DamagedError(f"{path}: line {number} is not a JSON object; the log was altered") from None
    return entries
