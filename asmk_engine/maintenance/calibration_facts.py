"""What `info` says of the calibration of an index."""

from __future__ import annotations

from typing import Any

from asmk_engine.errors import AsmkError
from asmk_engine.indexes.calibrations import NAME, read_calibration
from asmk_engine.indexes.manifest import Manifest
from asmk_engine.storage.folder import Folder


def calibration_bytes(folder: Folder) -> dict[str, int]:
    """Return the bytes of the calibration of an index as the part `calibration` if there is one; it has no commit."""
    return {"calibration": folder.size(NAME)} if NAME in folder.names() else {}


def describe_calibration(folder: Folder, manifest: Manifest) -> dict[str, Any] | None:
    """Describe the calibration of an index; None if there is none, or if it is damaged.

    match, maybe    least evidence of each
    is_learned      whether it was learned from the collection; else it has the constants for `features`
    images, answers  numbers of images that were queries, and of their answers
    commit, indexed  of the index when it was learned; is_outgrown if it has changed much since
    """
    try:
        stored = read_calibration(folder, manifest)
    except AsmkError:
        return None
    if stored is None:
        return None
    images = sum(entry.images - entry.deleted_images for entry in manifest.segments)
    keys = ("match", "maybe", "is_learned", "features", "images", "answers")
    return {
        **{key: getattr(stored.calibration, key) for key in keys},
        "commit": stored.commit,
        "indexed": stored.indexed,
        "is_outgrown": stored.is_outgrown(images),
    }
