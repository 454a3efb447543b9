"""What a run has found so far, in pieces, so that a run that was killed goes on where it stopped.

A piece is an array file with checksums, written under a temporary name and renamed when it is whole. Its metadata say
of which commit of which index it is and with which options it was made; pieces of another are removed.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from asmk_engine.errors import DamagedError, NotFoundError
from asmk_engine.indexes.manifest import Manifest
from asmk_engine.storage.arrays import map_arrays, write_arrays
from asmk_engine.storage.folder import LOCK, Folder, LockedFolder, encode_manifest

KIND = "asmk-engine groups"
FORMAT = 1
_NAME = re.compile(r"[a-z]+-\d{6,}\.safetensors")


class PieceJournal(LockedFolder):
    """The pieces in a folder, which is made, and locked for as long as the journal is open.

    manifest  of the commit
    options   what else the pieces depend on, in words
    """

    def __init__(self, path: Path, manifest: Manifest, options: str) -> None:
        checksum = zlib.crc32(encode_manifest(manifest.to_json()))
        super().__init__(path)
        self._metadata = {
            "kind": KIND, "format": str(FORMAT), "commit": f"{manifest.commit} {checksum:08x}", "options": options,
        }  # fmt: skip

    def _open(self) -> None:
        """Remove what a killed run left half-written, and the pieces of another commit or of other options."""
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
    """Remove the pieces of a journal that is no longer needed, and its folder if nothing else is in it."""
    folder = Folder(path)
    folder.remove_leftovers(_NAME)
    folder.remove(LOCK)
    with contextlib.suppress(OSError):  # someone put a file there
        path.rmdir()
