"""Indexed images as queries: their signatures out of the postings of a segment."""

from __future__ import annotations

import numpy as np

from asmk_engine.errors import DamagedError
from asmk_engine.inverted.segment import RANGE_BITS, Segment, range_images
from asmk_engine.inverted.signatures import Signature
from asmk_engine.kernels import elias_fano


class StoredSignatures:
    """Collects the signatures of the images of a segment; the image numbers of one range are in memory at a time."""

    def __init__(self, segment: Segment, dim: int) -> None:
        self._segment, self._dim = segment, dim
        self._range = -1
        self._images = np.empty(0, np.uint32)
        self._words = np.empty(0, np.uint32)

    def between(self, begin: int, end: int) -> list[Signature]:
        """Return the signatures of images `begin` to `end` (exclusive), deleted ones among them.

        Raises DamagedError if data was altered.
        """
        found: list[Signature] = []
        while begin < end:
            r = begin >> RANGE_BITS
            last = min(end, (r + 1) << RANGE_BITS)
            found += self._of_range(r, begin, last)
            begin = last
        return found

    def _of_range(self, r: int, begin: int, end: int) -> list[Signature]:
        self._decode(r)
        segment, base = self._segment, r << RANGE_BITS
        first = int(segment.posting_starts[segment.range_starts[r]])
        rows = np.flatnonzero((self._images >= begin - base) & (self._images < end - base))
        images = self._images[rows]
        order = np.argsort(images, kind="stable")  # lists are in the order of their words, and so are those of an image
        rows, images = rows[order], images[order]
        codes, words = segment.codes[first + rows], self._words[rows]
        ends = np.searchsorted(images, np.arange(begin - base, end - base + 1, dtype=np.int64))
        spans = zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        return [Signature(words[one:other].copy(), codes[one:other].copy(), self._dim) for one, other in spans]

    def _decode(self, r: int) -> None:
        """Decode and verify the lists of a range, unless they are those of the last one."""
        if r == self._range:
            return
        segment = self._segment
        first, last = int(segment.range_starts[r]), int(segment.range_starts[r + 1])
        segment.verify_lists(np.arange(first, last))
        starts, ids = segment.posting_starts[first : last + 1], segment.id_starts[first : last + 1]
        images = np.empty(int(starts[-1] - starts[0]), np.uint32)
        damaged = elias_fano.decode(segment.ids, starts - starts[0], ids, range_images(r, segment.images), images)
        if damaged >= 0:
            raise DamagedError(f"{segment.path}: list {first + damaged} is damaged; restore a copy")
        self._images, self._words = images, np.repeat(segment.list_words[first:last], np.diff(starts))
        self._range = r
