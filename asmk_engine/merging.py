"""Joining segments into one, without deleted images, in bounded memory.

The images of the old segments follow each other in the new one. Two passes: the first counts the postings of every
(range, word), from which the whole outline of the new file follows; the second brings postings over, a few words at a
time, straight from the mapped old files to their places in the new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from asmk_engine.errors import DamagedError
from asmk_engine.kernels import elias_fano
from asmk_engine.segment import RANGE_BITS, Segment, range_images
from asmk_engine.segment_writer import Outline, SegmentWriter
from asmk_engine.store import Folder

# Postings brought over at a time: 64 MiB of codes at 128 bits.
CHUNK_POSTINGS = 1 << 22


@dataclass(frozen=True)
class Merged:
    """What a merge wrote: the crc32 of the checksums, images and postings."""

    checksum: int
    images: int
    postings: int


@dataclass(frozen=True)
class _Source:
    """One range of an old segment: its lists, and the new number of each of its images, -1 for a deleted one."""

    segment: Segment
    first: int
    last: int
    moved: np.ndarray

    def lists(self, first_word: int, last_word: int) -> slice:
        """The lists of words `first_word` to `last_word` (exclusive)."""
        words = self.segment.list_words[self.first : self.last]
        begin, end = np.searchsorted(words, (first_word, last_word))
        return slice(self.first + int(begin), self.first + int(end))

    def tables(self, lists: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """ids, and words, posting starts and id starts of some lists."""
        starts = slice(lists.start, lists.stop + 1)
        segment = self.segment
        return segment.ids, segment.list_words[lists], segment.posting_starts[starts], segment.id_starts[starts]

    def check(self, status: int, lists: slice) -> None:
        """Raise DamagedError when a kernel stopped at a list."""
        if status >= 0:
            raise DamagedError(f"{self.segment.path}: list {lists.start + status} is damaged; restore a copy")


def merge_segments(
    folder: Folder, name: str, segments: Sequence[Segment], vocabulary: int, *, chunk_postings: int = CHUNK_POSTINGS
) -> Merged:
    """Write the live images of some segments, in their order, as one new segment; DamagedError names a broken list."""
    for segment in segments:  # a flipped bit must not get fresh checksums
        segment.file.verify()
    images = sum(segment.live for segment in segments)
    sources = list(_sources(segments))
    outline = Outline.of(_count(sources, images, vocabulary), images, vocabulary)
    names = [segment.name_as_bytes(int(n)) for segment in segments for n in segment.live_numbers()]
    with SegmentWriter(folder, name, outline, names, segments[0].codes.shape[1]) as writer:
        for r in range(len(outline.range_starts) - 1):
            _move_range(writer, r, sources, chunk_postings)
        live = [segment.live_numbers() for segment in segments]
        fingerprints = [segment.fingerprints[numbers] for segment, numbers in zip(segments, live, strict=True)]
        counts = [segment.word_counts[numbers] for segment, numbers in zip(segments, live, strict=True)]
        checksum = writer.finish(np.concatenate(fingerprints), np.concatenate(counts))
    return Merged(checksum, images, outline.postings)


def _sources(segments: Sequence[Segment]) -> Iterator[_Source]:
    base = 0
    for segment in segments:
        moved = np.full(segment.images, -1, np.int64)
        moved[segment.live_numbers()] = np.arange(base, base + segment.live)
        base += segment.live
        for r in range(segment.ranges):
            first, last = int(segment.range_starts[r]), int(segment.range_starts[r + 1])
            yield _Source(segment, first, last, moved[r << RANGE_BITS : (r + 1) << RANGE_BITS])


def _count(sources: Sequence[_Source], images: int, vocabulary: int) -> np.ndarray:
    counts = np.zeros(-(-images >> RANGE_BITS) * vocabulary, np.int64)
    for source in sources:
        lists = slice(source.first, source.last)
        tables = source.tables(lists)
        source.check(elias_fano.count_moved(*tables, vocabulary, source.moved, RANGE_BITS, counts), lists)
    return counts


def _move_range(writer: SegmentWriter, r: int, sources: Sequence[_Source], chunk_postings: int) -> None:
    """Write all lists of one new range."""
    begin, universe = r << RANGE_BITS, range_images(r, writer.outline.images)
    inside = [_inside(source, begin, universe) for source in sources]
    wanted = [source for source in inside if (source.moved >= 0).any()]
    first, last = (int(writer.outline.range_starts[r + i]) for i in (0, 1))
    starts = writer.outline.posting_starts
    while first < last:
        chunk = max(first + 1, int(np.searchsorted(starts, starts[first] + chunk_postings, side="right")) - 1)
        chunk = min(chunk, last)
        _move_chunk(writer, wanted, first, chunk, universe)
        first = chunk


def _inside(source: _Source, begin: int, universe: int) -> _Source:
    """The source with new numbers inside the range that begins at `begin`, -1 for images that go elsewhere."""
    moved = source.moved - begin
    moved[(source.moved < begin) | (moved >= universe)] = -1
    return _Source(source.segment, source.first, source.last, moved)


def _move_chunk(writer: SegmentWriter, sources: Sequence[_Source], first: int, last: int, universe: int) -> None:
    outline = writer.outline
    words = outline.list_words[first:last]
    first_word, last_word = int(words[0]), int(words[-1]) + 1
    starts = outline.posting_starts[first : last + 1] - outline.posting_starts[first]
    places = np.zeros(last_word - first_word, np.int64)
    places[words - words[0]] = starts[:-1]
    numbers = np.empty(int(starts[-1]), np.uint32)
    codes = np.empty((int(starts[-1]), sources[0].segment.codes.shape[1]), np.uint64)
    for source in sources:
        lists = source.lists(first_word, last_word)
        status = elias_fano.gather_moved(
            *source.tables(lists), source.segment.codes, first_word, source.moved, places, numbers, codes
        )
        source.check(status, lists)
    if not np.array_equal(places[words - words[0]], starts[1:]):
        raise DamagedError(f"{sources[0].segment.path}: its lists changed while they were merged; restore a copy")
    writer.write_lists(first, last, universe, numbers, codes)
