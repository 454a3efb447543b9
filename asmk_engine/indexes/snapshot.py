"""What a commit of an index of any kind is: a manifest, and the files it names, mapped."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from asmk_engine.errors import DamagedError, FormatError, NotFoundError
from asmk_engine.features import Identities
from asmk_engine.images.roots import UNKNOWN, Root
from asmk_engine.indexes.image_table import ROOTS, ImageTable
from asmk_engine.indexes.manifest import KIND, FileEntry, Manifest, SegmentEntry, read_manifest
from asmk_engine.storage.arrays import BLOCK, CHECKSUMS, ArrayFile, map_arrays, write_arrays
from asmk_engine.storage.folder import Folder

Encoder = TypeVar("Encoder")
Part = TypeVar("Part", bound=ImageTable)
View = TypeVar("View")
_CONTENT = {True: "an index of local features (open it with Index)", False: "a global index (open it with GlobalIndex)"}


@dataclass(frozen=True)
class Identity:
    """Which photograph an image is: the root it came from, and the fingerprint of its content, 0 where unknown."""

    root: Root
    fingerprint: int


@dataclass(frozen=True, eq=False)
class Commit(Generic[Encoder, Part]):
    """One commit of an index, mapped and immutable.

    encoder  what every descriptor of the index went through
    """

    manifest: Manifest
    encoder: Encoder
    segments: tuple[Part, ...]

    @property
    def images(self) -> int:
        """Images that are not deleted."""
        return sum(segment.live for segment in self.segments)

    def find(self, name: str) -> tuple[int, int] | None:
        """Segment and image number of a live image, or None."""
        return self.find_all([name]).get(name)

    def identity(self, place: tuple[int, int]) -> Identity:
        """Which photograph the image at a place that `find` returned is."""
        found = self.identities([place])
        return Identity(found.roots[int(found.numbers[0])], int(found.fingerprints[0]))

    def identities(self, places: Sequence[tuple[int, int]]) -> Identities:
        """Which photographs the images at some places are, as arrays; see `features.Identities`."""
        pairs = np.array(places, np.int64).reshape(-1, 2)
        fingerprints, numbers = np.zeros(len(pairs), np.uint64), np.zeros(len(pairs), np.int64)
        for place in np.unique(pairs[:, 0]).tolist():
            here, segment = pairs[:, 0] == place, self.segments[place]
            fingerprints[here] = segment.fingerprints[pairs[here, 1]]
            numbers[here] = self._known_numbers(segment.root_numbers[pairs[here, 1]])
        return Identities(fingerprints, (UNKNOWN, *self.manifest.roots), numbers)

    def _known_numbers(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers of roots, those as unknown that the table of the manifest does not have."""
        return np.where(numbers <= len(self.manifest.roots), numbers, 0)

    def origins(self) -> list[tuple[str, Root]]:
        """Name and root of every live image, segment by segment."""
        table, found = (UNKNOWN, *self.manifest.roots), []
        for segment in self.segments:
            live = segment.live_numbers()
            names = segment.names_as_bytes(live)
            numbers = self._known_numbers(segment.root_numbers[live]).tolist()
            found += [(name.decode(), table[number]) for name, number in zip(names, numbers, strict=True)]
        return found

    def root_counts(self) -> dict[Root, int]:
        """How many live images came from each root, where it is known."""
        counts = np.zeros(len(self.manifest.roots) + 1, np.int64)
        for segment in self.segments:
            numbers = self._known_numbers(segment.root_numbers[segment.live_numbers()])
            counts += np.bincount(numbers, minlength=len(counts))
        return {root: int(count) for root, count in zip(self.manifest.roots, counts[1:], strict=True) if count}

    def names(self) -> Iterator[str]:
        """Names of all live images, segment by segment."""
        return (name for segment in self.segments for name in segment.names())

    def find_all(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Segment and image number of those of the names that are live images, in the order of the names."""
        wanted = list(names)
        places = np.full((len(wanted), 2), -1)
        for place, segment in enumerate(self.segments):
            numbers = segment.find(wanted)
            found = np.flatnonzero(numbers >= 0)
            if segment.deleted is not None:
                found = found[~segment.deleted[numbers[found]]]
            places[found, 0], places[found, 1] = place, numbers[found]
        there = np.flatnonzero(places[:, 0] >= 0)
        rows = places[there].tolist()
        return {wanted[i]: (place, number) for i, (place, number) in zip(there.tolist(), rows, strict=True)}


def open_commit(folder: Folder, kind: str, mapped: Callable[[Manifest], View]) -> View:
    """Map the last commit; when a writer removed a file under our eyes, there is a newer commit to map.

    kind    what the manifest has to say; FormatError when it is an index of the other kind
    mapped  maps one commit, and raises NotFoundError when a file is gone
    """
    manifest = read_manifest(folder)
    while True:
        if manifest.kind != kind:
            raise FormatError(
                f"{folder.path}: {_CONTENT[manifest.kind == KIND]}, where {_CONTENT[kind == KIND]} was expected"
            )
        try:
            return mapped(manifest)
        except NotFoundError as error:
            newer = read_manifest(folder)
            if newer.commit == manifest.commit:
                raise DamagedError(f"{error}; the manifest names it: restore a copy of the index") from None
            manifest = newer


ReadEncoder = Callable[[Folder, FileEntry], Encoder]
MapPart = Callable[[Folder, SegmentEntry, Encoder, ArrayFile | None], Part]


def mapped_parts(
    folder: Folder,
    manifest: Manifest,
    known: Commit[Encoder, Part] | None,
    read_encoder: ReadEncoder[Encoder],
    map_part: MapPart[Encoder, Part],
) -> tuple[Manifest, Encoder, tuple[Part, ...]]:
    """What a commit holds; NotFoundError when a file is gone, DamagedError when one contradicts the manifest.

    known  an earlier commit: what both have in common is taken from it
    """
    kept = _kept(folder, manifest, known) if known else {}
    encoder: Encoder = kept.get(manifest.encoder) or read_encoder(folder, manifest.encoder)
    segments = tuple(
        kept.get(entry) or map_part(folder, entry, encoder, kept.get(entry.file)) for entry in manifest.segments
    )
    return manifest, encoder, segments


def _kept(folder: Folder, manifest: Manifest, known: Commit[Encoder, Part]) -> dict[Any, Any]:
    """What a commit shares with an earlier one of the same index, by entry: encoder, segments, mapped files."""
    there = {*folder.names()}
    if known.manifest.identity != manifest.identity or not there.issuperset(e.name for e in manifest.files()):
        return {}
    segments = dict(zip(known.manifest.segments, known.segments, strict=True))
    files = {entry.file: segment.file for entry, segment in segments.items()}
    return {known.manifest.encoder: known.encoder, **segments, **files}


def check_sizes(segment: ImageTable, entry: SegmentEntry, entries: int) -> None:
    """Raise DamagedError unless a mapped segment of so many entries is as large as the manifest says."""
    found = (segment.file.size, segment.images, entries)
    if found != (entry.file.bytes, entry.images, entry.entries):
        raise DamagedError(f"{segment.path}: bytes, images and entries are {found}, the manifest says otherwise")


def read_deleted(folder: Folder, entry: SegmentEntry) -> np.ndarray | None:
    """Which images of a segment are deleted, [images] bool, or None for no deletions; raises as `map_snapshot`."""
    if entry.deleted is None:
        return None
    file = map_arrays(folder, entry.deleted.name, entry.deleted.checksum)
    file.verify()
    bits = file.take("deleted", "u1", (entry.images + 7) // 8)
    deleted = np.unpackbits(bits, bitorder="little").astype(bool)
    if file.size != entry.deleted.bytes or int(np.count_nonzero(deleted)) != entry.deleted_images:
        raise DamagedError(f"{file.path}: holds other deletions than the manifest says; restore a copy")
    return deleted[: entry.images]


def read_moved(folder: Folder, entry: SegmentEntry) -> np.ndarray | None:
    """The roots of the images of a segment, [images] uint32, where some were found elsewhere since it was written."""
    if entry.moved is None:
        return None
    file = map_arrays(folder, entry.moved.name, entry.moved.checksum)
    file.verify()
    if file.size != entry.moved.bytes:
        raise DamagedError(f"{file.path}: has {file.size} bytes, the manifest says {entry.moved.bytes}; restore a copy")
    return file.take(ROOTS, "u4", entry.images)


def write_moved(folder: Folder, entry: SegmentEntry, numbers: np.ndarray, number: int) -> SegmentEntry:
    """Write the roots of the images of a segment, [images], as file number `number`; returns its entry with them."""
    name = f"moved-{number:06d}.safetensors"
    checksum = write_arrays(folder, name, {ROOTS: numbers.astype(np.uint32)}, {"kind": "asmk-engine roots"})
    return replace(entry, moved=FileEntry.of(folder, name, checksum))


def write_deleted(folder: Folder, entry: SegmentEntry, deleted: np.ndarray, number: int) -> SegmentEntry:
    """Write the deletions of a segment, [images] bool, as file number `number`; returns its entry with them."""
    name = f"deleted-{number:06d}.safetensors"
    arrays = {"deleted": np.packbits(deleted, bitorder="little")}
    checksum = write_arrays(folder, name, arrays, {"kind": "asmk-engine deletions"})
    file = FileEntry.of(folder, name, checksum)
    return replace(entry, deleted=file, deleted_images=int(np.count_nonzero(deleted)))


def map_network(path: Path) -> ArrayFile:
    """Map the file of a network that is to go into an index; raises as `map_arrays`, also for altered content."""
    file = map_arrays(Folder(path.parent), path.name)
    file.verify()
    return file


def copy_network(folder: Folder, source: ArrayFile) -> FileEntry:
    """Copy the file of a network into the folder of an index, under the first digits of its sha256; its entry."""
    content = Folder(source.path.parent).map(source.path.name)
    name = f"network-{hashlib.sha256(content).hexdigest()[:12]}.safetensors"
    folder.write(name, (content[begin : begin + BLOCK] for begin in range(0, len(content), BLOCK)))
    return FileEntry(name, len(content), zlib.crc32(source.arrays[CHECKSUMS].tobytes()))


def check_network(folder: Folder, entry: FileEntry) -> None:
    """Compare the network that an index carries with its checksums; raises as `map_snapshot`."""
    file = map_arrays(folder, entry.name, entry.checksum)
    file.verify()
    if file.size != entry.bytes:
        raise DamagedError(f"{file.path}: has {file.size} bytes, the manifest says {entry.bytes}; restore a copy")
