"""The file that says that an index is a shard, so that nobody changes it but through its sharded index."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from asmk_engine.errors import InputError
from asmk_engine.storage.folder import Folder

MARKER = "shard.json"


@dataclass(frozen=True)
class ShardMarker:
    """What an index says of the sharded index that it belongs to: its identity, and where it was."""

    identity: str
    path: str


def write_marker(folder: Folder, marker: ShardMarker) -> None:
    """Write the marker of a shard; the folder must still be synced."""
    folder.write(MARKER, [json.dumps(vars(marker), indent=1).encode() + b"\n"])


def marker_of(folder: Folder) -> ShardMarker | None:
    """Return the marker in the folder of an index, None if it is no shard."""
    content = folder.content(MARKER)
    if content is None:
        return None
    with contextlib.suppress(ValueError, KeyError, TypeError):
        found = json.loads(content)
        return ShardMarker(str(found["identity"]), str(found["path"]))
    return ShardMarker("", "an unknown place")


def check_is_no_shard(path: Path) -> None:
    """Raise InputError if the index at `path` is a shard."""
    if marker := marker_of(Folder(path)):
        raise InputError(
            f"{path}: a shard of the sharded index {marker.path}, whose other shards would not change with it; change "
            "that one instead"
        )
