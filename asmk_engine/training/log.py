"""The log of a training: one JSON object a line, cut back to where a resumed run goes on."""

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

    begin  bytes of an earlier log that belong to what is resumed; what follows them is cut off
    """

    def __init__(self, folder: Path, begin: int = 0) -> None:
        self._path = folder / LOG
        with storage_errors(self._path, "open the log"), open(self._path, "ab") as file:
            size = os.fstat(file.fileno()).st_size
            if size < begin:
                raise DamagedError(f"{self._path}: {size} bytes, the state knows {begin}; restore it, or begin anew")
            file.truncate(begin)
        self.size = begin

    def write(self, kind: str, **content: Any) -> None:
        """Append a line with the key `kind` and the rest, JSON values."""
        line = (json.dumps({"kind": kind, **content}) + "\n").encode()
        with storage_errors(self._path, "write the log"), open(self._path, "ab") as file:
            file.write(line)
        self.size += len(line)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a log; DamagedError for one that is not JSON, but for the last, which may be half written."""
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
