"""Writing a segment: all at once from postings in memory, or piece by piece when only its outline is known."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asmk_engine.arrays import ArrayWriter
from asmk_engine.errors import InputError
from asmk_engine.kernels import elias_fano, postings
from asmk_engine.segment import RANGE_BITS, range_images
from asmk_engine.store import Folder


@dataclass(frozen=True)
class Contents:
    """The images and postings of a segment, in memory.

    names [I], fingerprints [I] uint64; words [P] uint32, images [P] uint32 and codes [P, W] uint64 of the postings,
    in any order in which the images of a word increase
    """

    names: Sequence[bytes]
    fingerprints: np.ndarray
    words: np.ndarray
    images: np.ndarray
    codes: np.ndarray


@dataclass(frozen=True)
class Outline:
    """The tables of a segment, all that follows from how many postings each (range, word) has.

    images          how many
    list_words [L] uint32, posting_starts [L+1] int64, id_starts [L+1] int64, range_starts [R+1] int64: see `segment`
    """

    images: int
    list_words: np.ndarray
    posting_starts: np.ndarray
    id_starts: np.ndarray
    range_starts: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray, images: int, vocabulary: int) -> Outline:
        """The outline for `counts` [ranges * vocabulary] int64 postings, words of a range side by side."""
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
        """All postings."""
        return int(self.posting_starts[-1])


class SegmentWriter:
    """Writes the file of a segment whose outline is known; use it as a context manager.

    Nothing appears under the final name before `finish`.
    """

    def __init__(self, folder: Folder, name: str, outline: Outline, names: Sequence[bytes], width: int) -> None:
        self.outline = outline
        name_arrays = _name_arrays(names)
        self._known = {
            "list_words": outline.list_words,
            "posting_starts": outline.posting_starts,
            "id_starts": outline.id_starts,
            "range_starts": outline.range_starts,
            **name_arrays,
        }
        shapes = {key: (array.dtype, array.shape) for key, array in self._known.items()}
        shapes |= {
            "codes": (np.dtype(np.uint64), (outline.postings, width)),
            "ids": (np.dtype(np.uint8), (int(outline.id_starts[-1]) + elias_fano.PADDING,)),
            "word_counts": (np.dtype(np.uint32), (outline.images,)),
            "fingerprints": (np.dtype(np.uint64), (outline.images,)),
        }
        metadata = {"kind": "asmk-engine segment", "range_bits": str(RANGE_BITS)}
        self._file = ArrayWriter(folder, name, shapes, metadata)

    def __enter__(self) -> SegmentWriter:
        self._file.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(None, None, None)

    def write_lists(self, first: int, last: int, universe: int, numbers: np.ndarray, codes: np.ndarray) -> None:
        """Write lists `first` to `last` (exclusive), all of one range of `universe` images.

        numbers [n] uint32, image numbers inside the range, and codes [n, W] uint64, in the order of the lists
        """
        posting_starts = self.outline.posting_starts[first : last + 1]
        id_starts = self.outline.id_starts[first : last + 1]
        ids = np.zeros(int(id_starts[-1] - id_starts[0]), np.uint8)
        elias_fano.encode(numbers, posting_starts - posting_starts[0], id_starts - id_starts[0], universe, ids)
        self._file.write("codes", int(posting_starts[0]), codes)
        self._file.write("ids", int(id_starts[0]), ids)

    def finish(self, fingerprints: np.ndarray, word_counts: np.ndarray) -> int:
        """Write what is left, [I] uint64 and [I] uint32; returns the crc32 of the checksums."""
        for key, array in self._known.items():
            self._file.write(key, 0, array)
        self._file.write("fingerprints", 0, fingerprints)
        self._file.write("word_counts", 0, word_counts)
        return self._file.finish()


def _name_arrays(names: Sequence[bytes]) -> dict[str, np.ndarray]:
    order = sorted(range(len(names)), key=names.__getitem__)
    if any(names[one] == names[other] for one, other in itertools.pairwise(order)):
        raise InputError("two images of one segment have the same name; names must be unique")
    lengths = np.fromiter(map(len, names), np.int64, len(names))
    return {
        "name_bytes": np.frombuffer(b"".join(names), np.uint8),
        "name_offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "name_order": np.array(order, np.uint32),
    }


def write_segment(folder: Folder, name: str, contents: Contents, vocabulary: int) -> int:
    """Write a segment as the file `name` of the folder; returns the crc32 of its checksums."""
    images = len(contents.names)
    ranges = -(-images >> RANGE_BITS)
    words, numbers = (np.ascontiguousarray(array, np.uint32) for array in (contents.words, contents.images))
    counts = postings.count_lists(words, numbers, vocabulary, RANGE_BITS, ranges)
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1].astype(np.int64)
    order = postings.order_postings(words, numbers, vocabulary, RANGE_BITS, starts)
    outline = Outline.of(counts, images, vocabulary)
    inside = numbers[order] & np.uint32((1 << RANGE_BITS) - 1)
    with SegmentWriter(folder, name, outline, contents.names, contents.codes.shape[1]) as writer:
        for r in range(ranges):
            first, last = int(outline.range_starts[r]), int(outline.range_starts[r + 1])
            rows = slice(int(outline.posting_starts[first]), int(outline.posting_starts[last]))
            writer.write_lists(first, last, range_images(r, images), inside[rows], contents.codes[order[rows]])
        word_counts = np.bincount(numbers, minlength=images).astype(np.uint32)
        return writer.finish(contents.fingerprints, word_counts)
