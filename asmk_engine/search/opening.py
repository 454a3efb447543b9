"""Opening an index of either kind."""

from __future__ import annotations

from pathlib import Path

from asmk_engine.flat.index import GlobalIndex
from asmk_engine.indexes.manifest import GLOBAL_KIND, read_manifest
from asmk_engine.inverted.index import Index
from asmk_engine.storage.folder import Folder


def open_index(path: Path | str) -> Index | GlobalIndex:
    """Open an index of local features or of global descriptors; raises as `Index.open`."""
    kind = read_manifest(Folder(path)).kind
    return GlobalIndex.open(path) if kind == GLOBAL_KIND else Index.open(path)
