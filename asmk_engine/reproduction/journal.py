"""The account of a run: what its folder belongs to, what each stage took, and what the report should say of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asmk_engine.errors import DamagedError, InputError, MismatchError
from asmk_engine.images.listing import shown
from asmk_engine.storage.folder import LOCK, Folder

NAME = "journal.json"


class Journal:
    """The journal in the folder of a run, which is made when it is missing.

    key  what the run is of: JSON values; a folder of another key is refused
    raises  MismatchError for the folder of another run, InputError for one that holds other files, DamagedError
    """

    def __init__(self, work: Path, key: dict[str, Any]) -> None:
        self._folder = Folder(work)
        self._folder.make()
        content = self._read(work, key)
        self.key = key
        self.seconds: dict[str, float] = content.get("seconds", {})
        self.notes: list[str] = content.get("notes", [])
        self.facts: dict[str, Any] = content.get("facts", {})
        self.write()

    def _read(self, work: Path, key: dict[str, Any]) -> dict[str, Any]:
        names = set(self._folder.names()) - {LOCK, f"{NAME}.tmp"}
        if NAME not in names:
            if names:
                raise InputError(f"{shown(work)}: holds files of something else; give a new or empty folder with -o")
            return {}
        try:
            content = dict(json.loads(bytes(self._folder.map(NAME))))
            found = dict(content["key"])
            if [type(content[part]) for part in ("seconds", "notes", "facts")] != [dict, list, dict]:
                raise ValueError("a part is of another kind")
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DamagedError(f"{shown(work / NAME)}: not readable; give another folder with -o") from None
        if found != key:
            differing = sorted(one for one in key.keys() | found.keys() if found.get(one) != key.get(one))
            raise MismatchError(
                f"{shown(work)}: was made with another {' and another '.join(differing)}; give another folder with -o, "
                "or the same as before"
            )
        return content

    def write(self) -> None:
        """Make all of it durable."""
        content = {"key": self.key, "seconds": self.seconds, "notes": self.notes, "facts": self.facts}
        self._folder.write(NAME, [json.dumps(content, indent=1).encode()])
        self._folder.sync()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds that the block takes to those of a stage, also when it is stopped."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun
            self.write()

    def note(self, *notes: str) -> None:
        """Keep what the report should say, once each."""
        self.notes += [note for note in dict.fromkeys(notes) if note not in self.notes]
