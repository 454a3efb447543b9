"""A snapshot: one commit of an index, mapped; what a search runs on."""

from __future__ import annotations

import functools
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.arrays import BLOCK, CHECKSUMS, ArrayFile, map_arrays, write_arrays
from asmk_engine.codebooks import Codebook
from asmk_engine.codebooks.codebook import check_codebook
from asmk_engine.codebooks.graph import Graph, check_graph, is_linked
from asmk_engine.errors import DamagedError, NotFoundError
from asmk_engine.manifest import FileEntry, Manifest, SegmentEntry, read_manifest
from asmk_engine.recipes import Recipe
from asmk_engine.segment import Segment
from asmk_engine.signatures import code_width
from asmk_engine.store import Folder


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One commit of an index, mapped and immutable: what a search runs on."""

    manifest: Manifest
    codebook: Codebook
    segments: tuple[Segment, ...]

    @property
    def images(self) -> int:
        """Images that are not deleted."""
        return sum(segment.live for segment in self.segments)

    def find(self, name: str) -> tuple[int, int] | None:
        """Segment and image number of a live image, or None."""
        return self.find_all([name]).get(name)

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

    @functools.cached_property
    def list_lengths(self) -> np.ndarray:
        """Live postings of every word, [K] int64; computed once per snapshot."""
        lengths = np.zeros(self.codebook.words, np.int64)
        for segment in self.segments:
            lengths += segment.list_lengths()
        return lengths


def open_snapshot(folder: Folder, known: Snapshot | None = None) -> Snapshot:
    """Map the last commit; when a writer removed a file under our eyes, there is a newer commit to map.

    known  an earlier commit: what both have in common is mapped and verified already
    """
    manifest = read_manifest(folder)
    while True:
        try:
            return map_snapshot(folder, manifest, known)
        except NotFoundError as error:
            newer = read_manifest(folder)
            if newer.commit == manifest.commit:
                raise DamagedError(f"{error}; the manifest names it: restore a copy of the index") from None
            manifest = newer


def map_snapshot(folder: Folder, manifest: Manifest, known: Snapshot | None = None) -> Snapshot:
    """Map one commit; NotFoundError when a file is gone, DamagedError when something contradicts the manifest."""
    kept = _kept(folder, manifest, known) if known else {}
    codebook = kept.get(manifest.codebook) or read_codebook(folder, manifest.codebook)
    segments = tuple(
        kept.get(entry) or map_segment(folder, entry, codebook, kept.get(entry.file)) for entry in manifest.segments
    )
    return Snapshot(manifest, codebook, segments)


def _kept(folder: Folder, manifest: Manifest, known: Snapshot) -> dict[Any, Any]:
    """What a commit shares with an earlier one of the same index, by entry: codebook, segments, mapped files."""
    there = {*folder.names()}
    if known.manifest.identity != manifest.identity or not there.issuperset(e.name for e in manifest.files()):
        return {}
    segments = dict(zip(known.manifest.segments, known.segments, strict=True))
    files = {entry.file: segment.file for entry, segment in segments.items()}
    return {known.manifest.codebook: known.codebook, **segments, **files}


def map_segment(folder: Folder, entry: SegmentEntry, codebook: Codebook, file: ArrayFile | None = None) -> Segment:
    """Map a segment of a commit with its deletions; `file` where it is mapped already. Raises as `map_snapshot`."""
    deleted = read_deleted(folder, entry)
    file = file or map_arrays(folder, entry.file.name, entry.file.checksum)
    segment = Segment(file, codebook.words, code_width(codebook.dim), deleted)
    found = (segment.file.size, segment.images, segment.postings)
    if found != (entry.file.bytes, entry.images, entry.postings):
        raise DamagedError(f"{segment.path}: bytes, images and postings are {found}, the manifest says otherwise")
    return segment


def read_codebook(folder: Folder, entry: FileEntry) -> Codebook:
    """Map the codebook of a commit; raises as `map_snapshot`."""
    file = map_arrays(folder, entry.name, entry.checksum)
    file.verify()  # every descriptor goes through all of it
    arrays = (
        file.take("mean", "f4", None),
        file.take("projection", "f4", None, None),
        file.take("centroids", "f4", None, None),
    )
    try:
        training = dict(json.loads(file.metadata.get("training", "{}")))
    except (ValueError, TypeError):
        raise DamagedError(f"{file.path}: what it says of its training is not readable; the file was altered") from None
    recipe = Recipe.from_json(file.metadata.get("recipe", ""), file.path)
    check_codebook(*arrays, file.path)
    return Codebook(*arrays, recipe, training, _read_graph(file, len(arrays[2])))


def _read_graph(file: ArrayFile, words: int) -> Graph | None:
    """The graph of a codebook that has one; older codebooks say nothing of assignment and are exact."""
    if not is_linked(file.metadata.get("assignment", "exact"), file.path):
        return None
    beam = file.metadata.get("graph_beam", "")
    graph = Graph(
        file.take("graph_neighbours", "i4", words, None),
        file.take("graph_entries", "i4", None),
        int(beam) if beam.isdecimal() and len(beam) < 10 else 0,
    )
    check_graph(graph, words, file.path)
    return graph


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


def write_deleted(folder: Folder, entry: SegmentEntry, deleted: np.ndarray, number: int) -> SegmentEntry:
    """Write the deletions of a segment, [images] bool, as file number `number`; returns its entry with them."""
    name = f"deleted-{number:06d}.safetensors"
    arrays = {"deleted": np.packbits(deleted, bitorder="little")}
    checksum = write_arrays(folder, name, arrays, {"kind": "asmk-engine deletions"})
    file = FileEntry(name, folder.size(name), checksum)
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
