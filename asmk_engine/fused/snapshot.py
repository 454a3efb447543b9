"""A snapshot of a fused index: one commit, whose segments have one table of images and a part for each kind."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from asmk_engine.errors import DamagedError
from asmk_engine.fused.kinds import FeatureKind, read_kind
from asmk_engine.indexes import image_table
from asmk_engine.indexes.image_table import ImageTable, name_arrays
from asmk_engine.indexes.manifest import FileEntry, KindFile, Manifest, SegmentEntry, Written
from asmk_engine.indexes.snapshot import Commit, check_sizes, kept_parts, read_deleted, read_moved
from asmk_engine.inverted.snapshot import attach_geometry
from asmk_engine.recipes import Recipe
from asmk_engine.storage.arrays import ArrayFile, SharedArrays, map_arrays, write_arrays
from asmk_engine.storage.folder import Folder

TABLE = "asmk-engine image table"
FUSION = "fusion"
"""The extractor in the recipe of a fused index, whose options are the recipes of its kinds."""


@dataclass(frozen=True, eq=False)
class Fusion:
    """The encoders of a fused index: its kinds of features, in the order of the manifest."""

    kinds: tuple[FeatureKind, ...]

    @property
    def recipe(self) -> Recipe:
        """The recipes of all kinds, as one."""
        return Recipe(FUSION, {"kinds": [json.loads(kind.recipe.to_json()) for kind in self.kinds]})

    @property
    def fingerprint(self) -> str:
        """A sha256 of the fingerprints of all codebooks and codecs."""
        return hashlib.sha256(" ".join(kind.fingerprint for kind in self.kinds).encode()).hexdigest()


class FusedSegment(ImageTable):
    """The table of images of a segment, and its part of each kind of features.

    parts       a `Segment` or `GlobalSegment` for each kind, whose table is this one
    part_files  the files of the parts
    """

    def __init__(self, file: ArrayFile, deleted: np.ndarray | None, moved: np.ndarray | None) -> None:
        super().__init__(file, len(file.take("fingerprints", "u8", None)), deleted, moved)
        if not self.is_outlined() or self.images >= image_table.MAX_IMAGES:
            raise DamagedError(f"{self.path}: its tables contradict each other; the file was altered, restore a copy")
        self.part_files: tuple[ArrayFile, ...] = ()
        self.parts: tuple[Any, ...] = ()


class FusedSnapshot(Commit[Fusion, FusedSegment]):
    """One commit of a fused index, mapped and immutable."""

    @functools.cached_property
    def views(self) -> tuple[Commit[Any, Any], ...]:
        """For each kind the commit that an index of this kind alone would have, with segments in the same order."""
        kinds = zip(self.encoder.kinds, self.manifest.kinds, strict=True)
        return tuple(
            kind.view(self.manifest, entry, [segment.parts[number] for segment in self.segments])
            for number, (kind, entry) in enumerate(kinds)
        )

    def lacking(self, place: tuple[int, int]) -> tuple[bool, ...]:
        """Return for each kind whether the image at a place returned by `find` has no features of it."""
        parts = zip(self.encoder.kinds, self.segments[place[0]].parts, strict=True)
        return tuple(bool(kind.lacks(part)[place[1]]) for kind, part in parts)


def read_fusion(folder: Folder, manifest: Manifest) -> Fusion:
    """Read the codebooks and codecs of a commit; raises as `map_fused_snapshot`."""
    return Fusion(tuple(read_kind(folder, entry) for entry in manifest.kinds))


def map_fused_snapshot(folder: Folder, manifest: Manifest, known: FusedSnapshot | None) -> FusedSnapshot:
    """Map one commit, reusing what it shares with `known`.

    Raises NotFoundError if a file is missing, and DamagedError if a file contradicts the manifest.
    """
    kept = _kept(folder, manifest, known) if known else {}
    kinds = tuple(kept.get(entry.encoder) or read_kind(folder, entry) for entry in manifest.kinds)
    fusion = known.encoder if known and known.encoder.kinds == kinds else Fusion(kinds)
    segments = tuple(kept.get(entry) or map_fused_segment(folder, entry, fusion, kept) for entry in manifest.segments)
    return FusedSnapshot(manifest, fusion, segments)


def _kept(folder: Folder, manifest: Manifest, known: FusedSnapshot) -> dict[Any, Any]:
    """Return by entry what a commit shares with an earlier one: kinds, segments, mapped files."""
    kept = kept_parts(folder, manifest, known)
    if kept:
        for entry, segment in zip(known.manifest.segments, known.segments, strict=True):
            kept |= {part.file: file for part, file in zip(entry.kinds, segment.part_files, strict=True)}
            kept |= {
                stored.geometry: part.geometry_file
                for stored, part in zip(entry.kinds, segment.parts, strict=True)
                if stored.geometry
            }
        entries = [entry.encoder for entry in known.manifest.kinds]
        kept |= dict(zip(entries, known.encoder.kinds, strict=True))
    return kept


def map_fused_segment(
    folder: Folder, entry: SegmentEntry, fusion: Fusion, kept: Mapping[Any, Any] = MappingProxyType({})
) -> FusedSegment:
    """Map a segment of a commit with its deletions; raises as `map_fused_snapshot`.

    kept  files by entry that are mapped already
    """
    segment = map_table(folder, entry, kept)
    pairs = list(zip(fusion.kinds, entry.kinds, strict=True))
    segment.part_files = tuple(_mapped(folder, stored.file, kept) for _, stored in pairs)
    segment.parts = tuple(
        map_part(segment, kind, file, stored) for (kind, stored), file in zip(pairs, segment.part_files, strict=True)
    )
    for (kind, stored), part in zip(pairs, segment.parts, strict=True):
        if stored.geometry is not None:
            attach_geometry(folder, part, stored.geometry, kind.encoder, kept)
    return segment


def map_table(folder: Folder, entry: SegmentEntry, kept: Mapping[Any, Any] = MappingProxyType({})) -> FusedSegment:
    """Map the table of images of a segment, without its parts; raises as `map_fused_snapshot`."""
    deleted, moved = read_deleted(folder, entry), read_moved(folder, entry)
    segment = FusedSegment(_mapped(folder, entry.file, kept), deleted, moved)
    check_sizes(segment, entry, sum(part.entries for part in entry.kinds))
    return segment


def map_part(table: FusedSegment, kind: FeatureKind, file: ArrayFile, entry: KindFile) -> Any:
    """Return the part of a kind in a mapped file; raises DamagedError unless it agrees with the manifest."""
    part = kind.map(SharedArrays.of(file, table.file), table.deleted, table.moved)
    found = part.file.size, getattr(part, "postings", part.images)
    if found != (entry.file.bytes, entry.entries):
        raise DamagedError(f"{part.path}: bytes and entries are {found}, not as in the manifest; restore a copy")
    return part


def _mapped(folder: Folder, entry: FileEntry, kept: Mapping[Any, Any]) -> ArrayFile:
    file: ArrayFile | None = kept.get(entry)
    return file or map_arrays(folder, entry.name, entry.checksum)


def write_table(
    folder: Folder, name: str, names: Sequence[bytes], fingerprints: np.ndarray, roots: np.ndarray | None
) -> Written:
    """Write the table of images of a segment; raises InputError for a name that is there twice."""
    arrays = {**name_arrays(names, roots), "fingerprints": fingerprints}
    return Written(write_arrays(folder, name, arrays, {"kind": TABLE}), len(names), 0)


def part_name(table: str, number: int) -> str:
    """Return the name of the file of a kind, numbered from 1, by the name of the table of its segment."""
    return f"{table.removesuffix('.safetensors')}-{number}.safetensors"
