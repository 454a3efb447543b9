"""The work folder: the result of every stage is stored under a digest of its inputs and reused if it exists.

    WORK/<stage>-<16 hex>/numbers.json   measurements, written last: a stage without it is unfinished
    WORK/<stage>-<16 hex>/...            output files

The 16 hexadecimal digits are the start of the sha256 of the inputs: names, sizes, seeds, and the digits of earlier
stages. A different input therefore has a different folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asmk_engine.storage.folder import Folder, storage_errors

NUMBERS = "numbers.json"


@dataclass(frozen=True)
class Stage:
    """A finished stage: its folder, its digits, and its measurements as JSON values."""

    path: Path
    key: str
    numbers: dict[str, Any]


class StageCache:
    """Runs stages, or reuses them from the work folder; one process at a time (see `folder.WriterLock`).

    version  increased when a stage changes its output, so that results of older programs are not reused
    """

    def __init__(self, folder: Path, version: int = 1) -> None:
        self.folder, self.version = folder, version

    def stage(self, name: str, inputs: Mapping[str, Any], make: Callable[[Path], dict[str, Any]]) -> Stage:
        """Return the stage `name` for these inputs, JSON values; `make` fills an empty folder, returns measurements."""
        key = key_of({"stage": name, "version": self.version, **inputs})
        path = self.folder / f"{name}-{key}"
        numbers = _read(path / NUMBERS)
        if numbers is None:
            _clear(path)
            numbers = make(path)
            content = json.dumps({"inputs": dict(inputs), "numbers": numbers}, indent=1).encode()
            kept = Folder(path)
            kept.write(NUMBERS, [content])
            kept.sync()
        return Stage(path, key, numbers)


def key_of(content: Mapping[str, Any]) -> str:
    """Return the first 16 hexadecimal digits of the sha256 of JSON values; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Any] | None:
    """Return the measurements of a finished stage, or None if it is missing or unreadable, so that it runs again."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return dict(json.loads(path.read_bytes())["numbers"])
    return None


def _clear(path: Path) -> None:
    """Make the folder empty, removing the output of an unfinished stage."""
    with storage_errors(path, "clear the folder"):
        if path.exists():
            shutil.rmtree(path)
    Folder(path).make()
