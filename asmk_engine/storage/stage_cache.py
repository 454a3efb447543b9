"""The work folder: every stage of the work is kept under what it was made from, and made again only where it is not.

    WORK/<stage>-<16 hex>/numbers.json   what was measured, written last: a stage without it was not finished
    WORK/<stage>-<16 hex>/...            what was made

The 16 hexadecimal digits are the start of the sha256 of the inputs: names, sizes, seeds, and the digits of the stages
before. Whatever another input changes has another folder.
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
    """A finished stage: its folder, its digits, and what was measured, JSON values."""

    path: Path
    key: str
    numbers: dict[str, Any]


class StageCache:
    """Makes stages, or takes them from the work folder; one process at a time (see `folder.WriterLock`).

    version  raised when a stage makes something else than it did, so that what older programs left is not used
    """

    def __init__(self, folder: Path, version: int = 1) -> None:
        self.folder, self.version = folder, version

    def stage(self, name: str, inputs: Mapping[str, Any], make: Callable[[Path], dict[str, Any]]) -> Stage:
        """The stage `name` of these inputs, JSON values; `make` gets an empty folder and returns what it measured."""
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
    """The first 16 hexadecimal digits of the sha256 of JSON values; their order in a mapping changes nothing."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Any] | None:
    """What a finished stage measured, or None where there is none, or no readable one: it is made again then."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return dict(json.loads(path.read_bytes())["numbers"])
    return None


def _clear(path: Path) -> None:
    """An empty folder, without what an unfinished stage left in it."""
    with storage_errors(path, "clear the folder"):
        if path.exists():
            shutil.rmtree(path)
    Folder(path).make()
