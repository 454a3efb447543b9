"""Writing of a segment: at once from postings in memory, or piece by piece if only its outline is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.indexes import image_table
from asmk_engine.indexes.image_table import name_arrays
from asmk_engine.indexes.manifest import Written
from asmk_engine.inverted.geometry_writer import SegmentGeometry
from asmk_engine.inverted.segment import ENTRY_STARTS, RANGE_BITS, range_images
from asmk_engine.kernels import elias_fano, match, postings
from asmk_engine.storage.arrays import ArrayWriter
from asmk_engine.storage.folder import Folder
from asmk_engine.threads import available_threads, stream

# Postings in memory at a time while a segment is written, in pieces for the threads: 64 MiB of codes at 128 bits.
CHUNK_POSTINGS = 1 << 22
MOST_THREADS = 4  # with more, the thread that writes the file does not keep up
IN_HAND = 2 * MOST_THREADS  # pieces in memory at a time


@dataclass(frozen=True)
class Contents:
    """The images and postings of a segment, in memory.

    names         [I], in UTF-8
    fingerprints  [I] uint64
    words         [P] uint32, postings in any order in which the images of each word increase
    images        [P] uint32, numbers of entries: of images, or of regions if these are separate
    codes         [P, W] uint64
    roots         [I], numbers in the root table of the manifest, or None
    geometry      the geometry of the images, or None
    entries       [I] int64, the number of entries of each image, or None if each is one
    """

    names: Sequence[bytes]
    fingerprints: np.ndarray
    words: np.ndarray
    images: np.ndarray
    codes: np.ndarray
    roots: np.ndarray | None = None
    geometry: SegmentGeometry | None = None
    entries: np.ndarray | None = None


@dataclass(frozen=True)
class Piece:
    """Lists `first` to `last` (exclusive), all of range `range_number`, which has `universe` images."""

    universe: int
    first: int
    last: int
    range_number: int = 0


Bring = Callable[[Piece], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class SegmentOutline:
    """The tables of a segment that follow from the number of postings of each (range, word).

    images  number of entries
    list_words [L] uint32, posting_starts [L+1] int64, id_starts [L+1] int64, range_starts [R+1] int64: see `segment`
    """

    images: int
    list_words: np.ndarray
    posting_starts: np.ndarray
    id_starts: np.ndarray
    range_starts: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray, images: int, vocabulary: int) -> SegmentOutline:
        """Compute the outline for `counts` [ranges * vocabulary] int64 postings, words of a range adjacent."""
        ranges = len(counts) // vocabulary
        lists = np.flatnonzero(counts)
        lengths = counts[lists]
        posting_starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        range_starts = np.searchsorted(lists, np.arange(ranges + 1) * vocabulary).astype(np.int64)
        id_starts = np.zeros(len(lists) + 1, np.int64)
        for r in range(ranges):
            first, last = int(range_starts[r]), int(range_starts[r + 1])
            starts = elias_fano.list_starts(lengths[first:last], range_images(r, images))
            id_starts[first : last + 1] = id_starts[first] + starts
        return cls(images, (lists % vocabulary).astype(np.uint32), posting_starts, id_starts, range_starts)

    @property
    def postings(self) -> int:
        """Number of postings."""
        return int(self.posting_starts[-1])

    def pieces(self, postings: int) -> Iterator[Piece]:
        """Divide all lists into pieces of at most `postings` postings, or of one list that has more."""
        starts = self.posting_starts
        for r, (first, end) in enumerate(itertools.pairwise(self.range_starts.tolist())):
            while first < end:
                last = int(np.searchsorted(starts, starts[first] + postings, side="right")) - 1
                last = min(max(last, first + 1), end)
                yield Piece(range_images(r, self.images), first, last, r)
                first = last

    def rows(self, piece: Piece) -> slice:
        """Return the rows of the postings of a piece."""
        return slice(int(self.posting_starts[piece.first]), int(self.posting_starts[piece.last]))

    def encode(self, piece: Piece, numbers: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Encode the image numbers of a piece; returns the bytes for the file and the digests of its lists.

        numbers  [n] uint32
        codes    [n, W] uint64, contiguous
        """
        posting_starts = self.posting_starts[piece.first : piece.last + 1] - self.posting_starts[piece.first]
        id_starts = self.id_starts[piece.first : piece.last + 1] - self.id_starts[piece.first]
        ids = np.zeros(int(id_starts[-1]) + elias_fano.PADDING, np.uint8)
        elias_fano.encode(numbers, posting_starts, id_starts, piece.universe, ids)
        digests = np.empty(piece.last - piece.first, np.uint32)
        match.digest_lists(posting_starts, id_starts, ids, codes, digests)
        return ids[: int(id_starts[-1])], digests


class SegmentWriter:
    """Writes the file of a segment with a known outline; use it as a context manager.

    The file does not appear under its final name before `finish`.

    names    names of the images, or None if their table is in another file, as in a fused index
    entries  [I], the number of entries of each image, or None if each is one
    """

    def __init__(
        self,
        folder: Folder,
        name: str,
        outline: SegmentOutline,
        names: Sequence[bytes] | None,
        width: int,
        roots: np.ndarray | None = None,
        entries: np.ndarray | None = None,
    ) -> None:
        if outline.images >= image_table.MAX_IMAGES:
            raise InputError(
                f"{folder.path}: {outline.images} images or regions are too many for one segment, which holds fewer "
                f"than {image_table.MAX_IMAGES}; add them in smaller parts, or keep several indexes"
            )
        self.outline = outline
        self._known = {
            "list_words": outline.list_words,
            "posting_starts": outline.posting_starts,
            "id_starts": outline.id_starts,
            "range_starts": outline.range_starts,
            **(name_arrays(names, roots) if names is not None else {}),
            **({} if entries is None else {ENTRY_STARTS: np.concatenate([[0], np.cumsum(entries)]).astype(np.int64)}),
        }
        shapes = {key: (array.dtype, array.shape) for key, array in self._known.items()}
        shapes |= {
            "codes": (np.dtype(np.uint64), (outline.postings, width)),
            "ids": (np.dtype(np.uint8), (int(outline.id_starts[-1]) + elias_fano.PADDING,)),
            "list_digests": (np.dtype(np.uint32), outline.list_words.shape),
            "word_counts": (np.dtype(np.uint32), (outline.images,)),
        }
        if names is not None:
            shapes["fingerprints"] = np.dtype(np.uint64), (len(names),)
        metadata = {"kind": "asmk-engine segment", "range_bits": str(RANGE_BITS)}
        self._file = ArrayWriter(folder, name, shapes, metadata)

    def __enter__(self) -> SegmentWriter:
        self._file.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(None, None, None)

    def write_all(self, bring: Bring, chunk_postings: int = CHUNK_POSTINGS) -> None:
        """Write all lists, which several threads collect and encode while this one writes.

        bring           returns the numbers [n] uint32, within the range, and the codes [n, W] uint64 of a piece
        chunk_postings  number of postings held in memory at a time
        """

        def brought(piece: Piece) -> tuple[Piece, np.ndarray, np.ndarray, np.ndarray]:
            numbers, codes = bring(piece)
            return piece, *self.outline.encode(piece, numbers, codes), codes

        pieces = self.outline.pieces(max(1, chunk_postings // IN_HAND))
        for written in stream(brought, pieces, min(available_threads(), MOST_THREADS)):
            self._write(*written)

    def write_lists(self, first: int, last: int, universe: int, numbers: np.ndarray, codes: np.ndarray) -> None:
        """Write lists `first` to `last` (exclusive), all of one range of `universe` images.

        numbers  [n] uint32, image numbers within the range, in the order of the lists
        codes    [n, W] uint64, likewise
        """
        piece = Piece(universe, first, last)
        self._write(piece, *self.outline.encode(piece, numbers, codes), codes)

    def _write(self, piece: Piece, ids: np.ndarray, digests: np.ndarray, codes: np.ndarray) -> None:
        self._file.write("codes", self.outline.rows(piece).start, codes)
        self._file.write("ids", int(self.outline.id_starts[piece.first]), ids)
        self._file.write("list_digests", piece.first, digests)

    def finish(self, fingerprints: np.ndarray | None, word_counts: np.ndarray) -> int:
        """Write the remaining arrays and close the file; returns the crc32 of the checksums.

        fingerprints  [I] uint64, or None if the table of the images is in another file
        word_counts   [E] uint32
        """
        for key, array in self._known.items():
            self._file.write(key, 0, array)
        if fingerprints is not None:
            self._file.write("fingerprints", 0, fingerprints)
        self._file.write("word_counts", 0, word_counts)
        return self._file.finish()


def write_segment(
    folder: Folder, name: str, contents: Contents, vocabulary: int, *, with_table: bool = True
) -> Written:
    """Write a segment to the file `name` in the folder.

    with_table  whether the file has the table of the images, which a fused index keeps in another file
    """
    images = len(contents.names) if contents.entries is None else int(contents.entries.sum())
    ranges = -(-images >> RANGE_BITS)
    words, numbers = (np.ascontiguousarray(array, np.uint32) for array in (contents.words, contents.images))
    counts = postings.count_lists(words, numbers, vocabulary, RANGE_BITS, ranges)
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1].astype(np.int64)
    order = postings.order_postings(words, numbers, vocabulary, RANGE_BITS, starts)
    outline = SegmentOutline.of(counts, images, vocabulary)
    codes = np.ascontiguousarray(contents.codes, np.uint64)

    def bring(piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        rows = order[outline.rows(piece)]
        brought = np.empty(len(rows), np.uint32), np.empty((len(rows), codes.shape[1]), np.uint64)
        postings.gather(rows, numbers, codes, RANGE_BITS, *brought)
        return brought

    names, prints = (contents.names, contents.fingerprints) if with_table else (None, None)
    with SegmentWriter(folder, name, outline, names, codes.shape[1], contents.roots, contents.entries) as writer:
        writer.write_all(bring)
        word_counts = np.bincount(numbers, minlength=images).astype(np.uint32)
        return Written(writer.finish(prints, word_counts), len(contents.names), len(words))
