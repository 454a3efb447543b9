"""Merging of segments into one, without deleted images, in bounded memory.

The images of the old segments are concatenated in the new one. There are two passes: the first counts the postings of
every (range, word), which determines the layout of the new file; the second copies postings, a few words at a time,
directly from the mapped old files to their positions in the new one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from asmk_engine.errors import DamagedError
from asmk_engine.indexes import image_table
from asmk_engine.indexes.manifest import Written
from asmk_engine.inverted.segment import RANGE_BITS, Segment, range_images
from asmk_engine.inverted.segment_writer import CHUNK_POSTINGS, MOST_THREADS, Piece, SegmentOutline, SegmentWriter
from asmk_engine.kernels import elias_fano
from asmk_engine.storage.folder import Folder
from asmk_engine.threads import available_threads, stream


@dataclass(frozen=True)
class _MergedRange:
    """One range of an old segment: its lists, and the new number of each entry, -1 for a deleted one."""

    segment: Segment
    first: int
    last: int
    moved: np.ndarray

    def lists(self, first_word: int, last_word: int) -> slice:
        """Return the lists of words `first_word` to `last_word` (exclusive)."""
        words = self.segment.list_words[self.first : self.last]
        begin, end = np.searchsorted(words, (first_word, last_word))
        return slice(self.first + int(begin), self.first + int(end))

    def tables(self, lists: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return ids, and the words, posting starts and id starts of these lists."""
        starts = slice(lists.start, lists.stop + 1)
        segment = self.segment
        return segment.ids, segment.list_words[lists], segment.posting_starts[starts], segment.id_starts[starts]

    def check(self, status: int, lists: slice) -> None:
        """Raise DamagedError if a kernel reports a damaged list."""
        if status >= 0:
            raise DamagedError(f"{self.segment.path}: list {lists.start + status} is damaged; restore a copy")


def merge_segments(
    folder: Folder,
    name: str,
    segments: Sequence[Segment],
    vocabulary: int,
    *,
    chunk_postings: int = CHUNK_POSTINGS,
    with_table: bool = True,
) -> Written:
    """Write the live images of the segments, in order, as one new segment; raises DamagedError for a damaged list.

    with_table  as for `write_segment`
    """
    for segment in segments:  # altered data must not get new, valid checksums
        segment.file.verify()
    live = [segment.live_entries() for segment in segments]
    images = sum(map(len, live))
    sources = list(_sources(segments, live))
    outline = SegmentOutline.of(_count(sources, images, vocabulary), images, vocabulary)
    names = image_table.joined_names(segments) if with_table else None
    inside = functools.lru_cache(2)(functools.partial(_inside, sources, images))

    def bring(piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        return _bring(outline, inside(piece.range_number), piece)

    prints, roots = image_table.joined_facts(segments)
    entries = joined_entries(segments)
    with SegmentWriter(folder, name, outline, names, segments[0].codes.shape[1], roots, entries) as writer:
        writer.write_all(bring, chunk_postings)
        counts = [segment.entry_word_counts[numbers] for segment, numbers in zip(segments, live, strict=True)]
        checksum = writer.finish(prints if with_table else None, np.concatenate(counts))
    return Written(checksum, sum(segment.live for segment in segments), outline.postings)


def joined_entries(segments: Sequence[Segment]) -> np.ndarray | None:
    """Return the number of entries of each live image of all segments, [I], or None if no image has several."""
    if not any(segment.is_regional for segment in segments):
        return None
    return np.concatenate([np.diff(segment.entry_starts)[segment.live_numbers()] for segment in segments])


def _sources(segments: Sequence[Segment], live: Sequence[np.ndarray]) -> Iterator[_MergedRange]:
    base = 0
    for segment, numbers in zip(segments, live, strict=True):
        moved = np.full(segment.entries, -1, np.int64)
        moved[numbers] = np.arange(base, base + len(numbers))
        base += len(numbers)
        for r in range(segment.ranges):
            first, last = int(segment.range_starts[r]), int(segment.range_starts[r + 1])
            yield _MergedRange(segment, first, last, moved[r << RANGE_BITS : (r + 1) << RANGE_BITS])


def _count(sources: Sequence[_MergedRange], images: int, vocabulary: int) -> np.ndarray:
    """Count the postings of every new (range, word), words of a range adjacent; one task per old range."""
    counts = np.zeros(-(-images >> RANGE_BITS) * vocabulary, np.int64)

    def counted(source: _MergedRange) -> tuple[int, np.ndarray]:
        live = source.moved[source.moved >= 0]  # increasing
        first, last = (int(live[place]) >> RANGE_BITS for place in (0, -1)) if len(live) else (0, 0)
        moved = np.where(source.moved >= 0, source.moved - (first << RANGE_BITS), -1)
        own = np.zeros((last - first + 1) * vocabulary, np.int64)
        lists = slice(source.first, source.last)
        source.check(elias_fano.count_moved(*source.tables(lists), vocabulary, moved, RANGE_BITS, own), lists)
        return first * vocabulary, own

    for begin, own in stream(counted, sources, min(available_threads(), MOST_THREADS)):
        counts[begin : begin + len(own)] += own
    return counts


def _inside(sources: Sequence[_MergedRange], images: int, range_number: int) -> list[_MergedRange]:
    """Return the sources of a new range, with image numbers within it, -1 for images of other ranges."""
    begin, universe = range_number << RANGE_BITS, range_images(range_number, images)
    found = []
    for source in sources:
        stays = (source.moved >= begin) & (source.moved < begin + universe)
        if stays.any():
            found.append(replace(source, moved=np.where(stays, source.moved - begin, -1)))
    return found


def _bring(outline: SegmentOutline, sources: Sequence[_MergedRange], piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    """Collect the postings of a piece from sources with image numbers within its range."""
    words = outline.list_words[piece.first : piece.last]
    first_word, last_word = int(words[0]), int(words[-1]) + 1
    starts = outline.posting_starts[piece.first : piece.last + 1] - outline.posting_starts[piece.first]
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
    return numbers, codes
