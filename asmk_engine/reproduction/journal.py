"""The journal of a run: what its work folder belongs to, the seconds of each stage, and notes for the report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asmk_engine.errors import DamagedError, InputError, MismatchError
from asmk_engine.images.listing import shown
from asmk_engine.storage.folder import LOCK, Folder

NAME = "journal.json"
NAMES = {"recipe": "experiment"}
"""Names in messages of those parts of a key that are stored under another name."""


class Journal:
    """The journal in the work folder of a run, which is created if it is missing.

    key      what the run depends on, JSON values; a folder with another key is refused
    earlier  keys of the same run that are accepted too; `key` is then the one in the folder

    raises   MismatchError for the folder of another run, InputError for one that holds other files, DamagedError
    """

    def __init__(self, work: Path, key: dict[str, Any], earlier: Sequence[dict[str, Any]] = ()) -> None:
        self._folder = Folder(work)
        self._folder.make()
        content = self._read(work, key, earlier)
        self.key: dict[str, Any] = content.get("key", key)
        self.seconds: dict[str, float] = content.get("seconds", {})
        self.notes: list[str] = content.get("notes", [])
        self.facts: dict[str, Any] = content.get("facts", {})
        self.write()

    def _read(self, work: Path, key: dict[str, Any], earlier: Sequence[dict[str, Any]]) -> dict[str, Any]:
        names = set(self._folder.names()) - {LOCK, f"{NAME}.tmp"}
        if NAME not in names:
            if names:
                raise InputError(f"{shown(work)}: holds other files; give a new or empty folder with -o")
            return {}
        try:
            content = dict(json.loads(bytes(self._folder.map(NAME))))
            found: dict[str, Any] = dict(content["key"])
            if [type(content[part]) for part in ("seconds", "notes", "facts")] != [dict, list, dict]:
                raise ValueError("a part has another type")
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DamagedError(f"{shown(work / NAME)}: not readable; give another folder with -o") from None
        if found != key and found not in earlier:
            differing = sorted(NAMES.get(part, part) for part in key | found if found.get(part) != key.get(part))
            raise MismatchError(
                f"{shown(work)}: was made with another {' and another '.join(differing)}; give another folder with -o, "
                "or the same as before"
            )
        return content

    def write(self) -> None:
        """Write the journal durably."""
        content = {"key": self.key, "seconds": self.seconds, "notes": self.notes, "facts": self.facts}
        self._folder.write(NAME, [json.dumps(content, indent=1).encode()])
        self._folder.sync()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to those of a stage, also if it is interrupted."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun
            self.write()

    def note(self, *notes: str) -> None:
        """Keep notes for the report, each once."""
        self.notes += [note for note in dict.fromkeys(notes) if note not in self.notes]
