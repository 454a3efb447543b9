"""A commit of an index of any kind: the manifest and the mapped files that it names."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from asmk_engine.errors import DamagedError, FormatError, NotFoundError
from asmk_engine.features import Identities
from asmk_engine.images.roots import UNKNOWN, Root
from asmk_engine.indexes.image_table import ROOTS, ImageTable
from asmk_engine.indexes.manifest import FUSED_KIND, GLOBAL_KIND, KIND, FileEntry, Manifest, SegmentEntry, read_manifest
from asmk_engine.storage.arrays import BLOCK, CHECKSUMS, ArrayFile, map_arrays, write_arrays
from asmk_engine.storage.folder import Folder

Encoder = TypeVar("Encoder")
Part = TypeVar("Part", bound=ImageTable)
View = TypeVar("View")
_CONTENT = {
    KIND: "an index of local features (open it with Index)",
    GLOBAL_KIND: "a global index (open it with GlobalIndex)",
    FUSED_KIND: "an index of several kinds of features (open it with FusedIndex)",
}


@dataclass(frozen=True)
class Identity:
    """The root of an image and the fingerprint of its content, 0 if unknown."""

    root: Root
    fingerprint: int


@dataclass(frozen=True, eq=False)
class Commit(Generic[Encoder, Part]):
    """One commit of an index, mapped and immutable.

    encoder  the codebook, or the codec of a global index
    """

    manifest: Manifest
    encoder: Encoder
    segments: tuple[Part, ...]

    @property
    def images(self) -> int:
        """Number of images that are not deleted."""
        return sum(segment.live for segment in self.segments)

    def find(self, name: str) -> tuple[int, int] | None:
        """Return segment position and image number of a live image, or None."""
        return self.find_all([name]).get(name)

    def identity(self, place: tuple[int, int]) -> Identity:
        """Return root and fingerprint of the image at a place returned by `find`."""
        found = self.identities([place])
        return Identity(found.roots[int(found.numbers[0])], int(found.fingerprints[0]))

    def identities(self, places: Sequence[tuple[int, int]]) -> Identities:
        """Return roots and fingerprints of the images at these places, as arrays; see `features.Identities`."""
        pairs = np.array(places, np.int64).reshape(-1, 2)
        fingerprints, numbers = np.zeros(len(pairs), np.uint64), np.zeros(len(pairs), np.int64)
        for place in np.unique(pairs[:, 0]).tolist():
            here, segment = pairs[:, 0] == place, self.segments[place]
            fingerprints[here] = segment.fingerprints[pairs[here, 1]]
            numbers[here] = self._known_numbers(segment.root_numbers[pairs[here, 1]])
        return Identities(fingerprints, (UNKNOWN, *self.manifest.roots), numbers)

    def _known_numbers(self, numbers: np.ndarray) -> np.ndarray:
        """Replace root numbers that are not in the table of the manifest by 0, unknown."""
        return np.where(numbers <= len(self.manifest.roots), numbers, 0)

    def origins(self) -> list[tuple[str, Root]]:
        """Return name and root of every live image, segment by segment."""
        table, found = (UNKNOWN, *self.manifest.roots), []
        for segment in self.segments:
            live = segment.live_numbers()
            names = segment.names_as_bytes(live)
            numbers = self._known_numbers(segment.root_numbers[live]).tolist()
            found += [(name.decode(), table[number]) for name, number in zip(names, numbers, strict=True)]
        return found

    def root_counts(self) -> dict[Root, int]:
        """Return the number of live images of each known root that has any."""
        counts = np.zeros(len(self.manifest.roots) + 1, np.int64)
        for segment in self.segments:
            numbers = self._known_numbers(segment.root_numbers[segment.live_numbers()])
            counts += np.bincount(numbers, minlength=len(counts))
        return {root: int(count) for root, count in zip(self.manifest.roots, counts[1:], strict=True) if count}

    def names(self) -> Iterator[str]:
        """Iterate over the names of all live images, segment by segment."""
        return (name for segment in self.segments for name in segment.names())

    def find_all(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return segment position and image number of those names that are live images, in the order of the names."""
        return self._found(names, of_deleted=False)

    def find_deleted(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return the place, as `find_all`, of the last deleted image of each of those names that has one in a segment.

        The last of several is the one added last: only live images are ever moved to a later segment.
        """
        return self._found(names, of_deleted=True)

    def _found(self, names: Iterable[str], of_deleted: bool) -> dict[str, tuple[int, int]]:
        wanted = list(names)
        places = np.full((len(wanted), 2), -1)
        for place, segment in enumerate(self.segments):
            numbers = segment.find(wanted)
            found = np.flatnonzero(numbers >= 0)
            if segment.deleted is not None:
                found = found[segment.deleted[numbers[found]] == of_deleted]
            elif of_deleted:
                continue
            places[found, 0], places[found, 1] = place, numbers[found]
        there = np.flatnonzero(places[:, 0] >= 0)
        rows = places[there].tolist()
        return {wanted[i]: (place, number) for i, (place, number) in zip(there.tolist(), rows, strict=True)}


def open_commit(folder: Folder, kind: str, mapped: Callable[[Manifest], View]) -> View:
    """Map the last commit, retrying with a newer one if a writer removed a file in the meantime.

    Raises FormatError for an index of the other kind, and DamagedError if a file of the last commit is missing.

    kind    the expected kind
    mapped  maps one commit, and raises NotFoundError if a file is missing
    """
    manifest = read_manifest(folder)
    while True:
        if manifest.kind != kind:
            raise FormatError(f"{folder.path}: found {_CONTENT[manifest.kind]}, expected {_CONTENT[kind]}")
        try:
            return mapped(manifest)
        except NotFoundError as error:
            newer = read_manifest(folder)
            if newer.commit == manifest.commit:
                raise DamagedError(f"{error}; the manifest lists it: restore a copy of the index") from None
            manifest = newer


ReadEncoder = Callable[[Folder, FileEntry], Encoder]
MapPart = Callable[[Folder, SegmentEntry, Encoder, Mapping[Any, Any]], Part]


def mapped_parts(
    folder: Folder,
    manifest: Manifest,
    known: Commit[Encoder, Part] | None,
    read_encoder: ReadEncoder[Encoder],
    map_part: MapPart[Encoder, Part],
) -> tuple[Manifest, Encoder, tuple[Part, ...]]:
    """Map the encoder and the segments of a commit.

    Raises NotFoundError if a file is missing, and DamagedError if one contradicts the manifest.

    known  an earlier commit, whose encoder, segments and files are reused where they are the same
    """
    kept = kept_parts(folder, manifest, known) if known else {}
    encoder: Encoder = kept.get(manifest.encoder) or read_encoder(folder, manifest.encoder)
    segments = tuple(kept.get(entry) or map_part(folder, entry, encoder, kept) for entry in manifest.segments)
    return manifest, encoder, segments


def kept_parts(folder: Folder, manifest: Manifest, known: Commit[Encoder, Part]) -> dict[Any, Any]:
    """Return by entry what a commit shares with an earlier one of the same index: encoder, segments, mapped files."""
    there = {*folder.names()}
    if known.manifest.identity != manifest.identity or not there.issuperset(e.name for e in manifest.files()):
        return {}
    segments = dict(zip(known.manifest.segments, known.segments, strict=True))
    files = {entry.file: segment.file for entry, segment in segments.items()}
    geometry = {entry.geometry: part.geometry_file for entry, part in segments.items() if entry.geometry}
    return {known.manifest.encoder: known.encoder, **segments, **files, **geometry}


def check_sizes(segment: ImageTable, entry: SegmentEntry, entries: int) -> None:
    """Raise DamagedError unless the sizes of a mapped segment with `entries` entries match the manifest."""
    found = (segment.file.size, segment.images, entries)
    if found != (entry.file.bytes, entry.images, entry.entries):
        raise DamagedError(f"{segment.path}: bytes, images and entries are {found}, not as in the manifest")


def read_deleted(folder: Folder, entry: SegmentEntry) -> np.ndarray | None:
    """Read the deletions of a segment, [images] bool, or None if there are none; raises as `map_snapshot`."""
    if entry.deleted is None:
        return None
    file = map_arrays(folder, entry.deleted.name, entry.deleted.checksum)
    file.verify()
    bits = file.take("deleted", "u1", (entry.images + 7) // 8)
    deleted = np.unpackbits(bits, bitorder="little").astype(bool)
    if file.size != entry.deleted.bytes or int(np.count_nonzero(deleted)) != entry.deleted_images:
        raise DamagedError(f"{file.path}: its deletions differ from the manifest; restore a copy")
    return deleted[: entry.images]


def read_moved(folder: Folder, entry: SegmentEntry) -> np.ndarray | None:
    """Read the changed root numbers of a segment, [images] uint32, or None if no image was found elsewhere."""
    if entry.moved is None:
        return None
    file = map_arrays(folder, entry.moved.name, entry.moved.checksum)
    file.verify()
    if file.size != entry.moved.bytes:
        raise DamagedError(f"{file.path}: has {file.size} bytes, the manifest says {entry.moved.bytes}; restore a copy")
    return file.take(ROOTS, "u4", entry.images)


def write_moved(folder: Folder, entry: SegmentEntry, numbers: np.ndarray, number: int) -> SegmentEntry:
    """Write the root numbers of a segment, [images], as file number `number`; returns the updated entry."""
    name = f"moved-{number:06d}.safetensors"
    checksum = write_arrays(folder, name, {ROOTS: numbers.astype(np.uint32)}, {"kind": "asmk-engine roots"})
    return replace(entry, moved=FileEntry.of(folder, name, checksum))


def write_deleted(folder: Folder, entry: SegmentEntry, deleted: np.ndarray, number: int) -> SegmentEntry:
    """Write the deletions of a segment, [images] bool, as file number `number`; returns the updated entry.

    A segment without deletions has no such file.
    """
    if not deleted.any():
        return replace(entry, deleted=None, deleted_images=0)
    name = f"deleted-{number:06d}.safetensors"
    arrays = {"deleted": np.packbits(deleted, bitorder="little")}
    checksum = write_arrays(folder, name, arrays, {"kind": "asmk-engine deletions"})
    file = FileEntry.of(folder, name, checksum)
    return replace(entry, deleted=file, deleted_images=int(np.count_nonzero(deleted)))


def map_network(path: Path) -> ArrayFile:
    """Map and verify a network file to be copied into an index; raises as `map_arrays`."""
    file = map_arrays(Folder(path.parent), path.name)
    file.verify()
    return file


def copy_network(folder: Folder, source: ArrayFile) -> FileEntry:
    """Copy a network file into the folder of an index, named by the first digits of its sha256; returns its entry."""
    content = Folder(source.path.parent).map(source.path.name)
    name = f"network-{hashlib.sha256(content).hexdigest()[:12]}.safetensors"
    folder.write(name, (content[begin : begin + BLOCK] for begin in range(0, len(content), BLOCK)))
    return FileEntry(name, len(content), zlib.crc32(source.arrays[CHECKSUMS].tobytes()))


def check_network(folder: Folder, entry: FileEntry) -> None:
    """Verify the checksums of the network in an index; raises as `map_snapshot`."""
    file = map_arrays(folder, entry.name, entry.checksum)
    file.verify()
    if file.size != entry.bytes:
        raise DamagedError(f"{file.path}: has {file.size} bytes, the manifest says {entry.bytes}; restore a copy")
