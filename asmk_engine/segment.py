"""A segment: one immutable inverted file, mapped read-only.

The images of a segment are numbered from 0. They are grouped in ranges of 65 536, so that the scores of a range stay
in the cache while its postings are read; inside a range the postings stand word by word, and in a word by image.

    codes [P, W] uint64          the binary code of each posting
    posting_starts [L+1] int64   list j (one word in one range) is postings posting_starts[j] to posting_starts[j+1]
    id_starts [L+1] int64        where its image numbers begin in `ids`
    ids [B] uint8                image numbers inside the range, Elias-Fano coded (kernels/elias_fano.py)
    list_words [L] uint32        the word of each list, increasing inside a range: only words that occur
    list_digests [L] uint32      what stands for the codes and image numbers of each list (kernels/match.py); files of
                                 early versions have none
    range_starts [R+1] int64     the lists of each range
    word_counts [I] uint32       words of each image
    fingerprints [I] uint64      fingerprint of what each image was made from
    name_bytes, name_offsets [I+1] int64, name_order [I] uint32   names in UTF-8, and their numbers in byte order
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from asmk_engine.arrays import ArrayFile
from asmk_engine.errors import DamagedError
from asmk_engine.kernels import elias_fano, match
from asmk_engine.kernels.names import find_names

RANGE_BITS = 16
LIST_DIGESTS = "list_digests"
MAX_IMAGES = 1 << 31


def range_images(range_number: int, images: int) -> int:
    """How many images a range of a segment of `images` images holds."""
    return min(1 << RANGE_BITS, images - (range_number << RANGE_BITS))


_scratch = threading.local()


def _zeros(count: int) -> np.ndarray:
    """So many zeros, in memory that this thread uses again: new memory would have to be mapped first."""
    if len(getattr(_scratch, "scores", ())) < count:
        _scratch.scores = np.empty(count)
    scores: np.ndarray = _scratch.scores[:count]
    scores[:] = 0.0
    return scores


def _table(name: str) -> functools.cached_property[np.ndarray]:
    """An array of the file, compared with its checksums when it is first asked for."""
    return functools.cached_property(lambda segment: segment.file.verified(name))


class Segment:
    """A mapped segment with the images that were deleted from it.

    deleted  [images] bool, or None when none was
    codes, ids   not compared with their checksums as a whole: `score` compares every list with its digest when it is
                 first read
    """

    posting_starts = _table("posting_starts")
    id_starts = _table("id_starts")
    list_words = _table("list_words")
    range_starts = _table("range_starts")
    word_counts = _table("word_counts")
    fingerprints = _table("fingerprints")
    name_order = _table("name_order")

    def __init__(self, file: ArrayFile, vocabulary: int, width: int, deleted: np.ndarray | None) -> None:
        self.file = file
        self.vocabulary = vocabulary
        self.deleted = deleted
        self.images = len(file.take("word_counts", "u4", None))
        self.codes = file.take("codes", "u8", None, width)
        self.ids = file.take("ids", "u1", None)
        lists, ranges = len(file.take("list_words", "u4", None)), -(-self.images >> RANGE_BITS)
        for name, dtype, length in (
            ("posting_starts", "i8", lists + 1),
            ("id_starts", "i8", lists + 1),
            ("range_starts", "i8", ranges + 1),
            ("fingerprints", "u8", self.images),
        ):
            file.take(name, dtype, length)
        if LIST_DIGESTS in file.arrays:
            file.take(LIST_DIGESTS, "u4", lists)
        self._name_bytes = file.take("name_bytes", "u1", None)
        self._name_offsets = file.take("name_offsets", "i8", self.images + 1)
        self._name_order = file.take("name_order", "u4", self.images)
        self._check_outline()

    def _check_outline(self) -> None:
        """The checks that cost nothing at open: ends of the tables, and the lists of each range in order."""
        arrays = self.file.arrays  # as they are: what is asked for later is compared then
        starts = arrays["range_starts"]
        whole = (
            self.file.metadata.get("range_bits") == str(RANGE_BITS)
            and self.images < MAX_IMAGES
            and bool((starts[1:] >= starts[:-1]).all())
            and starts[0] == 0
            and starts[-1] == len(arrays["list_words"])
            and arrays["posting_starts"][-1] == len(self.codes)
            and arrays["id_starts"][-1] == len(self.ids) - elias_fano.PADDING
            and self._name_offsets[-1] == len(self._name_bytes)
            and (self.deleted is None or len(self.deleted) == self.images)
        )
        if not whole:
            raise DamagedError(f"{self.path}: its tables contradict each other; the file was altered, restore a copy")

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    @property
    def ranges(self) -> int:
        """How many ranges of 65 536 images there are."""
        return -(-self.images >> RANGE_BITS)

    @property
    def postings(self) -> int:
        """Postings in the file, those of deleted images included."""
        return len(self.codes)

    @property
    def live(self) -> int:
        """Images that are not deleted."""
        return self.images - (0 if self.deleted is None else int(np.count_nonzero(self.deleted)))

    def live_numbers(self) -> np.ndarray:
        """Numbers of the images that are not deleted, increasing, [live] int64."""
        return np.arange(self.images) if self.deleted is None else np.flatnonzero(~self.deleted)

    def name_as_bytes(self, number: int) -> bytes:
        """The UTF-8 bytes of the name of an image."""
        self.file.verify_rows("name_offsets", number, number + 2)
        begin, end = int(self._name_offsets[number]), int(self._name_offsets[number + 1])
        if not 0 <= begin <= end <= len(self._name_bytes):
            raise DamagedError(f"{self.path}: the name of image {number} lies outside the file; it was altered")
        self.file.verify_rows("name_bytes", begin, end)
        return self._name_bytes[begin:end].tobytes()

    def names_as_bytes(self, numbers: np.ndarray) -> list[bytes]:
        """The names of images as UTF-8 bytes; many times as fast as one by one."""
        self.file.verified("name_offsets"), self.file.verified("name_bytes")
        begins, ends = self._name_offsets[numbers], self._name_offsets[numbers + 1]
        if (begins < 0).any() or (ends < begins).any() or (ends > len(self._name_bytes)).any():
            raise DamagedError(f"{self.path}: a name lies outside the file; it was altered")
        data = self._name_bytes.data
        return [bytes(data[begin:end]) for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]

    def name(self, number: int) -> str:
        """The name of an image; DamagedError when its bytes are no UTF-8."""
        try:
            return self.name_as_bytes(number).decode()
        except UnicodeDecodeError:
            raise DamagedError(f"{self.path}: the name of image {number} is not UTF-8; the file was altered") from None

    def find(self, wanted: Sequence[str]) -> np.ndarray:
        """The numbers of the images of these names, deleted or not, [n] int64; -1 for a name that is not there."""
        encoded = [name.encode("utf-8", "surrogatepass") for name in wanted]
        offsets = np.concatenate([[0], np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))])
        joined = np.frombuffer(b"".join(encoded), np.uint8)
        numbers = np.empty(len(encoded), np.int64)
        tables = [self.file.verified(name) for name in ("name_bytes", "name_offsets", "name_order")]
        damaged = find_names(*tables, joined, offsets.astype(np.int64), numbers)
        if damaged >= 0:
            raise DamagedError(f"{self.path}: place {damaged} of its table of names contradicts it; it was altered")
        return numbers

    def names(self) -> Iterator[str]:
        """Names of the images that are not deleted, by number."""
        self.file.verified("name_offsets"), self.file.verified("name_bytes")
        return (self.name(int(number)) for number in self.live_numbers())

    def score(
        self, range_number: int, words: np.ndarray, codes: np.ndarray, weights: np.ndarray, table: np.ndarray
    ) -> np.ndarray:
        """What the postings of the query's words are worth to each image of a range, before normalisation.

        words [q] uint32, increasing; codes [q, W] uint64; weights [q] float64; table [64 W + 1] float64 by distance
        returns  [images of the range] float64, 0 for a deleted image; good until this thread scores another range
        """
        first, last = (int(self.range_starts[range_number + i]) for i in (0, 1))
        lists = np.empty(len(words), np.int64)
        match.find_lists(self.list_words[first:last], words, lists)
        lists[lists >= 0] += first
        if LIST_DIGESTS not in self.file.arrays:
            self.verify_lists(lists)
        universe = range_images(range_number, self.images)
        scores = _zeros(-(-universe // match.BUCKET) * match.BUCKET)
        damaged = match.match(
            lists, codes, weights, self.posting_starts, self.id_starts, self.ids, self.codes, *self._digests, table,
            universe, scores,
        )  # fmt: skip
        if damaged >= 0:
            raise DamagedError(f"{self.path}: list {damaged} is damaged; restore a copy, or index the images again")
        if self.deleted is not None:
            begin = range_number << RANGE_BITS
            scores[:universe][self.deleted[begin : begin + universe]] = 0.0
        return scores[:universe]

    @functools.cached_property
    def _digests(self) -> tuple[np.ndarray, np.ndarray]:
        """The digest of every list, and which lists need not be compared with it any more, [L] each."""
        if LIST_DIGESTS in self.file.arrays:
            return self.file.verified(LIST_DIGESTS), np.zeros(len(self.list_words), np.uint8)
        return np.zeros(len(self.list_words), np.uint32), np.ones(len(self.list_words), np.uint8)

    def verify_lists(self, lists: np.ndarray) -> None:
        """Compare the checksums of the codes and image numbers of some lists, [q] int64 with -1 for none, once each.

        DamagedError when something was altered; what was verified before costs microseconds.
        """
        if self.file.blocks is None or self.file.blocks.whole:
            return
        wanted = lists[lists >= 0]
        for name, starts in (("codes", self.posting_starts), ("ids", self.id_starts)):
            self.file.verify_spans(name, starts[wanted], starts[wanted + 1])

    def list_lengths(self) -> np.ndarray:
        """Live postings of every word, [K] int64."""
        lengths = np.diff(self.posting_starts)
        if (lengths < 0).any() or (self.list_words >= self.vocabulary).any():
            raise DamagedError(f"{self.path}: its lists contradict each other; restore a copy")
        if self.deleted is not None:
            live = ~self.deleted[self.decode_images()]
            lengths = np.diff(np.concatenate([[0], np.cumsum(live)])[self.posting_starts])
        return np.bincount(self.list_words, lengths, minlength=self.vocabulary).astype(np.int64)

    def decode_images(self) -> np.ndarray:
        """The image number of every posting, in posting order, [P] uint32; DamagedError when a list is not whole."""
        images = np.empty(self.postings, np.uint32)
        self.file.verified("ids")
        for r in range(self.ranges):
            span = slice(int(self.range_starts[r]), int(self.range_starts[r + 1]) + 1)
            universe = range_images(r, self.images)
            starts = self.posting_starts[span]
            damaged = elias_fano.decode(self.ids, starts, self.id_starts[span], universe, images)
            if damaged >= 0:
                raise DamagedError(f"{self.path}: list {span.start + damaged} is damaged; restore a copy")
            images[int(starts[0]) : int(starts[-1])] += np.uint32(r << RANGE_BITS)
        return images

    def decode_words(self) -> np.ndarray:
        """The word of every posting, in posting order, [P] uint32."""
        lengths = np.diff(self.posting_starts)
        if (lengths < 0).any() or int(lengths.sum()) != self.postings or (self.list_words >= self.vocabulary).any():
            raise DamagedError(f"{self.path}: its lists contradict each other; restore a copy")
        return np.repeat(self.list_words, lengths)
