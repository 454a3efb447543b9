"""From features to the segments of an index: here, or built elsewhere and brought as files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.features import Features, IdentifiedSource
from asmk_engine.images.boxes import Box
from asmk_engine.indexes.base import Facts
from asmk_engine.indexes.manifest import FileEntry, Written
from asmk_engine.inverted.batch import Batch
from asmk_engine.inverted.encoding import encode_many
from asmk_engine.inverted.geometry_file import PackedGeometry, row_type
from asmk_engine.inverted.geometry_writer import geometry_name, write_geometry
from asmk_engine.inverted.regional import Regional
from asmk_engine.inverted.segment_writer import Contents, write_segment
from asmk_engine.inverted.signatures import code_width
from asmk_engine.regions.boxes import ImageBoxes
from asmk_engine.regions.options import RegionOptions
from asmk_engine.regions.proposals import region_boxes
from asmk_engine.storage.folder import Folder

EncodedImage = tuple[str, Regional, int, int, PackedGeometry | None]
"""Name, signatures, fingerprint, number of the root, and geometry."""


@dataclass(frozen=True)
class SegmentEncoding:
    """How images become the postings of a segment.

    geometry  number of features of an image whose geometry is kept; None keeps none
    regions   how images are described by their regions; None if they are not
    boxes     the regions, where they are given
    """

    codebook: Codebook
    geometry: int | None = None
    regions: RegionOptions | None = None
    boxes: ImageBoxes | None = None

    @property
    def is_separate(self) -> bool:
        """Whether an image can have several entries, one for each of its regions."""
        return self.regions is not None and self.regions.mode == "separate"

    @property
    def row_bytes(self) -> int:
        """Bytes of a feature in the geometry, 0 if none is kept."""
        return 0 if self.geometry is None else row_type(self.codebook.dim, self.codebook.words).itemsize

    def encode(self, images: Iterable[tuple[str, Features]], facts: Facts) -> Iterator[EncodedImage]:
        """Yield the images of a stream encoded, in order."""
        mode = None if self.regions is None else self.regions.mode
        for name, signatures, geometry in encode_many(images, self.codebook, self.geometry, mode, self._region_boxes):
            yield name, signatures, *facts(name), geometry

    def _region_boxes(self, name: str, features: Features) -> list[Box]:
        return region_boxes(name, features, self.regions, self.boxes) if self.regions else []

    def gathered(self, images: Iterable[EncodedImage], room: int) -> Iterator[Contents]:
        """Group images into segments of at least `room` postings, or of geometry that takes as much memory."""
        batch = Batch(code_width(self.codebook.dim), self.row_bytes, separate=self.is_separate)
        for image in images:
            batch.append(*image)
            if batch.size >= room:
                yield batch.contents()
                batch = Batch(batch.width, batch.row_bytes, separate=batch.separate)
        if batch.names:
            yield batch.contents()


@dataclass(frozen=True)
class BuiltSegment:
    """A segment that was written elsewhere: its images and the bytes of its files.

    names     in UTF-8
    checksum  as in `Written`, of the file of postings and of that of the geometry
    postings  number of them
    data      [B] uint8, the file of postings
    geometry  [G] uint8, the file of the geometry, or None
    """

    names: Sequence[bytes]
    checksum: int
    postings: int
    data: np.ndarray
    geometry: np.ndarray | None = None
    geometry_checksum: int = 0

    @classmethod
    def of(cls, contents: Contents, vocabulary: int, scratch: Path) -> BuiltSegment:
        """Write a segment to a folder that is emptied again, and return its bytes."""
        folder, name = Folder(scratch), "segment-000000.safetensors"
        written = write_segment(folder, name, contents, vocabulary)
        placed = write_geometry(folder, name, contents.geometry)
        data, geometry = _taken(folder, name), None if placed is None else _taken(folder, placed.name)
        checksum = 0 if placed is None else placed.checksum
        return cls(contents.names, written.checksum, written.entries, data, geometry, checksum)

    def write(self, folder: Folder, name: str) -> Written:
        """Write the files of the segment `name` to the folder of an index."""
        folder.write(name, [self.data.data], "the segment")
        written = Written(self.checksum, len(self.names), self.postings)
        if self.geometry is None:
            return written
        placed = geometry_name(name)
        folder.write(placed, [self.geometry.data], "the geometry")
        return replace(written, geometry=FileEntry.of(folder, placed, self.geometry_checksum))


def _taken(folder: Folder, name: str) -> np.ndarray:
    """Return the bytes of a file, which is removed."""
    data = np.fromfile(folder.path / name, np.uint8)
    folder.remove(name)
    return data


class SegmentBuilder(Protocol):
    """Builds the segments of an index elsewhere."""

    def build(
        self, features: IdentifiedSource, names: Sequence[str], facts: Facts, encoding: SegmentEncoding, room: int
    ) -> Iterator[BuiltSegment]:
        """Yield segments of the images of these names, each image in one, of about `room` postings."""
        ...
