"""A segment of a global index: stored vectors of images, mapped read-only.

vectors [I, W]   float32, float16, or uint8 centroid numbers, see `codec`
names and fingerprints   see asmk_engine/indexes/image_table.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from asmk_engine.errors import DamagedError, InputError
from asmk_engine.flat.codec import Codec
from asmk_engine.indexes import image_table
from asmk_engine.indexes.image_table import ImageTable, joined_facts, joined_names, name_arrays
from asmk_engine.indexes.manifest import SegmentEntry, Written
from asmk_engine.indexes.snapshot import check_sizes, read_deleted, read_moved
from asmk_engine.storage.arrays import ArrayFile, ArrayWriter, map_arrays, write_arrays
from asmk_engine.storage.folder import Folder

KIND = "asmk-engine global segment"
CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class VectorContents:
    """The images of a segment, in memory.

    names         [I], in UTF-8
    fingerprints  [I] uint64
    vectors       [I, W], in the stored form of the codec
    roots         [I], numbers in the root table of the manifest, or None if no root is known
    """

    names: Sequence[bytes]
    fingerprints: np.ndarray
    vectors: np.ndarray
    roots: np.ndarray | None = None


class GlobalSegment(ImageTable):
    """A mapped segment with its deletions.

    vectors  [I, W], not verified; use `rows`
    """

    def __init__(
        self, file: ArrayFile, codec: Codec, deleted: np.ndarray | None, moved: np.ndarray | None = None
    ) -> None:
        self.vectors = file.take("vectors", codec.dtype.str, None, codec.width)
        super().__init__(file, len(self.vectors), deleted, moved)
        if not self.is_outlined() or self.images >= image_table.MAX_IMAGES:
            raise DamagedError(f"{self.path}: its tables contradict each other; the file was altered, restore a copy")

    def rows(self, begin: int, end: int) -> np.ndarray:
        """Return stored vectors `begin` to `end` (exclusive), verified once; raises DamagedError if altered."""
        self.file.verify_rows("vectors", begin, end)
        return self.vectors[begin:end]

    def rows_of(self, numbers: np.ndarray) -> np.ndarray:
        """Return the stored vectors of these images, [n, W], verified as in `rows`."""
        self.file.verify_spans("vectors", numbers, numbers + 1)
        return self.vectors[numbers]

    def blocks(self, size: int) -> Iterator[tuple[int, int]]:
        """Divide the images into blocks of at most `size` bytes; yields first and last (exclusive) image of each."""
        each = max(1, size // max(1, self.vectors.itemsize * self.vectors.shape[1]))
        return ((begin, min(begin + each, self.images)) for begin in range(0, self.images, each))


def map_global_segment(
    folder: Folder, entry: SegmentEntry, codec: Codec, kept: Mapping[Any, Any] = MappingProxyType({})
) -> GlobalSegment:
    """Map a segment of a commit with its deletions.

    kept  files by entry that are mapped already
    """
    file = kept.get(entry.file) or map_arrays(folder, entry.file.name, entry.file.checksum)
    segment = GlobalSegment(file, codec, read_deleted(folder, entry), read_moved(folder, entry))
    check_sizes(segment, entry, segment.images)
    return segment


def write_global_segment(folder: Folder, name: str, contents: VectorContents) -> Written:
    """Write a segment to the file `name` in the folder."""
    images = len(contents.names)
    _check_count(folder, images)
    names = name_arrays(contents.names, contents.roots)
    arrays = {"vectors": contents.vectors, "fingerprints": contents.fingerprints, **names}
    return Written(write_arrays(folder, name, arrays, {"kind": KIND}), images, images)


def write_vectors(folder: Folder, name: str, vectors: np.ndarray, more: Mapping[str, np.ndarray]) -> Written:
    """Write vectors [I, W] and further arrays without a table of images, which a fused index keeps in another file."""
    _check_count(folder, len(vectors))
    checksum = write_arrays(folder, name, {"vectors": vectors, **more}, {"kind": KIND})
    return Written(checksum, len(vectors), len(vectors))


def merge_global_segments(
    folder: Folder,
    name: str,
    merged: Sequence[GlobalSegment],
    chunk_bytes: int,
    *,
    with_table: bool = True,
    more: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> Written:
    """Write the live images of the segments, in order, as one new segment, a few MiB at a time.

    Raises DamagedError if a segment was altered: altered data must not get new, valid checksums.

    with_table  whether the file has the table of the images, which a fused index keeps in another file
    more        arrays of such a file besides the vectors
    """
    for segment in merged:
        segment.file.verify()
    live = [segment.live_numbers() for segment in merged]
    images = sum(map(len, live))
    _check_count(folder, images)
    known = more
    if with_table:
        prints, roots = joined_facts(merged)
        known = {**name_arrays(joined_names(merged), roots), "fingerprints": prints}
    shapes = {key: (array.dtype, array.shape) for key, array in known.items()}
    first = merged[0].vectors
    shapes["vectors"] = (first.dtype, (images, first.shape[1]))
    with ArrayWriter(folder, name, shapes, {"kind": KIND}) as writer:
        for key, array in known.items():
            writer.write(key, 0, array)
        row = 0
        for rows in _live_rows(merged, live, chunk_bytes):
            writer.write("vectors", row, rows)
            row += len(rows)
        return Written(writer.finish(), images, images)


def _live_rows(merged: Sequence[GlobalSegment], live: Sequence[np.ndarray], chunk_bytes: int) -> Iterator[np.ndarray]:
    for segment, numbers in zip(merged, live, strict=True):
        each = max(1, chunk_bytes // max(1, segment.vectors.itemsize * segment.vectors.shape[1]))
        for begin in range(0, len(numbers), each):
            yield segment.vectors[numbers[begin : begin + each]]


def _check_count(folder: Folder, images: int) -> None:
    if images >= image_table.MAX_IMAGES:
        raise InputError(
            f"{folder.path}: {images} images are too many for one segment, which holds fewer than "
            f"{image_table.MAX_IMAGES}; keep several indexes"
        )


def vector_problems(segment: GlobalSegment) -> Iterator[str]:
    """Yield problems of the vectors of a segment with valid checksums: values not finite, or a length that is not 1."""
    if segment.vectors.dtype == np.uint8:
        return
    for begin, end in segment.blocks(CHUNK_BYTES):
        rows = segment.rows(begin, end).astype(np.float64)
        lengths = np.einsum("ij,ij->i", rows, rows)
        wrong = np.flatnonzero(~((lengths < 1.01) & ((lengths > 0.99) | (lengths == 0))))
        if len(wrong):
            yield f"the vector of image {begin + int(wrong[0])} is not of length 1"
            return
