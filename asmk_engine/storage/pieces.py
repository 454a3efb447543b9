"""What a long run has made so far, in pieces, so that a run that was killed goes on where it stopped.

A piece is an array file with checksums, written under a temporary name and renamed when it is whole. Its metadata say
of what it was made; pieces of something else are removed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from asmk_engine.errors import DamagedError, NotFoundError
from asmk_engine.storage.arrays import map_arrays, write_arrays
from asmk_engine.storage.folder import LOCK, Folder, LockedFolder

_NAME = re.compile(r"[a-z]+-\d{6,}\.safetensors")


class PieceFolder(LockedFolder):
    """The pieces in a folder, which is made, and locked for as long as this is entered.

    metadata  of what the pieces are made, in words
    """

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        super().__init__(path)
        self._metadata = dict(metadata)

    def _open(self) -> None:
        """Remove what a killed run left half-written, and the pieces of something else."""
        kept = {name for name in self._folder.names() if _NAME.fullmatch(name) and self._is_ours(name)}
        self._folder.remove_leftovers(_NAME, kept)

    def _is_ours(self, name: str) -> bool:
        try:
            found = map_arrays(self._folder, name).metadata
        except (DamagedError, NotFoundError):
            return False
        return all(found.get(key) == value for key, value in self._metadata.items())

    def piece(self, stage: str, number: int, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return the arrays of a piece, made and written if it is not there or damaged.

        One with numbers that are none is not written, so that it is made again by the next run.
        """
        name = f"{stage}-{number:06d}.safetensors"
        found = self._stored(name)
        if found is None:
            found = {key: np.ascontiguousarray(array) for key, array in make().items()}
            if not any(array.dtype.kind == "f" and np.isnan(array).any() for array in found.values()):
                write_arrays(self._folder, name, found, self._metadata)
                self._folder.sync()
        return found

    def _stored(self, name: str) -> dict[str, np.ndarray] | None:
        if not (self._folder.path / name).exists():
            return None
        try:
            file = map_arrays(self._folder, name)
            file.verify()
        except DamagedError:
            return None  # it is made again, and replaces the damaged one
        return {key: np.array(array) for key, array in file.arrays.items()}


def discard(path: Path) -> None:
    """Remove pieces that are no longer needed, and their folder if nothing else is in it."""
    folder = Folder(path)
    folder.remove_leftovers(_NAME)
    folder.remove(LOCK)
    with contextlib.suppress(OSError):  # someone put a file there
        path.rmdir()
