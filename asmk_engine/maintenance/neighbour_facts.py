"""What `info` says of the neighbour table of an index."""

from __future__ import annotations

from typing import Any

from asmk_engine.errors import DamagedError
from asmk_engine.indexes.manifest import Manifest
from asmk_engine.indexes.neighbours import commit_of, map_neighbours
from asmk_engine.storage.folder import Folder


def neighbour_bytes(folder: Folder, manifest: Manifest) -> dict[str, int]:
    """Return the bytes of the neighbour table of a commit, or of its pieces, as the part `neighbours` if there is one.

    These files belong to no commit; every change of the index removes them.
    """
    sizes = [folder.size(name) for name in folder.names() if commit_of(name) == manifest.commit]
    return {"neighbours": sum(sizes)} if sizes else {}


def describe_neighbours(folder: Folder, manifest: Manifest) -> dict[str, Any] | None:
    """Describe the neighbour table of a commit: neighbours of an image, bytes, bytes_per_image on disk.

    Returns None if there is none, or if it is damaged.
    """
    try:
        table = map_neighbours(folder, manifest)
    except DamagedError:
        return None
    if table is None:
        return None
    size = table.file.size
    each = size / table.images if table.images else None
    return {"neighbours": table.width, "bytes": size, "bytes_per_image": each}
