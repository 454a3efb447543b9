"""Check of the geometry beside the postings; damage in it costs the geometry of a segment, not its images."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import AsmkError, DamagedError
from asmk_engine.fused.snapshot import Fusion
from asmk_engine.indexes.manifest import FileEntry, SegmentEntry
from asmk_engine.inverted.geometry_file import map_geometry
from asmk_engine.storage.arrays import map_arrays
from asmk_engine.storage.folder import Folder


def damaged_geometry(
    folder: Folder, entry: SegmentEntry, encoder: Codebook | Fusion | None, fast: bool
) -> dict[str, AsmkError]:
    """Check the geometry of a segment; returns the errors by the name of the file.

    encoder  the codebook, or the encoders of a fused index, or None if one is damaged, so that only checksums can be
             compared
    fast     skip the checks that read all rows
    """
    found: dict[str, AsmkError] = {}
    for file, codebook in _files(entry, encoder):
        try:
            _check(folder, file, entry.images, codebook, fast)
        except AsmkError as error:
            found[file.name] = error
    return found


def _files(entry: SegmentEntry, encoder: Codebook | Fusion | None) -> list[tuple[FileEntry, Codebook | None]]:
    if isinstance(encoder, Fusion):
        pairs = zip(entry.kinds, encoder.kinds, strict=True)
        return [(part.geometry, kind.encoder) for part, kind in pairs if part.geometry]
    return [(file, encoder) for file in entry.geometries]


def _check(folder: Folder, file: FileEntry, images: int, codebook: Codebook | None, fast: bool) -> None:
    if codebook is None:
        map_arrays(folder, file.name, file.checksum).verify()
        return
    table = map_geometry(folder, file, images, codebook.words, codebook.dim)
    _ = table.kept, table.digests  # these verify the tables
    if not fast:
        table.file.verify()
        for problem in table.problems():
            raise DamagedError(f"{table.path}: {problem}; restore a copy, or index the images again")


def without_geometry(entry: SegmentEntry, files: Collection[str]) -> SegmentEntry:
    """Return the entry of a segment without those of its geometry that are among the files."""
    kinds = tuple(
        replace(part, geometry=None) if part.geometry and part.geometry.name in files else part for part in entry.kinds
    )
    own = None if entry.geometry and entry.geometry.name in files else entry.geometry
    return replace(entry, geometry=own, kinds=kinds)
