"""The signatures, and the geometry if it is kept, collected in memory for the next segment."""

from __future__ import annotations

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError
from asmk_engine.inverted.geometry_file import PackedGeometry, row_digest, without_angles
from asmk_engine.inverted.geometry_writer import SegmentGeometry
from asmk_engine.inverted.regional import Regional
from asmk_engine.inverted.segment_writer import Contents
from asmk_engine.inverted.signatures import Signature, code_width

FIRST_ROOM = 1 << 12
MEBIBYTE = 1 << 20
# Memory of indexing without postings and codebook: the program, a part of the features, pieces of lists being written.
BESIDE = 400 * MEBIBYTE
CODEBOOK_COPIES = 2  # the codebook itself, and the data derived from it for assignment
LEAST_POSTINGS = 1 << 20


def postings_within(memory: int, codebook: Codebook) -> int:
    """Return the number of postings to hold in memory so that indexing uses at most `memory` bytes.

    This includes the program, the codebook and intermediate merges, but not some 200 bytes per added image. Raises
    InputError, with the required minimum, if `memory` is too small.
    """
    each = posting_bytes(code_width(codebook.dim))
    beside = BESIDE + CODEBOOK_COPIES * sum(array.nbytes for array in codebook.arrays().values())
    least = -(-(beside + LEAST_POSTINGS * each) // MEBIBYTE)
    if memory < least * MEBIBYTE:
        raise InputError(
            f"{memory // MEBIBYTE} MiB of memory were allowed, indexing with {codebook.words} words needs at least "
            f"{least} MiB; allow {least}M or more"
        )
    return (memory - beside) // each


def posting_bytes(width: int) -> int:
    """Return the bytes of a posting in memory: its word, image, position in the order, and code."""
    return 16 + 8 * width


def in_postings(features: int, row_bytes: int, width: int) -> int:
    """Return how many postings with codes of `width` take the memory of the geometry of so many features."""
    return features * row_bytes // posting_bytes(width)


class Batch:
    """Named images with codes of `width` 64-bit words; their postings are concatenated in growing arrays.

    row_bytes  bytes of a feature without angle in the geometry, which is collected as well; 0 without
    names      names of the images, in the order in which they were added
    postings   number of postings
    separate   whether an image can have several entries
    """

    def __init__(self, width: int, row_bytes: int = 0, *, separate: bool = False) -> None:
        self.width, self.row_bytes, self.separate = width, row_bytes, separate
        self.names: list[str] = []
        self.postings = 0
        self._fingerprints: list[int] = []
        self._roots: list[int] = []
        self._counts: list[int] = []
        self._entries: list[int] = []
        self._words = np.empty(FIRST_ROOM, np.uint32)
        self._codes = np.empty((FIRST_ROOM, width), np.uint64)
        self._geometry = GeometryBatch(row_bytes) if row_bytes else None

    @property
    def size(self) -> int:
        """The memory that is taken, counted in postings: the number of them, and what the geometry takes."""
        if self._geometry is None:
            return self.postings
        return self.postings + in_postings(self._geometry.features, self._geometry.row_bytes, self.width)

    def append(
        self,
        name: str,
        signatures: Signature | Regional,
        fingerprint: int,
        root: int = 0,
        geometry: PackedGeometry | None = None,
    ) -> None:
        """Add one image with its signature, or those of its entries; `root` is the number of its root, 0 for none."""
        if self._geometry is not None:
            self._geometry.append(geometry)
        entries = [signatures] if isinstance(signatures, Signature) else signatures
        for signature in entries:
            self._append(signature)
        self.names.append(name)
        self._fingerprints.append(fingerprint)
        self._roots.append(root)
        self._entries.append(len(entries))

    def _append(self, signature: Signature) -> None:
        rows = slice(self.postings, self.postings + len(signature))
        if rows.stop > len(self._words):
            room = max(rows.stop, 2 * len(self._words))
            self._words, self._codes = (_grown(array, rows.start, room) for array in (self._words, self._codes))
        self._words[rows], self._codes[rows] = signature.words, signature.codes
        self._counts.append(len(signature))
        self.postings = rows.stop

    def contents(self) -> Contents:
        """Return the contents of a segment of all added images, numbered in order."""
        return Contents(
            [name.encode() for name in self.names],
            np.array(self._fingerprints, np.uint64),
            self._words[: self.postings],
            np.repeat(np.arange(len(self._counts), dtype=np.uint32), self._counts),
            self._codes[: self.postings],
            np.array(self._roots, np.uint32),
            None if self._geometry is None else self._geometry.contents(),
            np.array(self._entries, np.int64) if self.separate else None,
        )


class GeometryBatch:
    """The geometry of images, whose rows are concatenated in a growing array.

    features  number of rows
    """

    @property
    def row_bytes(self) -> int:
        """Bytes of a row: one more than at first once a feature has an angle."""
        return self._rows.shape[1]

    def __init__(self, row_bytes: int) -> None:
        self.features = 0
        self._counts: list[int] = []
        self._sizes: list[tuple[int, int]] = []
        self._digests: list[int] = []
        self._rows = np.empty((FIRST_ROOM, row_bytes), np.uint8)

    def append(self, geometry: PackedGeometry | None) -> None:
        """Add one image, None for one without geometry."""
        if geometry is None:
            geometry = PackedGeometry(self._rows[:0], (0, 0), 0)  # the crc32 of nothing is 0
        if geometry.rows.shape[1] > self.row_bytes:
            self._widen(geometry.rows.shape[1])
        elif geometry.rows.shape[1] < self.row_bytes:
            geometry = geometry.widened(self.row_bytes)
        rows = slice(self.features, self.features + len(geometry))
        if rows.stop > len(self._rows):
            self._rows = _grown(self._rows, rows.start, max(rows.stop, 2 * len(self._rows)))
        self._rows[rows] = geometry.rows
        self._counts.append(len(geometry))
        self._sizes.append(geometry.size)
        self._digests.append(geometry.digest)
        self.features = rows.stop

    def _widen(self, width: int) -> None:
        """Give all rows `width` bytes, as the first image whose features have angles needs."""
        self._rows = without_angles(self._rows[: self.features], width)
        images = np.split(self._rows, np.cumsum(self._counts)[:-1]) if self._counts else []
        self._digests = [row_digest(rows) for rows in images]

    def contents(self) -> SegmentGeometry:
        """Return the geometry of all added images, in order."""
        sizes = np.array(self._sizes, np.uint32).reshape(-1, 2)
        counts, digests = np.array(self._counts, np.int64), np.array(self._digests, np.uint32)
        return SegmentGeometry(counts, sizes, digests, self._rows[: self.features])


def _grown(array: np.ndarray, rows: int, room: int) -> np.ndarray:
    """Return an array of `room` rows that starts with `rows` of another; the rest takes no memory until it is used."""
    grown = np.empty((room, *array.shape[1:]), array.dtype)
    grown[:rows] = array[:rows]
    return grown
