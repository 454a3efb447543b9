"""The geometry of a segment: the features of its images one by one, in a file beside the postings, mapped read-only.

    features [F, B] uint8    a row of bytes for each feature, image after image, in an image by word; see `row_type`
    starts [I+1] int64       image i has rows starts[i] to starts[i+1]
    sizes [I, 2] uint32      width and height in pixels that the places refer to; 0, 0 if an image has no geometry
    digests [I] uint32       crc32 of the rows of each image

A row is, little-endian and without padding: the code (8 bytes for each 64 bits of it), x, y (uint16), the word (uint16
for at most 65 536 words, else uint32), the scale (uint8), and where a feature has one the angle (uint8).
So an image is one span of bytes with a digest of its own: reading it touches nothing else.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asmk_engine.errors import DamagedError, InputError
from asmk_engine.indexes.manifest import FileEntry
from asmk_engine.inverted.signatures import code_width
from asmk_engine.kernels.rows import unpack
from asmk_engine.storage.arrays import ArrayFile, map_arrays
from asmk_engine.storage.folder import Folder
from asmk_engine.verification.geometry import SMALLEST_SCALE, ImageGeometry

KIND = "asmk-engine geometry"
ALL_FEATURES = (1 << 31) - 1
"""The number of features to keep of an image where all are kept."""
STEPS = 65535
"""Places are rounded to this many steps from one edge of an image to the other: to 0.03 pixels for 4000."""
OCTAVE_STEPS = 16
FIRST_OCTAVE = -3
"""A scale is a power of two in sixteenths, from 1/8 to 7500 pixels, in the numbers 1 to 255; 0 if it is unknown."""
TURN_STEPS = 255
"""An angle is a number of steps of a full turn, in the numbers 1 to 255; 0 if the feature has none."""
_UNIT = 49  # the number of scale 1: FIRST_OCTAVE is number 1
_SCALES = np.concatenate([[SMALLEST_SCALE], 2.0 ** ((np.arange(1, 256) - _UNIT) / OCTAVE_STEPS)]).astype(np.float32)
_ANGLES = np.concatenate([[np.nan], np.arange(TURN_STEPS) * (2 * math.pi / TURN_STEPS)]).astype(np.float32)
_LARGEST_SIDE = (1 << 32) - 1


def features_kept(geometry: int | str | None) -> int | None:
    """Return the number of features to keep of each image, None for none, from what a user gave.

    geometry  a number of 1 or more, "all", or None; raises InputError for anything else
    """
    if geometry is None or (type(geometry) is int and 1 <= geometry <= ALL_FEATURES):
        return geometry
    if geometry == "all":
        return ALL_FEATURES
    raise InputError(f"geometry is {geometry!r}; give the number of features to keep of each image, or 'all'")


def row_type(dim: int, vocabulary: int, *, angles: bool = False) -> np.dtype:
    """Return the layout of a row, for codes of `dim` bits and `vocabulary` words."""
    word = "<u2" if vocabulary <= 1 << 16 else "<u4"
    fields = [("code", "<u8", (code_width(dim),)), ("place", "<u2", (2,)), ("word", word), ("scale", "u1")]
    return np.dtype([*fields, ("angle", "u1")] if angles else fields)


@dataclass(frozen=True)
class PackedGeometry:
    """The geometry of one image as it is stored, with angles if one of its features has one.

    rows    [n, B] uint8
    size    width and height, 1 or more; 0, 0 without geometry
    digest  crc32 of the rows
    """

    rows: np.ndarray
    size: tuple[int, int]
    digest: int

    def __len__(self) -> int:
        return len(self.rows)

    def widened(self, width: int) -> PackedGeometry:
        """Return the geometry in rows of `width` bytes, see `without_angles`."""
        rows = without_angles(self.rows, width)
        return PackedGeometry(rows, self.size, row_digest(rows))


def pack(geometry: ImageGeometry, vocabulary: int) -> PackedGeometry:
    """Round the geometry of an image, whose features have one word each, to what is stored.

    Places outside of the image are moved to its edge. If its size is unknown, it is as large as its places need.
    """
    angles = geometry.places[geometry.features, 3]
    layout = row_type(geometry.dim, vocabulary, angles=bool(np.isfinite(angles).any()))
    places = geometry.places[geometry.features].astype(np.float64)
    size = _extent(places, geometry.image_size)
    rows = np.empty(len(places), layout)
    rows["code"], rows["word"] = geometry.codes, geometry.words
    rows["place"] = np.clip(np.rint((_finite(places[:, :2]) + 0.5) / size * STEPS), 0, STEPS)
    rows["scale"] = _scale_numbers(places[:, 2])
    if _has_angles(layout):
        rows["angle"] = _angle_numbers(angles)
    packed = rows.view(np.uint8).reshape(len(rows), layout.itemsize)
    return PackedGeometry(packed, size, row_digest(packed))


def row_digest(rows: np.ndarray) -> int:
    """Return the crc32 of contiguous rows; that of none is 0."""
    return zlib.crc32(rows.data) if len(rows) else 0


def without_angles(rows: np.ndarray, width: int) -> np.ndarray:
    """Return rows [n, B] as rows [n, width], where features of the narrower layout, if it differs, have no angle."""
    return rows if rows.shape[1] == width else np.pad(rows, ((0, 0), (0, width - rows.shape[1])))


def _has_angles(layout: np.dtype) -> bool:
    return layout.names is not None and "angle" in layout.names


def _angle_numbers(angles: np.ndarray) -> np.ndarray:
    """Return the number of the nearest angle that is stored, 0 for one that is unknown, [n] float64."""
    known = np.isfinite(angles)
    turns = np.where(known, angles, 0.0).astype(np.float64) / (2 * math.pi)
    return np.where(known, np.rint(turns * TURN_STEPS) % TURN_STEPS + 1, 0)


def _finite(places: np.ndarray) -> np.ndarray:
    return np.nan_to_num(places, nan=0.0, posinf=_LARGEST_SIDE, neginf=-1.0)


def _extent(places: np.ndarray, size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of an image; from its places, whose pixels end half a pixel after their centres, if unknown."""
    if min(size) > 0:
        return min(int(size[0]), _LARGEST_SIDE), min(int(size[1]), _LARGEST_SIDE)
    most = _finite(places[:, :2]).max(0, initial=0.5)
    width, height = (min(math.ceil(side + 0.5), _LARGEST_SIDE) for side in most.tolist())
    return width, height


def _scale_numbers(scales: np.ndarray) -> np.ndarray:
    """Return the number of the nearest scale that is stored, 0 for one that is unknown, [n] float64."""
    known = scales > SMALLEST_SCALE
    with np.errstate(over="ignore"):
        octaves = np.log2(np.where(known, scales, 1.0))
    return np.where(known, np.clip(np.rint(OCTAVE_STEPS * octaves) + _UNIT, 1, 255), 0)


class GeometryTable:
    """The mapped geometry of the images of a segment.

    images      number of images
    vocabulary  number of words
    dim         number of bits of a code
    """

    def __init__(self, file: ArrayFile, images: int, vocabulary: int, dim: int) -> None:
        self.file = file
        self.images, self.vocabulary, self.dim = images, vocabulary, dim
        self.features = file.take("features", "u1", None, None)
        plain, turned = (row_type(dim, vocabulary, angles=angles) for angles in (False, True))
        layout = {kind.itemsize: kind for kind in (plain, turned)}.get(self.features.shape[1])
        if layout is None:
            raise DamagedError(
                f"{self.path}: features have {self.features.shape[1]} bytes, expected {plain.itemsize} for {dim} bits "
                f"and {vocabulary} words; the file is of another index or was altered"
            )
        self.layout = layout
        ends = file.take("starts", "i8", images + 1)
        file.take("sizes", "u4", images, 2)
        file.take("digests", "u4", images)
        if ends[0] != 0 or ends[-1] != len(self.features):
            raise self._contradiction()

    def _contradiction(self) -> DamagedError:
        return DamagedError(f"{self.path}: its tables contradict each other; the file was altered, restore a copy")

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.file.path

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """The first row of each image, and the number of rows, [I+1] int64, verified; raises DamagedError."""
        starts = self.file.verified("starts")
        if (starts[1:] < starts[:-1]).any():
            raise self._contradiction()
        return starts

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """Width and height of each image, [I, 2] uint32, verified; 0, 0 without geometry. Raises DamagedError."""
        sizes = self.file.verified("sizes")
        known = (sizes > 0).all(1)
        if ((sizes > 0).any(1) != known).any() or np.diff(self.starts)[~known].any():
            raise self._contradiction()
        return sizes

    @functools.cached_property
    def digests(self) -> np.ndarray:
        """The crc32 of the rows of each image, [I] uint32, verified; raises DamagedError."""
        return self.file.verified("digests")

    @functools.cached_property
    def kept(self) -> np.ndarray:
        """Which images have geometry, [I] bool: those without were added without it, or have lost it."""
        kept: np.ndarray = self.sizes[:, 0] > 0
        return kept

    def image(self, number: int) -> ImageGeometry:
        """Return the geometry of an image: its features in the order of the words, each with a row of its own.

        An image without geometry has no features and the size 0, 0. Raises DamagedError if its rows were altered.
        """
        rows = self.rows(number)
        width, height = self.sizes[number].tolist()
        words, codes = np.empty(len(rows), np.uint32), np.empty((len(rows), code_width(self.dim)), np.uint64)
        places = np.full((len(rows), 4), np.nan, np.float32)
        angles = _ANGLES if _has_angles(self.layout) else _ANGLES[:0]
        increasing = unpack(rows, _SCALES, angles, width / STEPS, height / STEPS, words, codes, places)
        if not increasing or (len(words) and words[-1] >= self.vocabulary):
            raise DamagedError(f"{self.path}: the words of image {number} do not increase or are none; restore a copy")
        features = np.arange(len(rows), dtype=np.int32)
        return ImageGeometry(words, codes, features, places, (width, height), self.dim)

    def rows(self, number: int) -> np.ndarray:
        """Return the rows of an image [n, B]. Raises DamagedError if they were altered."""
        rows: np.ndarray = self.features[int(self.starts[number]) : int(self.starts[number + 1])]
        if row_digest(rows) != int(self.digests[number]):
            raise DamagedError(f"{self.path}: the geometry of image {number} was altered; restore a copy")
        return rows

    def problems(self) -> Iterator[str]:
        """Yield what is wrong in the rows; compares all of them. Raises DamagedError where an image cannot be read."""
        spare = np.uint64(self.dim % 64)
        for number in range(self.images):
            codes = self.image(number).codes
            if spare and (codes[:, -1] >> spare).any():
                yield f"a code of image {number} has a bit beyond the last of {self.dim}"


def map_geometry(
    folder: Folder, entry: FileEntry, images: int, vocabulary: int, dim: int, file: ArrayFile | None = None
) -> GeometryTable:
    """Map the geometry of a segment.

    Raises NotFoundError if the file is missing, and DamagedError if it contradicts the manifest or the segment.

    file  the file, if it is already mapped
    """
    file = file or map_arrays(folder, entry.name, entry.checksum)
    if file.size != entry.bytes:
        raise DamagedError(f"{file.path}: has {file.size} bytes, the manifest says {entry.bytes}; restore a copy")
    return GeometryTable(file, images, vocabulary, dim)
