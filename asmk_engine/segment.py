"""A segment: one immutable inverted file, mapped read-only.

The images of a segment are numbered from 0. They are grouped in ranges of 65 536, so that the scores of a range stay
in the cache while its postings are read; inside a range the postings stand word by word, and in a word by image.

    codes [P, W] uint64          the binary code of each posting
    posting_starts [L+1] int64   list j (one word in one range) is postings posting_starts[j] to posting_starts[j+1]
    id_starts [L+1] int64        where its image numbers begin in `ids`
    ids [B] uint8                image numbers inside the range, Elias-Fano coded (kernels/elias_fano.py)
    list_words [L] uint32        the word of each list, increasing inside a range: only words that occur
    range_starts [R+1] int64     the lists of each range
    word_counts [I] uint32       words of each image
    fingerprints [I] uint64      fingerprint of what each image was made from
    name_bytes, name_offsets [I+1] int64, name_order [I] uint32   names in UTF-8, and their numbers in byte order
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asmk_engine.arrays import ArrayFile, map_arrays, write_arrays
from asmk_engine.errors import DamagedError, InputError
from asmk_engine.kernels import elias_fano, match, postings
from asmk_engine.store import Folder

RANGE_BITS = 16
MAX_IMAGES = 1 << 31


@dataclass(frozen=True)
class Contents:
    """What a segment is made from, and what `Segment.contents` gives back.

    names [I], fingerprints [I] uint64; words [P] uint32, images [P] uint32 and codes [P, W] uint64 of the postings,
    in any order in which the images of a word increase
    """

    names: Sequence[str]
    fingerprints: np.ndarray
    words: np.ndarray
    images: np.ndarray
    codes: np.ndarray


def write_segment(folder: Folder, name: str, contents: Contents, vocabulary: int) -> int:
    """Write a segment as the file `name` of the folder; returns the crc32 of its checksums."""
    arrays = {**_name_arrays(contents.names), **_posting_arrays(contents, vocabulary)}
    arrays["fingerprints"] = contents.fingerprints.astype(np.uint64)
    counts = np.bincount(contents.images, minlength=len(contents.names))
    arrays["word_counts"] = counts.astype(np.uint32)
    return write_arrays(folder, name, arrays, {"kind": "asmk-engine segment", "range_bits": str(RANGE_BITS)})


def _name_arrays(names: Sequence[str]) -> dict[str, np.ndarray]:
    encoded = [name.encode() for name in names]
    if len(set(encoded)) != len(encoded):
        raise InputError("two images of one segment have the same name; names must be unique")
    lengths = np.array([len(name) for name in encoded], np.int64)
    return {
        "name_bytes": np.frombuffer(b"".join(encoded), np.uint8),
        "name_offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "name_order": np.array(sorted(range(len(encoded)), key=encoded.__getitem__), np.uint32),
    }


def _posting_arrays(contents: Contents, vocabulary: int) -> dict[str, np.ndarray]:
    ranges = -(-len(contents.names) >> RANGE_BITS) if contents.names else 0
    words, images = (np.ascontiguousarray(array, np.uint32) for array in (contents.words, contents.images))
    counts = postings.count_lists(words, images, vocabulary, RANGE_BITS, ranges)
    starts = np.concatenate([[0], np.cumsum(counts)])
    order = postings.order_postings(words, images, vocabulary, RANGE_BITS, starts[:-1].copy())
    lists = np.flatnonzero(counts)
    posting_starts = np.concatenate([starts[lists], [len(words)]]).astype(np.int64)
    range_starts = np.searchsorted(lists, np.arange(ranges + 1) * vocabulary).astype(np.int64)
    id_starts, ids = _encode_ids(images[order], posting_starts, range_starts, len(contents.names))
    return {
        "codes": contents.codes[order],
        "posting_starts": posting_starts,
        "id_starts": id_starts,
        "ids": ids,
        "list_words": (lists % vocabulary).astype(np.uint32),
        "range_starts": range_starts,
    }


def range_images(range_number: int, images: int) -> int:
    """How many images a range of a segment of `images` images holds."""
    return min(1 << RANGE_BITS, images - (range_number << RANGE_BITS))


def _encode_ids(
    images: np.ndarray, posting_starts: np.ndarray, range_starts: np.ndarray, total: int
) -> tuple[np.ndarray, np.ndarray]:
    numbers = (images & np.uint32((1 << RANGE_BITS) - 1)).astype(np.uint32)
    id_starts = np.zeros(len(posting_starts), np.int64)
    spans = [slice(int(range_starts[r]), int(range_starts[r + 1]) + 1) for r in range(len(range_starts) - 1)]
    for r, span in enumerate(spans):
        counts = np.diff(posting_starts[span])
        id_starts[span] = id_starts[span.start] + elias_fano.list_starts(counts, range_images(r, total))
    ids = np.zeros(int(id_starts[-1]) + elias_fano.PADDING, np.uint8)
    for r, span in enumerate(spans):
        elias_fano.encode(numbers, posting_starts[span], id_starts[span], range_images(r, total), ids)
    return id_starts, ids


class Segment:
    """A mapped segment with the images that were deleted from it.

    deleted  [images] bool, or None when none was
    """

    def __init__(self, file: ArrayFile, vocabulary: int, width: int, deleted: np.ndarray | None) -> None:
        self.file = file
        self.vocabulary = vocabulary
        self.deleted = deleted
        self.word_counts = file.take("word_counts", "u4", None)
        self.images = len(self.word_counts)
        self.codes = file.take("codes", "u8", None, width)
        self.list_words = file.take("list_words", "u4", None)
        lists, ranges = len(self.list_words), -(-self.images >> RANGE_BITS)
        self.posting_starts = file.take("posting_starts", "i8", lists + 1)
        self.id_starts = file.take("id_starts", "i8", lists + 1)
        self.ids = file.take("ids", "u1", None)
        self.range_starts = file.take("range_starts", "i8", ranges + 1)
        self.fingerprints = file.take("fingerprints", "u8", self.images)
        self._name_bytes = file.take("name_bytes", "u1", None)
        self._name_offsets = file.take("name_offsets", "i8", self.images + 1)
        self._name_order = file.take("name_order", "u4", self.images)
        self._check_outline()

    def _check_outline(self) -> None:
        """The checks that cost nothing at open: ends of the tables, and the lists of each range in order."""
        starts = self.range_starts
        whole = (
            self.file.metadata.get("range_bits") == str(RANGE_BITS)
            and self.images < MAX_IMAGES
            and bool((np.diff(starts) >= 0).all())
            and starts[0] == 0
            and starts[-1] == len(self.list_words)
            and self.posting_starts[-1] == len(self.codes)
            and self.id_starts[-1] == len(self.ids) - elias_fano.PADDING
            and self._name_offsets[-1] == len(self._name_bytes)
            and (self.deleted is None or len(self.deleted) == self.images)
        )
        if not whole:
            raise DamagedError(f"{self.path}: its tables contradict each other; the file was altered, restore a copy")

    @classmethod
    def open(
        cls, folder: Folder, name: str, vocabulary: int, width: int, deleted: np.ndarray | None, checksum: int | None
    ) -> Segment:
        """Map the segment `name`; DamagedError when it contradicts itself, the codebook or the manifest."""
        return cls(map_arrays(folder, name, checksum), vocabulary, width, deleted)

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    @property
    def ranges(self) -> int:
        """How many ranges of 65 536 images there are."""
        return len(self.range_starts) - 1

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
        begin, end = int(self._name_offsets[number]), int(self._name_offsets[number + 1])
        if not 0 <= begin <= end <= len(self._name_bytes):
            raise DamagedError(f"{self.path}: the name of image {number} lies outside the file; it was altered")
        return self._name_bytes[begin:end].tobytes()

    def name(self, number: int) -> str:
        """The name of an image; DamagedError when its bytes are no UTF-8."""
        try:
            return self.name_as_bytes(number).decode()
        except UnicodeDecodeError:
            raise DamagedError(f"{self.path}: the name of image {number} is not UTF-8; the file was altered") from None

    def find(self, name: str) -> int | None:
        """The number of the image called `name`, deleted or not, or None."""
        wanted = name.encode()
        low, high = 0, self.images
        while low < high:
            middle = (low + high) // 2
            if self._name_at(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        found = low < self.images and self._name_at(low) == wanted
        return int(self._name_order[low]) if found else None

    def _name_at(self, place: int) -> bytes:
        number = int(self._name_order[place])
        if number >= self.images:
            raise DamagedError(
                f"{self.path}: its table of names speaks of image {number} of {self.images}; it was altered"
            )
        return self.name_as_bytes(number)

    def names(self) -> Iterator[str]:
        """Names of the images that are not deleted, by number."""
        return (self.name(int(number)) for number in self.live_numbers())

    def score(
        self, range_number: int, words: np.ndarray, codes: np.ndarray, weights: np.ndarray, table: np.ndarray
    ) -> np.ndarray:
        """What the postings of the query's words are worth to each image of a range, before normalisation.

        words [q] uint32, increasing; codes [q, W] uint64; weights [q] float64; table [64 W + 1] float64 by distance
        returns  [images of the range] float64, 0 for a deleted image
        """
        first, last = (int(self.range_starts[range_number + i]) for i in (0, 1))
        lists = np.empty(len(words), np.int64)
        match.find_lists(self.list_words[first:last], words, lists)
        lists[lists >= 0] += first
        scores = np.zeros(range_images(range_number, self.images))
        damaged = match.match(
            lists, codes, weights, self.posting_starts, self.id_starts, self.ids, self.codes, table, scores
        )
        if damaged >= 0:
            raise DamagedError(f"{self.path}: list {damaged} is damaged; restore a copy, or index the images again")
        if self.deleted is not None:
            begin = range_number << RANGE_BITS
            scores[self.deleted[begin : begin + len(scores)]] = 0.0
        return scores

    def decode_images(self) -> np.ndarray:
        """The image number of every posting, in posting order, [P] uint32; DamagedError when a list is not whole."""
        images = np.empty(self.postings, np.uint32)
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

    def contents(self) -> Contents:
        """Everything that is not deleted, its images numbered anew from 0."""
        words, images, codes = self.decode_words(), self.decode_images(), self.codes
        numbers = self.live_numbers()
        if self.deleted is not None:
            keep = ~self.deleted[images]
            renumbered = np.cumsum(~self.deleted) - 1
            words, images, codes = words[keep], renumbered[images[keep]].astype(np.uint32), codes[keep]
        return Contents(list(self.names()), self.fingerprints[numbers], words, images, codes)


def join(parts: Sequence[Contents]) -> Contents:
    """The contents of several segments one after the other, their images numbered through."""
    bases = np.cumsum([0, *(len(part.names) for part in parts)])
    shifted = [part.images + np.uint32(base) for part, base in zip(parts, bases[:-1], strict=True)]
    return Contents(
        [name for part in parts for name in part.names],
        np.concatenate([part.fingerprints for part in parts]),
        np.concatenate([part.words for part in parts]),
        np.concatenate(shifted),
        np.concatenate([part.codes for part in parts]),
    )
