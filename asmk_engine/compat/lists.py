"""Posting lists of consecutive images in memory: binary ones in a segment of the engine, and real-valued ones.

Both can be scored, and converted back into columns to be merged with adjacent runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from asmk_engine.inverted.segment import RANGE_BITS, Segment, range_images
from asmk_engine.inverted.segment_writer import SegmentOutline
from asmk_engine.kernels import elias_fano, postings
from asmk_engine.storage.arrays import ArrayFile

Similarity = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Columns:
    """Postings of `images` consecutive images, starting with number `first`.

    words    [P] uint32
    numbers  [P] uint32, image numbers relative to `first`, increasing within a word
    vectors  [P, W]
    """

    first: int
    images: int
    words: np.ndarray
    numbers: np.ndarray
    vectors: np.ndarray

    @property
    def end(self) -> int:
        """The number after that of the last image."""
        return self.first + self.images


def join(before: Columns, after: Columns) -> Columns:
    """Concatenate the postings of two adjacent runs of images."""
    shifted = after.numbers + np.uint32(after.first - before.first)
    return Columns(
        before.first,
        after.end - before.first,
        np.concatenate([before.words, after.words]),
        np.concatenate([before.numbers, shifted]),
        np.concatenate([before.vectors, after.vectors]),
    )


class Lists(Protocol):
    """The interface of both kinds of lists that `inverted_file` uses."""

    first: int
    images: int
    postings: int
    word_counts: np.ndarray

    def columns(self) -> Columns:
        """Return the postings, word by word."""

    def score(self, words: np.ndarray, vectors: np.ndarray, weights: np.ndarray, worth: Similarity) -> np.ndarray:
        """Compute the unnormalised score of each image, [images] float64.

        words    [q], increasing words of the query
        vectors  [q, W], in the form of the postings
        weights  [q] float64
        worth    maps similarities to contributions
        """


class BinaryLists:
    """Codes packed into 32-bit words, in a segment of the engine without a file.

    dim  number of bits of a code
    """

    def __init__(self, columns: Columns, vocabulary: int, dim: int) -> None:
        self.first, self.images, self.postings = columns.first, columns.images, len(columns.words)
        self._dim, self._packed = dim, columns.vectors.shape[1]
        self._segment = _segment_in_memory(columns, vocabulary)
        self.word_counts = self._segment.word_counts

    def columns(self) -> Columns:
        """Return the postings, word by word."""
        segment = self._segment
        vectors = np.asarray(segment.codes).view(np.uint32)[:, : self._packed]
        return Columns(self.first, self.images, segment.decode_words(), segment.decode_images(), vectors)

    def score(self, words: np.ndarray, vectors: np.ndarray, weights: np.ndarray, worth: Similarity) -> np.ndarray:
        """See `Lists`; the similarity of codes that differ in h bits is 1 - 2 h / dim."""
        codes = wide_codes(vectors)
        table = np.zeros(64 * codes.shape[1] + 1)
        table[: self._dim + 1] = worth(1.0 - 2.0 * np.arange(self._dim + 1) / self._dim)
        wanted = words.astype(np.uint32)
        ranges = [self._segment.score(r, wanted, codes, weights, table).copy() for r in range(self._segment.ranges)]
        return np.concatenate(ranges)


class RealLists:
    """Real-valued vectors with inner products as similarities."""

    def __init__(self, columns: Columns) -> None:
        self.first, self.images, self.postings = columns.first, columns.images, len(columns.words)
        order = np.argsort(columns.words, kind="stable")
        self._words, self._numbers, self._vectors = (
            column[order] for column in (columns.words, columns.numbers, columns.vectors)
        )
        self.word_counts = np.bincount(columns.numbers, minlength=columns.images)

    def columns(self) -> Columns:
        """Return the postings, word by word."""
        return Columns(self.first, self.images, self._words, self._numbers, self._vectors)

    def score(self, words: np.ndarray, vectors: np.ndarray, weights: np.ndarray, worth: Similarity) -> np.ndarray:
        """See `Lists`."""
        begins, ends = (np.searchsorted(self._words, words, side) for side in ("left", "right"))
        places = [slice(begin, end) for begin, end in zip(begins, ends, strict=True)]
        # Not `@`: the rounding of a matrix product depends on the number of rows, and so on the division into runs.
        products = [(self._vectors[place] * one).sum(axis=1) for place, one in zip(places, vectors, strict=True)]
        values = worth(np.concatenate([np.empty(0), *products])) * np.repeat(weights, ends - begins)
        numbers = np.concatenate([np.empty(0, np.int64), *(self._numbers[place] for place in places)])
        return np.bincount(numbers.astype(np.int64), values, minlength=self.images)


def wide_codes(packed: np.ndarray) -> np.ndarray:
    """Convert codes [P, w] uint32 to [P, ceil(w / 2)] uint64, the last one padded with zeros."""
    width = packed.shape[1]
    padded = np.zeros((len(packed), width + width % 2), np.uint32)
    padded[:, :width] = packed
    return padded.view(np.uint64)


def _segment_in_memory(columns: Columns, vocabulary: int) -> Segment:
    """Make the segment that `write_segment` would write, without names and fingerprints."""
    ranges = -(-columns.images >> RANGE_BITS)
    counts = postings.count_lists(columns.words, columns.numbers, vocabulary, RANGE_BITS, ranges)
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1].astype(np.int64)
    order = postings.order_postings(columns.words, columns.numbers, vocabulary, RANGE_BITS, starts)
    outline = SegmentOutline.of(counts, columns.images, vocabulary)
    codes = wide_codes(columns.vectors[order])
    arrays = {
        "codes": codes,
        "ids": _encoded(columns.numbers[order], outline),
        **{name: getattr(outline, name) for name in ("list_words", "posting_starts", "id_starts", "range_starts")},
        "word_counts": np.bincount(columns.numbers, minlength=columns.images).astype(np.uint32),
        "fingerprints": np.zeros(columns.images, np.uint64),
        "name_bytes": np.empty(0, np.uint8),
        "name_offsets": np.zeros(columns.images + 1, np.int64),
        "name_order": np.zeros(columns.images, np.uint32),
    }
    file = ArrayFile(Path("inverted file in memory"), arrays, {"range_bits": str(RANGE_BITS)}, 0)
    return Segment(file, vocabulary, codes.shape[1], None)


def _encoded(numbers: np.ndarray, outline: SegmentOutline) -> np.ndarray:
    ids = np.zeros(int(outline.id_starts[-1]) + elias_fano.PADDING, np.uint8)
    inside = numbers & np.uint32((1 << RANGE_BITS) - 1)
    for r in range(len(outline.range_starts) - 1):
        lists = slice(int(outline.range_starts[r]), int(outline.range_starts[r + 1]) + 1)
        starts = outline.posting_starts[lists], outline.id_starts[lists]
        elias_fano.encode(inside, *starts, range_images(r, outline.images), ids)
    return ids
