"""A snapshot, one mapped commit of an ASMK index, on which a search runs."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.codebooks.checks import check_codebook
from asmk_engine.codebooks.graph import Graph, arrays_of_graph, stored_graph
from asmk_engine.codebooks.recall import recall_from_json
from asmk_engine.errors import DamagedError, InputError
from asmk_engine.indexes.manifest import FileEntry, Manifest, SegmentEntry
from asmk_engine.indexes.snapshot import Commit, check_sizes, mapped_parts, read_deleted, read_moved
from asmk_engine.inverted.geometry_file import map_geometry
from asmk_engine.inverted.segment import Segment
from asmk_engine.inverted.signatures import code_width
from asmk_engine.recipes import Recipe
from asmk_engine.storage.arrays import ArrayFile, map_arrays, write_arrays
from asmk_engine.storage.folder import Folder
from asmk_engine.verification.geometry import ImageGeometry


class Snapshot(Commit[Codebook, Segment]):
    """One commit of an index, mapped and immutable."""

    @functools.cached_property
    def list_lengths(self) -> np.ndarray:
        """The number of live postings of every word, [K] int64; computed once per snapshot."""
        lengths = np.zeros(self.encoder.words, np.int64)
        for segment in self.segments:
            lengths += segment.list_lengths()
        return lengths


def map_snapshot(folder: Folder, manifest: Manifest, known: Snapshot | None) -> Snapshot:
    """Map one commit.

    Raises NotFoundError if a file is missing, and DamagedError if a file contradicts the manifest.

    known  an earlier commit, whose mapped and verified files are reused where they are the same
    """
    return Snapshot(*mapped_parts(folder, manifest, known, read_codebook, map_segment))


def map_segment(
    folder: Folder, entry: SegmentEntry, codebook: Codebook, kept: Mapping[Any, Any] = MappingProxyType({})
) -> Segment:
    """Map a segment of a commit with its deletions and its geometry; raises as `map_snapshot`.

    kept  files by entry that are mapped already
    """
    deleted, moved = read_deleted(folder, entry), read_moved(folder, entry)
    file = kept.get(entry.file) or map_arrays(folder, entry.file.name, entry.file.checksum)
    segment = Segment(file, codebook.words, code_width(codebook.dim), deleted, moved)
    check_sizes(segment, entry, segment.postings)
    if entry.geometry is not None:
        attach_geometry(folder, segment, entry.geometry, codebook, kept)
    return segment


def attach_geometry(
    folder: Folder, segment: Segment, entry: FileEntry, codebook: Codebook, kept: Mapping[Any, Any]
) -> None:
    """Map the geometry of a mapped segment; raises as `map_snapshot`."""
    file = kept.get(entry)
    segment.geometry = map_geometry(folder, entry, segment.images, codebook.words, codebook.dim, file)
    segment.geometry_file = segment.geometry.file


def geometry_by_place(snapshot: Snapshot, place: int, number: int) -> ImageGeometry | None:
    """Return the geometry of an image by the place and number from `Commit.find`; None if it has none.

    Raises DamagedError if it was altered.
    """
    table = snapshot.segments[place].geometry
    return table.image(number) if table is not None and table.kept[number] else None


def check_has_geometry(snapshot: Snapshot, path: Path) -> None:
    """Raise InputError unless images of the index at `path` have geometry, or there are no images."""
    if snapshot.images and not any(segment.geometry for segment in snapshot.segments):
        raise InputError(
            f"{path}: has no geometry, which verification needs; index the images again with "
            f"`asmk-engine index IMAGES -o {path} --geometry --replace`"
        )


def write_codebook(folder: Folder, codebook: Codebook) -> FileEntry:
    """Write the codebook of an index; returns its entry."""
    name = f"codebook-{codebook.fingerprint[:12]}.safetensors"
    metadata = {"recipe": codebook.recipe.to_json(), "training": json.dumps(codebook.training)}
    if codebook.graph is not None:
        metadata["assignment"] = codebook.assignment
        metadata |= {key: str(value) for key, value in codebook.graph.settings().items()}
    if codebook.graph_recall is not None:
        metadata["graph_recall"] = codebook.graph_recall.to_json()
    checksum = write_arrays(folder, name, codebook.arrays(), {"kind": "asmk-engine codebook", **metadata})
    return FileEntry.of(folder, name, checksum)


def read_codebook(folder: Folder, entry: FileEntry) -> Codebook:
    """Map the codebook of a commit; raises as `map_snapshot`."""
    file = map_arrays(folder, entry.name, entry.checksum)
    file.verify()  # all of it is needed to encode any descriptor
    arrays = (
        file.take("mean", "f4", None),
        file.take("projection", "f4", None, None),
        file.take("centroids", "f4", None, None),
    )
    try:
        training = dict(json.loads(file.metadata.get("training", "{}")))
    except (ValueError, TypeError):
        raise DamagedError(f"{file.path}: its training metadata is not readable; the file was altered") from None
    recipe = Recipe.from_json(file.metadata.get("recipe", ""), file.path)
    check_codebook(*arrays, file.path)
    recall = recall_from_json(file.metadata.get("graph_recall"), file.path)
    return Codebook(*arrays, recipe, training, _read_graph(file, len(arrays[2])), recall)


def _read_graph(file: ArrayFile, words: int) -> Graph | None:
    """Read the graph of a codebook, if it has one; older codebooks do not store the assignment, which is exact."""
    if not arrays_of_graph(file.metadata.get("assignment", "exact"), file.path):
        return None
    neighbours, entries = file.take("graph_neighbours", "i4", words, None), file.take("graph_entries", "i4", None)
    return stored_graph(neighbours, entries, file.metadata, words, file.path)
