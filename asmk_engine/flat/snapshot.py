"""A snapshot of a global index, one mapped commit."""

from __future__ import annotations

import json

from asmk_engine.errors import DamagedError, MismatchError
from asmk_engine.flat.codec import Codec
from asmk_engine.flat.segment import GlobalSegment, map_global_segment
from asmk_engine.indexes.manifest import FileEntry, Manifest
from asmk_engine.indexes.snapshot import Commit, mapped_parts
from asmk_engine.recipes import Recipe
from asmk_engine.storage.arrays import map_arrays, write_arrays
from asmk_engine.storage.folder import Folder


class GlobalSnapshot(Commit[Codec, GlobalSegment]):
    """One commit of a global index, mapped and immutable."""


def map_global_snapshot(folder: Folder, manifest: Manifest, known: GlobalSnapshot | None) -> GlobalSnapshot:
    """Map one commit, reusing the files it shares with `known`.

    Raises NotFoundError if a file is missing, and DamagedError if a file contradicts the manifest.
    """
    return GlobalSnapshot(*mapped_parts(folder, manifest, known, read_codec, map_global_segment))


def write_codec(folder: Folder, codec: Codec) -> FileEntry:
    """Write the codec of an index; returns its entry."""
    name = f"codec-{codec.fingerprint[:12]}.safetensors"
    metadata = {"recipe": codec.recipe.to_json(), "training": json.dumps(codec.training)}
    metadata |= {"input_dim": str(codec.input_dim), "precision": codec.precision}
    checksum = write_arrays(folder, name, codec.arrays(), {"kind": "asmk-engine codec", **metadata})
    return FileEntry.of(folder, name, checksum)


def read_codec(folder: Folder, entry: FileEntry) -> Codec:
    """Map the codec of a commit; raises as `map_global_snapshot`."""
    file = map_arrays(folder, entry.name, entry.checksum)
    file.verify()  # all of it is needed to encode any descriptor
    if file.size != entry.bytes:
        raise DamagedError(f"{file.path}: has {file.size} bytes, the manifest says {entry.bytes}; restore a copy")
    sides = {"mean": 1, "projection": 2, "centroids": 3}
    arrays = {name: file.take(name, "f4", *[None] * count) for name, count in sides.items() if name in file.arrays}
    recipe = Recipe.from_json(file.metadata.get("recipe", ""), file.path)
    dim = file.metadata.get("input_dim", "")
    try:
        training = dict(json.loads(file.metadata.get("training", "{}")))
        return Codec(
            recipe, int(dim) if dim.isdecimal() and len(dim) < 10 else 0, file.metadata.get("precision", ""),
            arrays.get("mean"), arrays.get("projection"), arrays.get("centroids"), training,
        )  # fmt: skip
    except (ValueError, TypeError):
        raise DamagedError(f"{file.path}: its training metadata is not readable; the file was altered") from None
    except MismatchError as error:
        raise DamagedError(f"{file.path}: {error}") from None
