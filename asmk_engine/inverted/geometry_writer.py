"""Writing of geometry files: from memory, and joined from mapped ones, a bounded number of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from asmk_engine.indexes.manifest import FileEntry
from asmk_engine.inverted.geometry_file import KIND, GeometryTable, row_digest, without_angles
from asmk_engine.inverted.segment import Segment
from asmk_engine.storage.arrays import ArrayWriter
from asmk_engine.storage.folder import Folder

CHUNK_BYTES = 16 << 20
"""Bytes of rows in memory at a time while files are joined; one image may take more."""


@dataclass(frozen=True)
class SegmentGeometry:
    """The geometry of the images of a segment, in memory.

    counts   [I] int64, rows of each image
    sizes    [I, 2] uint32
    digests  [I] uint32
    rows     [F, B] uint8, see `geometry_file`
    """

    counts: np.ndarray
    sizes: np.ndarray
    digests: np.ndarray
    rows: np.ndarray


def geometry_name(segment: str) -> str:
    """Return the name of the geometry file that belongs to a file of postings: geometry-000001.safetensors."""
    return segment.replace("segment-", "geometry-", 1)


def write_geometry(folder: Folder, segment: str, geometry: SegmentGeometry | None) -> FileEntry | None:
    """Write the geometry, if there is any, beside the file `segment`; returns its entry."""
    if geometry is None:
        return None
    return _write(
        folder, geometry_name(segment), geometry.counts, geometry.sizes, geometry.digests, iter([geometry.rows]),
        geometry.rows.shape[1],
    )  # fmt: skip


def merge_geometry(
    folder: Folder, segment: str, sources: Sequence[Segment], *, chunk_bytes: int = CHUNK_BYTES
) -> FileEntry | None:
    """Write the geometry of the live images of `sources`, in order, beside the file `segment`; returns its entry.

    Images of a segment without geometry have none in the file; without any geometry there is no file. Where a table has
    angles the file has them, unknown ones for features of the others. Raises DamagedError if a table was altered.
    """
    tables = [source.geometry for source in sources if source.geometry is not None]
    if not tables:
        return None
    for table in tables:  # altered data must not get new, valid checksums
        table.file.verify()
    width = max(table.features.shape[1] for table in tables)
    parts = [_live_tables(source, width) for source in sources]
    counts, sizes, digests = (np.concatenate(each) for each in zip(*parts, strict=True))
    pieces = (piece for source in sources if source.geometry for piece in _pieces(source.geometry, source, chunk_bytes))
    rows = (without_angles(piece, width) for piece in pieces)
    return _write(folder, geometry_name(segment), counts, sizes, digests, rows, width)


def _live_tables(segment: Segment, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the numbers of rows, sizes and digests of the live images of a segment, for rows of `width` bytes."""
    live, table = segment.live_numbers(), segment.geometry
    if table is None:  # the crc32 of nothing is 0
        return np.zeros(len(live), np.int64), np.zeros((len(live), 2), np.uint32), np.zeros(len(live), np.uint32)
    digests = table.digests[live]
    if table.features.shape[1] < width:
        found = (row_digest(without_angles(table.rows(number), width)) for number in live.tolist())
        digests = np.fromiter(found, np.uint32, len(live))
    return np.diff(table.starts)[live], table.sizes[live], digests


def _pieces(table: GeometryTable, images: Segment, chunk_bytes: int) -> Iterator[np.ndarray]:
    """Yield the rows of the live images of a segment in pieces of whole images."""
    starts, most = table.starts, max(1, chunk_bytes // table.features.shape[1])
    first = 0
    while first < table.images:
        last = int(np.searchsorted(starts, starts[first] + most, side="right")) - 1
        last = min(max(last, first + 1), table.images)
        rows = table.features[int(starts[first]) : int(starts[last])]
        if images.deleted is not None:
            rows = rows[np.repeat(~images.deleted[first:last], np.diff(starts[first : last + 1]))]
        yield rows
        first = last


def _write(
    folder: Folder,
    name: str,
    counts: np.ndarray,
    sizes: np.ndarray,
    digests: np.ndarray,
    pieces: Iterator[np.ndarray],
    width: int,
) -> FileEntry:
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    known: dict[str, np.ndarray] = {
        "starts": starts,
        "sizes": sizes.astype(np.uint32),
        "digests": digests.astype(np.uint32),
    }
    shapes = {key: (array.dtype, array.shape) for key, array in known.items()}
    shapes["features"] = np.dtype(np.uint8), (int(starts[-1]), width)
    with ArrayWriter(folder, name, shapes, {"kind": KIND}) as writer:
        for key, array in known.items():
            writer.write(key, 0, array)
        row = 0
        for piece in pieces:
            writer.write("features", row, piece)
            row += len(piece)
        return FileEntry.of(folder, name, writer.finish())
