"""A temporary folder that only this user can read, and that the next server removes if this one was killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from asmk_engine.storage import system
from asmk_engine.storage.folder import LOCK

PREFIX = "asmk-engine-uploads-"


class PrivateFolder:
    """A new folder below that of temporary files, locked as long as its server lives.

    path  of the folder
    """

    def __init__(self) -> None:
        _remove_abandoned(Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = system.lock(self.path / LOCK)

    def close(self) -> None:
        """Remove the folder with all files."""
        if self._lock is not None:
            system.unlock(self._lock)
            self._lock = None
        shutil.rmtree(self.path, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders of servers that were killed: nobody holds their locks."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if _is_ours(folder) and (held := system.lock(folder / LOCK)) is not None:
                system.unlock(held)
                shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    """Return whether it is a folder of this user, and no link to another; one without a lock is just being made."""
    facts = os.lstat(folder)
    is_own = not hasattr(os, "getuid") or facts.st_uid == os.getuid()
    return is_own and stat.S_ISDIR(facts.st_mode) and (folder / LOCK).exists()
