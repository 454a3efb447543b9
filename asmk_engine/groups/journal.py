"""What a run has found so far, in pieces, so that a run that was killed goes on where it stopped.

Their metadata say of which commit of which index they are and with which options they were made.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from asmk_engine.indexes.manifest import Manifest
from asmk_engine.storage.folder import encode_manifest
from asmk_engine.storage.pieces import PieceFolder

KIND = "asmk-engine groups"
FORMAT = 1


class PieceJournal(PieceFolder):
    """The pieces in a folder, which is made, and locked for as long as the journal is open.

    manifest  of the commit
    options   what else the pieces depend on, in words
    """

    def __init__(self, path: Path, manifest: Manifest, options: str) -> None:
        commit = f"{manifest.commit} {zlib.crc32(encode_manifest(manifest.to_json())):08x}"
        super().__init__(path, {"kind": KIND, "format": str(FORMAT), "commit": commit, "options": options})
