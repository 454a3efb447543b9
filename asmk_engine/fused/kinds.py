"""What a kind of features stores in the segments of a fused index: postings under a codebook, or vectors of a codec.

Each kind reads and writes the files that an index of this kind alone would have, without the table of images, which all
kinds share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.errors import InputError
from asmk_engine.features import FeatureSource, label
from asmk_engine.flat.codec import Codec
from asmk_engine.flat.index import BATCH_SIZE
from asmk_engine.flat.index import check_fits as check_fits_codec
from asmk_engine.flat.segment import CHUNK_BYTES, GlobalSegment, merge_global_segments, write_vectors
from asmk_engine.flat.snapshot import GlobalSnapshot, read_codec, write_codec
from asmk_engine.indexes.manifest import GLOBAL_KIND, KIND, FileEntry, KindEntry, Manifest, Written
from asmk_engine.indexes.snapshot import Commit
from asmk_engine.inverted.batch import Batch, in_postings
from asmk_engine.inverted.encoding import encode_many
from asmk_engine.inverted.geometry_file import row_type
from asmk_engine.inverted.geometry_writer import merge_geometry, write_geometry
from asmk_engine.inverted.index import check_fits as check_fits_codebook
from asmk_engine.inverted.merging import merge_segments
from asmk_engine.inverted.segment import Segment
from asmk_engine.inverted.segment_writer import Contents, write_segment
from asmk_engine.inverted.signatures import Signature, code_width
from asmk_engine.inverted.snapshot import Snapshot, read_codebook, write_codebook
from asmk_engine.recipes import Recipe
from asmk_engine.storage.arrays import ArrayFile
from asmk_engine.storage.folder import Folder

ABSENT = "absent"
"""The array of a file of vectors with one bit for each image that has none; missing if all have one."""
POSTING_BYTES = 24
"""Bytes of a posting in memory, by which vectors are counted as postings where a segment is filled."""


class FeatureKind(Protocol):
    """A kind of features in a fused index, see `LocalKind` and `GlobalKind`; `read_kind` makes one of its file."""

    kind: str

    @property
    def encoder(self) -> Any:
        """The codebook or codec."""

    @property
    def recipe(self) -> Recipe:
        """The recipe of the features."""

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the codebook or codec."""

    def write_encoder(self, folder: Folder) -> FileEntry:
        """Write the codebook or codec."""

    def check_fits(self, features: FeatureSource, where: Any) -> None:
        """Raise MismatchError or InputError unless the features can be added to the index at `where`."""

    def size(self, features: FeatureSource, name: str, geometry: int | None) -> int:
        """Return what an image takes in memory, counted in postings; `geometry` as in the manifest."""

    def load(self, features: FeatureSource, names: Sequence[str], held: frozenset[str], geometry: int | None) -> Any:
        """Encode the images `names`, in this order, for a segment; those not in `held` have no features."""

    def nothing(self, images: int) -> Any:
        """Return what `load` returns for images that have no features of this kind."""

    def write(self, folder: Folder, name: str, contents: Any) -> Written:
        """Write what `load` returned to the file `name`."""

    def map(self, file: ArrayFile, deleted: np.ndarray | None, moved: np.ndarray | None) -> Any:
        """Return the mapped segment; `file` has the arrays of the table of images too."""

    def join(self, folder: Folder, name: str, parts: Sequence[Any], deleted: Sequence[np.ndarray | None]) -> Written:
        """Write the images of mapped segments that are not in `deleted` as one segment."""

    def lacks(self, part: Any) -> np.ndarray:
        """Return which images of a mapped segment have no features of this kind, [images] bool."""

    def view(self, manifest: Manifest, entry: KindEntry, parts: Sequence[Any]) -> Commit[Any, Any]:
        """Return the commit that an index of this kind alone would have; `manifest` is that of the fused index."""


@dataclass(frozen=True, eq=False)
class LocalKind:
    """Local features: a codebook, and postings for each segment."""

    encoder: Codebook
    kind = KIND

    @property
    def recipe(self) -> Recipe:
        """The recipe of the features."""
        return self.encoder.recipe

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the codebook."""
        return self.encoder.fingerprint

    def write_encoder(self, folder: Folder) -> FileEntry:
        """Write the codebook."""
        return write_codebook(folder, self.encoder)

    def check_fits(self, features: FeatureSource, where: Any) -> None:
        """Raise MismatchError unless recipe and dimension are those of the codebook."""
        check_fits_codebook(features, self.encoder, where)

    def size(self, features: FeatureSource, name: str, geometry: int | None) -> int:
        """Return the number of features, which is that of the postings at most, and what their geometry takes."""
        count = features.count(name)
        placed = 0 if geometry is None else min(count, geometry)
        return count + in_postings(placed, self._row_bytes, code_width(self.encoder.dim))

    def load(
        self, features: FeatureSource, names: Sequence[str], held: frozenset[str], geometry: int | None
    ) -> Contents:
        """Sign the images; an image without features has no postings, and one that is not held no geometry."""
        width = code_width(self.encoder.dim)
        nothing = Signature(np.empty(0, np.uint32), np.empty((0, width), np.uint64), self.encoder.dim), None
        images = features.images([name for name in names if name in held])
        encoded = {name: (signed, placed) for name, signed, placed in encode_many(images, self.encoder, geometry)}
        batch = Batch(width, 0 if geometry is None else self._row_bytes)
        for name in names:
            signature, packed = encoded.pop(name, nothing)
            batch.append(name, signature, 0, geometry=packed)
        return batch.contents()

    @property
    def _row_bytes(self) -> int:
        return row_type(self.encoder.dim, self.encoder.words).itemsize

    def nothing(self, images: int) -> Contents:
        """Return no postings."""
        none = np.empty(0, np.uint32)
        codes = np.empty((0, code_width(self.encoder.dim)), np.uint64)
        return Contents([b""] * images, np.zeros(images, np.uint64), none, none, codes)

    def write(self, folder: Folder, name: str, contents: Contents) -> Written:
        """Write postings, and the geometry beside them."""
        written = write_segment(folder, name, contents, self.encoder.words, with_table=False)
        return replace(written, geometry=write_geometry(folder, name, contents.geometry))

    def map(self, file: ArrayFile, deleted: np.ndarray | None, moved: np.ndarray | None) -> Segment:
        """Map postings."""
        return Segment(file, self.encoder.words, code_width(self.encoder.dim), deleted, moved)

    def join(
        self, folder: Folder, name: str, parts: Sequence[Segment], deleted: Sequence[np.ndarray | None]
    ) -> Written:
        """Join postings, a few words at a time, and geometry."""
        written = merge_segments(folder, name, parts, self.encoder.words, with_table=False)
        return replace(written, geometry=merge_geometry(folder, name, parts))

    def lacks(self, part: Segment) -> np.ndarray:
        """Return which images have no words."""
        lacking: np.ndarray = part.word_counts == 0
        return lacking

    def view(self, manifest: Manifest, entry: KindEntry, parts: Sequence[Segment]) -> Snapshot:
        """Return the commit of an ASMK index."""
        return Snapshot(_alone(manifest, entry), self.encoder, tuple(parts))


@dataclass(frozen=True)
class StoredVectors:
    """The vectors of a segment in memory: [I, W] as stored, and which images have none, [I] bool."""

    stored: np.ndarray
    absent: np.ndarray


@dataclass(frozen=True, eq=False)
class GlobalKind:
    """Global descriptors: a codec, and a vector for each image of a segment; zeros stand for one that is missing."""

    encoder: Codec
    kind = GLOBAL_KIND

    @property
    def recipe(self) -> Recipe:
        """The recipe of the descriptors."""
        return self.encoder.recipe

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the codec."""
        return self.encoder.fingerprint

    def write_encoder(self, folder: Folder) -> FileEntry:
        """Write the codec."""
        return write_codec(folder, self.encoder)

    def check_fits(self, features: FeatureSource, where: Any) -> None:
        """Raise MismatchError unless recipe and dimension are those of the codec, InputError for a second descriptor.

        An image with none is one without features of this kind.
        """
        check_fits_codec(features, self.encoder, where)
        many = next((name for name in features.names if features.count(name) > 1), None)
        if many is not None:
            raise InputError(
                f"{label(features)}: {many!r} has {features.count(many)} descriptors, a global kind takes at most one "
                "per image; extract it again with a global extractor"
            )

    def size(self, features: FeatureSource, name: str, geometry: int | None) -> int:
        """Return the bytes of a vector in postings."""
        return -(-self.encoder.width * self.encoder.dtype.itemsize // POSTING_BYTES)

    def load(
        self, features: FeatureSource, names: Sequence[str], held: frozenset[str], geometry: int | None
    ) -> StoredVectors:
        """Encode the descriptors, `BATCH_SIZE` images at a time."""
        rows = {name: row for row, name in enumerate(names)}
        empty = self.nothing(len(names))
        stored, absent = empty.stored, empty.absent
        waiting: list[tuple[int, np.ndarray]] = []
        for name, image in features.images([name for name in names if name in held]):
            if len(image):
                waiting.append((rows[name], image.descriptors))
            if len(waiting) == BATCH_SIZE:
                self._encode(waiting, stored, absent)
        self._encode(waiting, stored, absent)
        return empty

    def nothing(self, images: int) -> StoredVectors:
        """Return zeros for vectors that are missing."""
        return StoredVectors(np.zeros((images, self.encoder.width), self.encoder.dtype), np.ones(images, bool))

    def _encode(self, waiting: list[tuple[int, np.ndarray]], stored: np.ndarray, absent: np.ndarray) -> None:
        if waiting:
            rows = [row for row, _ in waiting]
            stored[rows] = self.encoder.encode(self.encoder.apply(np.concatenate([image for _, image in waiting])))
            absent[rows] = False
            waiting.clear()

    def write(self, folder: Folder, name: str, contents: StoredVectors) -> Written:
        """Write vectors."""
        return write_vectors(folder, name, contents.stored, _absent_array(contents.absent))

    def map(self, file: ArrayFile, deleted: np.ndarray | None, moved: np.ndarray | None) -> GlobalSegment:
        """Map vectors; an image without one counts as deleted, so that no search returns it."""
        part = GlobalSegment(file, self.encoder, deleted, moved)
        if ABSENT in file.arrays:
            file.take(ABSENT, "u1", (part.images + 7) // 8)
            absent = self.lacks(part)
            part.deleted = absent if deleted is None else absent | deleted
        return part

    def join(
        self, folder: Folder, name: str, parts: Sequence[GlobalSegment], deleted: Sequence[np.ndarray | None]
    ) -> Written:
        """Join vectors, those that stand for missing ones too, since the rows are the numbers of the images."""
        lacking = [self.lacks(part) for part in parts]
        whole = [_with_deleted(part, gone) for part, gone in zip(parts, deleted, strict=True)]
        absent = [one[part.live_numbers()] for one, part in zip(lacking, whole, strict=True)]
        more = _absent_array(np.concatenate(absent))
        return merge_global_segments(folder, name, whole, CHUNK_BYTES, with_table=False, more=more)

    def lacks(self, part: GlobalSegment) -> np.ndarray:
        """Return which images have no vector."""
        if ABSENT not in part.file.arrays:
            return np.zeros(part.images, bool)
        return np.unpackbits(part.file.verified(ABSENT), bitorder="little").astype(bool)[: part.images]

    def view(self, manifest: Manifest, entry: KindEntry, parts: Sequence[GlobalSegment]) -> GlobalSnapshot:
        """Return the commit of a global index."""
        return GlobalSnapshot(_alone(manifest, entry), self.encoder, tuple(parts))


def kind_of(encoder: Codebook | Codec) -> FeatureKind:
    """Return the kind of features that a codebook or a codec is for."""
    return GlobalKind(encoder) if isinstance(encoder, Codec) else LocalKind(encoder)


def read_kind(folder: Folder, entry: KindEntry) -> FeatureKind:
    """Read the codebook or codec of a kind; raises as `map_snapshot`."""
    if entry.kind == GLOBAL_KIND:
        return GlobalKind(read_codec(folder, entry.encoder))
    return LocalKind(read_codebook(folder, entry.encoder))


def _with_deleted(part: GlobalSegment, deleted: np.ndarray | None) -> GlobalSegment:
    """Return a mapped segment with other deletions."""
    other: GlobalSegment = part.with_prefix(part.prefix)  # a copy
    other.deleted = deleted
    return other


def _absent_array(absent: np.ndarray) -> dict[str, np.ndarray]:
    return {ABSENT: np.packbits(absent, bitorder="little")} if absent.any() else {}


def _alone(manifest: Manifest, entry: KindEntry) -> Manifest:
    """Return the manifest of one kind of features, without segments, which have no entries of their own."""
    return replace(manifest, kind=entry.kind, encoder=entry.encoder, network=entry.network, segments=(), kinds=())
