"""A segment: one immutable inverted file, mapped read-only.

The entries of a segment, which are its images or their regions, are numbered from 0. They are grouped in ranges of
65 536, so that the scores of a range stay in the cache while its postings are read; within a range, postings are sorted
by word, then by entry.

    codes [P, W] uint64          the binary code of each posting
    posting_starts [L+1] int64   list j (one word in one range) is postings posting_starts[j] to posting_starts[j+1]
    id_starts [L+1] int64        byte offset of its image numbers in `ids`
    ids [B] uint8                entry numbers within the range, Elias-Fano coded (kernels/elias_fano.py)
    list_words [L] uint32        the word of each list, increasing within a range; only words that occur
    list_digests [L] uint32      digest of the codes and image numbers of each list (kernels/match.py); missing in
                                 files of early versions
    range_starts [R+1] int64     range r is lists range_starts[r] to range_starts[r+1]
    word_counts [E] uint32       number of words of each entry
    entry_starts [I+1] int64     image i is entries entry_starts[i] to entry_starts[i+1], the first of them the whole
                                 image; missing if each image is one entry, as it is unless regions are separate
    names and fingerprints       see image_table.py
"""

from __future__ import annotations

import functools
import threading

import numpy as np

from asmk_engine.errors import DamagedError
from asmk_engine.indexes import image_table
from asmk_engine.indexes.image_table import ImageTable, table_of
from asmk_engine.inverted.geometry_file import GeometryTable
from asmk_engine.kernels import elias_fano, match
from asmk_engine.storage.arrays import ArrayFile

RANGE_BITS = 16
LIST_DIGESTS = "list_digests"
ENTRY_STARTS = "entry_starts"


def range_images(range_number: int, images: int) -> int:
    """Return the number of images, or entries, in a range of a segment of `images` of them."""
    return min(1 << RANGE_BITS, images - (range_number << RANGE_BITS))


_scratch = threading.local()


def _zeros(count: int) -> np.ndarray:
    """Return `count` zeros in a buffer that this thread reuses, which saves mapping new memory."""
    if len(getattr(_scratch, "scores", ())) < count:
        _scratch.scores = np.empty(count)
    scores: np.ndarray = _scratch.scores[:count]
    scores[:] = 0.0
    return scores


class Segment(ImageTable):
    """A mapped segment with its deletions.

    deleted     [images] bool, or None if no image was deleted
    codes, ids  not verified as a whole: `score` compares every list with its digest when it is first read
    geometry    the geometry of the features of its images, or None
    entries     number of entries, that of the images unless their regions are separate
    """

    geometry: GeometryTable | None = None

    posting_starts = table_of("posting_starts")
    id_starts = table_of("id_starts")
    list_words = table_of("list_words")
    range_starts = table_of("range_starts")
    entry_word_counts = table_of("word_counts")

    def __init__(
        self,
        file: ArrayFile,
        vocabulary: int,
        width: int,
        deleted: np.ndarray | None,
        moved: np.ndarray | None = None,
    ) -> None:
        self.entries = len(file.take("word_counts", "u4", None))
        separate = ENTRY_STARTS in file.arrays
        images = len(file.take(ENTRY_STARTS, "i8", None)) - 1 if separate else self.entries
        super().__init__(file, images, deleted, moved)
        self.vocabulary = vocabulary
        self.codes = file.take("codes", "u8", None, width)
        self.ids = file.take("ids", "u1", None)
        lists, ranges = len(file.take("list_words", "u4", None)), -(-self.entries >> RANGE_BITS)
        for name, dtype, length in (
            ("posting_starts", "i8", lists + 1),
            ("id_starts", "i8", lists + 1),
            ("range_starts", "i8", ranges + 1),
        ):
            file.take(name, dtype, length)
        if LIST_DIGESTS in file.arrays:
            file.take(LIST_DIGESTS, "u4", lists)
        self._check_outline()

    def _check_outline(self) -> None:
        """Check, at no cost when the index is opened, the ends of the tables and the order of `range_starts`."""
        arrays = self.file.arrays  # not verified here, but on first access
        starts = arrays["range_starts"]
        whole = (
            self.file.metadata.get("range_bits") == str(RANGE_BITS)
            and 0 <= self.images <= self.entries < image_table.MAX_IMAGES
            and bool((starts[1:] >= starts[:-1]).all())
            and starts[0] == 0
            and starts[-1] == len(arrays["list_words"])
            and arrays["posting_starts"][-1] == len(self.codes)
            and arrays["id_starts"][-1] == len(self.ids) - elias_fano.PADDING
            and self.is_outlined()
        )
        if not whole:
            raise DamagedError(f"{self.path}: its tables contradict each other; the file was altered, restore a copy")

    @property
    def is_regional(self) -> bool:
        """Whether an image can have several entries, one for each of its regions."""
        return ENTRY_STARTS in self.file.arrays

    @functools.cached_property
    def entry_starts(self) -> np.ndarray:
        """The first entry of each image, and the number of entries, [images + 1] int64."""
        if not self.is_regional:
            return np.arange(self.images + 1)
        starts = self.file.verified(ENTRY_STARTS)
        if starts[0] != 0 or starts[-1] != self.entries or (np.diff(starts) <= 0).any():
            raise DamagedError(f"{self.path}: the entries of its images are not one or more each; restore a copy")
        return starts

    @property
    def word_counts(self) -> np.ndarray:
        """The number of words of each image, [images] uint32; of an image with several entries, of the first."""
        counts = self.entry_word_counts
        return counts[self.entry_starts[:-1]] if self.is_regional else counts

    @property
    def deleted_entries(self) -> np.ndarray | None:
        """Which entries are of deleted images, [entries] bool, or None if no image was deleted."""
        if self.deleted is None or not self.is_regional:
            return self.deleted
        return np.repeat(self.deleted, np.diff(self.entry_starts))

    def live_entries(self) -> np.ndarray:
        """Return the numbers of the entries of images that are not deleted, increasing, int64."""
        deleted = self.deleted_entries
        return np.arange(self.entries) if deleted is None else np.flatnonzero(~deleted)

    @property
    def ranges(self) -> int:
        """Number of ranges of 65 536 entries."""
        return -(-self.entries >> RANGE_BITS)

    @property
    def postings(self) -> int:
        """Number of postings in the file, including those of deleted images."""
        return len(self.codes)

    def score(
        self, range_number: int, words: np.ndarray, codes: np.ndarray, weights: np.ndarray, table: np.ndarray
    ) -> np.ndarray:
        """Compute the unnormalised score of each entry of a range.

        words    [q] uint32, increasing words of the query
        codes    [q, W] uint64
        weights  [q] float64
        table    [64 W + 1] float64, contribution of each Hamming distance
        returns  [entries of the range] float64, 0 for one of a deleted image; valid until this thread scores
                 another range
        """
        first, last = (int(self.range_starts[range_number + i]) for i in (0, 1))
        lists = np.empty(len(words), np.int64)
        match.find_lists(self.list_words[first:last], words, lists)
        lists[lists >= 0] += first
        if LIST_DIGESTS not in self.file.arrays:
            self.verify_lists(lists)
        universe = range_images(range_number, self.entries)
        scores = _zeros(-(-universe // match.BUCKET) * match.BUCKET)
        damaged = match.match(
            lists, codes, weights, self.posting_starts, self.id_starts, self.ids, self.codes, *self._digests, table,
            universe, scores,
        )  # fmt: skip
        if damaged >= 0:
            raise DamagedError(f"{self.path}: list {damaged} is damaged; restore a copy, or index the images again")
        if (deleted := self.deleted_entries) is not None:
            begin = range_number << RANGE_BITS
            scores[:universe][deleted[begin : begin + universe]] = 0.0
        return scores[:universe]

    @functools.cached_property
    def _digests(self) -> tuple[np.ndarray, np.ndarray]:
        """The digest of every list, and which lists need no comparison with it, [L] each."""
        if LIST_DIGESTS in self.file.arrays:
            return self.file.verified(LIST_DIGESTS), np.zeros(len(self.list_words), np.uint8)
        return np.zeros(len(self.list_words), np.uint32), np.ones(len(self.list_words), np.uint8)

    def verify_lists(self, lists: np.ndarray) -> None:
        """Compare the checksums of the codes and image numbers of these lists, [q] int64 with -1 for none, once each.

        Raises DamagedError if data was altered. Lists that are already verified cost microseconds.
        """
        if self.file.blocks is None or self.file.blocks.whole:
            return
        wanted = lists[lists >= 0]
        for name, starts in (("codes", self.posting_starts), ("ids", self.id_starts)):
            self.file.verify_spans(name, starts[wanted], starts[wanted + 1])

    def list_lengths(self) -> np.ndarray:
        """Count the live postings of every word, [K] int64."""
        lengths = np.diff(self.posting_starts)
        if (lengths < 0).any() or (self.list_words >= self.vocabulary).any():
            raise DamagedError(f"{self.path}: its lists contradict each other; restore a copy")
        if (deleted := self.deleted_entries) is not None:
            live = ~deleted[self.decode_images()]
            lengths = np.diff(np.concatenate([[0], np.cumsum(live)])[self.posting_starts])
        return np.bincount(self.list_words, lengths, minlength=self.vocabulary).astype(np.int64)

    def decode_images(self) -> np.ndarray:
        """Decode the entry number of every posting, [P] uint32; raises DamagedError for a damaged list."""
        images = np.empty(self.postings, np.uint32)
        self.file.verified("ids")
        for r in range(self.ranges):
            span = slice(int(self.range_starts[r]), int(self.range_starts[r + 1]) + 1)
            universe = range_images(r, self.entries)
            starts = self.posting_starts[span]
            damaged = elias_fano.decode(self.ids, starts, self.id_starts[span], universe, images)
            if damaged >= 0:
                raise DamagedError(f"{self.path}: list {span.start + damaged} is damaged; restore a copy")
            images[int(starts[0]) : int(starts[-1])] += np.uint32(r << RANGE_BITS)
        return images

    def decode_words(self) -> np.ndarray:
        """Return the word of every posting, [P] uint32."""
        lengths = np.diff(self.posting_starts)
        if (lengths < 0).any() or int(lengths.sum()) != self.postings or (self.list_words >= self.vocabulary).any():
            raise DamagedError(f"{self.path}: its lists contradict each other; restore a copy")
        return np.repeat(self.list_words, lengths)
