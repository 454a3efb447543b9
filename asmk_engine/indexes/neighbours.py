"""The neighbour table of a commit: for each image its nearest images and their similarities, in one array file.

A table is no part of a commit: it is made for one that exists, by `diffusion.building`, and removed by the next. Its
name has the number of the commit, and its metadata the checksum of the manifest, since two copies of an index can reach
the same number with different images.

neighbours    [I, k] uint32, numbers of images over all segments, see `numbering`, the nearest first; NONE for no image
similarities  [I, k] float32, decreasing in each row; 0 for no image
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asmk_engine.errors import DamagedError
from asmk_engine.indexes.manifest import Manifest
from asmk_engine.storage.arrays import ArrayFile, map_arrays
from asmk_engine.storage.folder import Folder, encode_manifest

KIND = "asmk-engine neighbours"
NONE = 0xFFFFFFFF
NEIGHBOURS, SIMILARITIES = "neighbours", "similarities"
PATTERN = r"neighbours-\d+(?:-\d+)?"
_NAME = re.compile(r"neighbours-(\d+)(?:-\d+)?\.safetensors")


def table_name(commit: int) -> str:
    """Return the name of the table of a commit."""
    return f"neighbours-{commit:06d}.safetensors"


def piece_name(commit: int, piece: int) -> str:
    """Return the name of a piece of a table that is not yet complete."""
    return f"neighbours-{commit:06d}-{piece:04d}.safetensors"


def commit_of(name: str) -> int | None:
    """Return the commit of a table, or of a piece of one, from its name; None for other files."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


def is_piece(name: str) -> bool:
    """Return whether a file is a piece of a table."""
    return commit_of(name) is not None and name.count("-") == 2


def stored_tables(folder: Folder) -> list[str]:
    """Return the names of all tables in the folder of an index, whatever commit they are of."""
    return [name for name in folder.names() if commit_of(name) is not None and not is_piece(name)]


def commit_metadata(manifest: Manifest) -> dict[str, str]:
    """Return what the metadata of a table say of its commit."""
    checksum = zlib.crc32(encode_manifest(manifest.to_json()))
    return {"kind": KIND, "commit": str(manifest.commit), "manifest": f"{checksum:08x}"}


def scale_metadata(scales: Sequence[float]) -> dict[str, str]:
    """Return how the metadata of a table hold the scales of the kinds of features, see `diffusion.similarities`."""
    return {"scales": json.dumps([*scales])}


@dataclass(frozen=True, eq=False)
class NeighbourTable:
    """A mapped table, or a piece of one.

    images  number of images of the index, deleted ones among them
    scales  the numbers by which the similarities of each kind of features are divided, in a fused index
    """

    file: ArrayFile
    images: int
    scales: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """The number of neighbours of an image that the table holds."""
        return int(self.file.arrays[NEIGHBOURS].shape[1])

    def rows(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return neighbours and similarities of these images, each [n, k]; raises DamagedError if they were altered."""
        with _cured(self.file.path):
            for name in (NEIGHBOURS, SIMILARITIES):
                self.file.verify_spans(name, numbers, numbers + 1)
            found = self.file.arrays[NEIGHBOURS][numbers], self.file.arrays[SIMILARITIES][numbers]
            self._check(*found, numbers)
            return found

    def verify(self) -> None:
        """Verify every checksum and every number. Raises DamagedError for what is altered or makes no sense."""
        with _cured(self.file.path):
            self.file.verify()
            neighbours, similarities = self.file.arrays[NEIGHBOURS], self.file.arrays[SIMILARITIES]
            whole = len(neighbours) == self.images  # a piece does not say which images it has
            self._check(neighbours, similarities, np.arange(self.images) if whole else None)

    def _check(self, neighbours: np.ndarray, similarities: np.ndarray, numbers: np.ndarray | None) -> None:
        """Raise DamagedError unless the rows, those of images `numbers`, make a graph with an edge at most once."""
        is_known = (neighbours < self.images) | (neighbours == NONE)
        if not (is_known.all() and np.isfinite(similarities).all() and (similarities >= 0).all()):
            raise DamagedError(f"{self.file.path}: holds images that the index does not have, or invalid similarities")
        ordered = np.sort(neighbours, axis=1)
        is_repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NONE)
        if is_repeated.any() or (numbers is not None and (neighbours == numbers[:, None]).any()):
            raise DamagedError(f"{self.file.path}: an image is its own neighbour, or another one is twice")


@contextlib.contextmanager
def _cured(path: Path) -> Iterator[None]:
    """Say in the error for damage that a table can be built again."""
    try:
        yield
    except DamagedError as error:
        found = str(error).removesuffix("; restore a copy")
        raise DamagedError(f"{found}; build it again with `asmk-engine neighbours {path.parent}`") from None


def stored_images(manifest: Manifest) -> int:
    """Return the number of images of a commit, deleted ones among them."""
    return sum(entry.images for entry in manifest.segments)


def map_neighbours(folder: Folder, manifest: Manifest) -> NeighbourTable | None:
    """Map the table of a commit; None if there is none, or one of another commit of this number.

    Raises DamagedError if the file is damaged.
    """
    name, images = table_name(manifest.commit), stored_images(manifest)
    return map_rows(folder, name, manifest, images) if name in folder.names() else None


def map_rows(folder: Folder, name: str, manifest: Manifest, rows: int) -> NeighbourTable | None:
    """Map a table or a piece of `rows` images; returns and raises as `map_neighbours`."""
    with _cured(folder.path / name):
        file = map_arrays(folder, name)
        if file.metadata.get("kind") != KIND:
            raise DamagedError(f"{file.path}: not a neighbour table; the file was altered")
        if any(file.metadata.get(key) != value for key, value in commit_metadata(manifest).items()):
            return None
        width = file.take(NEIGHBOURS, "u4", rows, None).shape[1]
        file.take(SIMILARITIES, "f4", rows, width)
        return NeighbourTable(file, stored_images(manifest), _scales(file, len(manifest.kinds)))


def _scales(file: ArrayFile, kinds: int) -> tuple[float, ...]:
    """Read the scales of the kinds of a fused index; raises DamagedError unless each is above 0."""
    try:
        scales = tuple(float(scale) for scale in json.loads(file.metadata.get("scales", "[]")))
    except (ValueError, TypeError, RecursionError):
        scales = (0.0,)
    if len(scales) != kinds or not all(0 < scale < math.inf for scale in scales):
        raise DamagedError(f"{file.path}: its scales of {kinds} kinds of features are not readable")
    return scales
