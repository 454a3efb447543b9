"""Building the neighbour table of an index, in pieces, so that an interrupted run resumes and memory is bounded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from asmk_engine.diffusion.similarities import NOT_JOINT, Similarities, similarities_of
from asmk_engine.errors import DamagedError, InputError, StorageError
from asmk_engine.indexes.base import Collection
from asmk_engine.indexes.manifest import Manifest, read_manifest
from asmk_engine.indexes.neighbours import (
    NEIGHBOURS,
    NONE,
    SIMILARITIES,
    NeighbourTable,
    commit_metadata,
    map_neighbours,
    map_rows,
    piece_name,
    scale_metadata,
    stored_images,
    table_name,
)
from asmk_engine.indexes.numbering import image_starts
from asmk_engine.indexes.ranking import BestImages
from asmk_engine.iteration import Progress
from asmk_engine.storage.arrays import ArrayWriter, write_arrays
from asmk_engine.storage.folder import Folder, WriterLock
from asmk_engine.threads import thread_count

NEIGHBOURS_STORED = 50
PIECE_IMAGES = 4096
"""Images of a piece: what an interrupted run computes again at most."""
STEP_IMAGES = 64
"""Images whose neighbours are found between two reports of progress."""


def build_neighbours(
    index: Any,
    neighbours: int = NEIGHBOURS_STORED,
    *,
    threads: int | None = None,
    on_image: Progress | None = None,
) -> NeighbourTable:
    """Find the nearest images of every image of an index, and store them in its folder for its current commit.

    The time is quadratic in the number of images. An interrupted run resumes; a table that is there already is kept,
    if it is intact and has as many neighbours.

    Parameters
    ----------
    index : Index, GlobalIndex or FusedIndex
        The index, at its last commit.
    neighbours : int, default 50
        Number of neighbours of each image.
    threads : int, optional
        Threads of the search, all available by default; the table does not depend on it.
    on_image : callable, optional
        Receives progress as (done, total) in images.

    Returns
    -------
    NeighbourTable

    Raises
    ------
    InputError
        If `neighbours` is less than 1, or `index` is several indexes searched as one.
    StorageError
        If the index is changed meanwhile, or the table cannot be written.
    DamagedError
        If the index is damaged.
    """
    if neighbours < 1:
        raise InputError(f"neighbours is {neighbours}; give 1 or more ({NEIGHBOURS_STORED} is the default)")
    if not isinstance(index, Collection):
        raise InputError(f"{index.path}: {NOT_JOINT}")
    index.refresh()
    return _Builder(index, neighbours, thread_count(threads), on_image).table()


class _Builder:
    """One run: the commit of the index at its start, and the width of its table."""

    def __init__(self, index: Collection[Any, Any], neighbours: int, threads: int, on_image: Progress | None) -> None:
        self._index, self._threads, self._on_image = index, threads, on_image
        self._folder, self._snapshot = Folder(index.path), index.snapshot
        self._manifest: Manifest = self._snapshot.manifest
        self._rows = stored_images(self._manifest)
        self._width = max(0, min(neighbours, self._snapshot.images - 1))
        self._starts = image_starts(self._snapshot.segments)
        self._similarities: Similarities | None = None

    def table(self) -> NeighbourTable:
        """Return the table that is there, or build one."""
        found = self._intact(table_name(self._manifest.commit), self._rows)
        if found is None:
            pieces = [self._piece(number, begin, end) for number, (begin, end) in enumerate(self._spans())]
            self._join(pieces)
            found = map_neighbours(self._folder, self._manifest)
        if found is None:
            raise self._changed()
        return found

    def _spans(self) -> Iterator[tuple[int, int]]:
        return ((begin, min(begin + PIECE_IMAGES, self._rows)) for begin in range(0, self._rows, PIECE_IMAGES))

    def _intact(self, name: str, rows: int) -> NeighbourTable | None:
        """Return a stored table, or a piece of one, of this commit and width, None if there is none that is intact."""
        if name not in self._folder.names():
            return None
        try:
            found = map_rows(self._folder, name, self._manifest, rows)
            if found is None or found.width != self._width:
                return None
            found.verify()
        except DamagedError:
            return None  # it is built again, and replaces the damaged one
        return found

    def _piece(self, number: int, begin: int, end: int) -> str:
        """Write the neighbours of images `begin` to `end`, numbered over all segments, unless they are there."""
        name = piece_name(self._manifest.commit, number)
        if self._intact(name, end - begin) is None:
            rows = self._found(begin, end)
            with self._at_this_commit():
                arrays = {NEIGHBOURS: rows[0], SIMILARITIES: rows[1]}
                write_arrays(self._folder, name, arrays, self._metadata(self._measured().scales))
                self._folder.sync()
        self._report(end)
        return name

    def _report(self, done: int) -> None:
        if self._on_image:
            self._on_image(done, self._rows)

    def _found(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the neighbours of images `begin` to `end`: numbers [n, k] uint32 and similarities [n, k] float32."""
        neighbours = np.full((end - begin, self._width), NONE, np.uint32)
        similarities = np.zeros((end - begin, self._width), np.float32)
        if self._width == 0:
            return neighbours, similarities
        for place, first, last in self._steps(begin, end):
            near = self._measured().nearest(place, first, last, self._width + 1, self._threads)
            start = int(self._starts[place])
            deleted = self._snapshot.segments[place].deleted
            for number, best in zip(range(first, last), near, strict=True):
                if deleted is None or not deleted[number]:
                    self._fill(
                        neighbours, similarities, start + number - begin, best.without(place, number, self._width)
                    )
            self._report(start + last)
        return neighbours, similarities

    def _measured(self) -> Similarities:
        if self._similarities is None:
            self._similarities = similarities_of(self._index, self._snapshot, self._threads)
        return self._similarities

    def _metadata(self, scales: Sequence[float]) -> dict[str, str]:
        return {**commit_metadata(self._manifest), **scale_metadata(scales)}

    def _steps(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Divide images numbered over all segments into a few of one segment; yields its position, first and last."""
        for place, segment in enumerate(self._snapshot.segments):
            start = int(self._starts[place])
            first, last = max(begin - start, 0), min(end - start, segment.images)
            for one in range(first, last, STEP_IMAGES):
                yield place, one, min(one + STEP_IMAGES, last)

    def _fill(self, neighbours: np.ndarray, similarities: np.ndarray, row: int, near: BestImages) -> None:
        kept = near.scores.astype(np.float32) > 0
        count = int(np.count_nonzero(kept))
        neighbours[row, :count] = (self._starts[near.segments] + near.numbers)[kept]
        similarities[row, :count] = near.scores[kept]

    def _join(self, pieces: list[str]) -> None:
        """Write the table from its pieces, and remove them."""
        scales = [1.0] * len(self._manifest.kinds)  # of an index without images
        shape = (self._rows, self._width)
        shapes = {NEIGHBOURS: (np.dtype("u4"), shape), SIMILARITIES: (np.dtype("f4"), shape)}
        name = table_name(self._manifest.commit)
        with self._at_this_commit():
            stored = [
                self._stored(piece, end - begin) for piece, (begin, end) in zip(pieces, self._spans(), strict=True)
            ]
            metadata = self._metadata(stored[0].scales if stored else scales)
            with ArrayWriter(self._folder, name, shapes, metadata) as writer:
                for piece, (begin, _) in zip(stored, self._spans(), strict=True):
                    for key in shapes:
                        writer.write(key, begin, piece.file.arrays[key])
                writer.finish()
            for done in pieces:
                self._folder.remove(done)
            self._folder.sync()

    def _stored(self, name: str, rows: int) -> NeighbourTable:
        """Map a piece and verify it: altered data must not get new, valid checksums."""
        found = map_rows(self._folder, name, self._manifest, rows)
        if found is None:
            raise self._changed()
        found.verify()
        return found

    @contextlib.contextmanager
    def _at_this_commit(self) -> Iterator[None]:
        """Hold the lock of the writers; raises StorageError if the index was changed since the start."""
        with WriterLock(self._folder.path):
            if read_manifest(self._folder) != self._manifest:
                raise self._changed()
            yield

    def _changed(self) -> StorageError:
        return StorageError(
            f"{self._folder.path}: the index was changed while the neighbours of commit {self._manifest.commit} were "
            "found; run the same command again"
        )
