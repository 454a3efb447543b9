"""Measurements of an index other than accuracy: bytes, words, and milliseconds.

Times are processor time, summed over all threads, since wall-clock time says little on a machine with other load; on an
idle one it is the wall-clock time of a single thread. Query times are medians over queries of the best of a few
repeats. Scoring and verification run on one thread; word assignment is a matrix product, on as many threads as the
linear algebra library uses. Scoring is measured a second time on copies of the images under other names, so many that
the fixed cost of a search is negligible: the extrapolation uses that time per image.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from asmk_engine.flat.codec import Codec
from asmk_engine.flat.index import GlobalIndex
from asmk_engine.flat.search import GlobalSearcher
from asmk_engine.flat.segment import GlobalSegment, VectorContents
from asmk_engine.fused.index import FusedContents, FusedIndex
from asmk_engine.fused.kinds import StoredVectors
from asmk_engine.indexes.searcher import IndexSearcher
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.segment import Segment
from asmk_engine.inverted.segment_writer import Contents
from asmk_engine.inverted.signatures import Signature
from asmk_engine.verification.reranking import Reranking, reranked

Made = TypeVar("Made")
REPEATS = 5
TIMED_QUERIES = 24
TOP = 100  # length of a ranking in timed searches
COPIED_POSTINGS = 1 << 22
COPIED_BYTES = 1 << 26
COPIED_IMAGES = 100_000


def milliseconds(tasks: Sequence[Callable[[], object]], repeats: int = REPEATS) -> float:
    """Return the median over tasks of the best of some repeats of each, after one run of the first task as warm-up."""
    tasks[0]()
    return 1000 * statistics.median(_seconds(task, repeats) for task in tasks)


def _seconds(task: Callable[[], object], repeats: int) -> float:
    return min(timed(task)[1] for _ in range(repeats))


def timed(work: Callable[[], Made]) -> tuple[Made, float]:
    """Return the result of `work` and the seconds of processor time it took."""
    begun = time.process_time()
    made = work()
    return made, time.process_time() - begun


def disk_bytes(index: Index | GlobalIndex | FusedIndex) -> dict[str, int]:
    """Return the bytes on disk of the `segments`, and separately of the `codebook` (or codec, or all of them).

    A segment of a fused index is one table of images and the postings or vectors of each kind.
    """
    manifest = index.snapshot.manifest
    segments = sum(entry.file.bytes + sum(part.file.bytes for part in entry.kinds) for entry in manifest.segments)
    return {"segments": segments, "codebook": sum(encoder.bytes for encoder in manifest.encoders)}


def geometry_bytes(index: Index | FusedIndex) -> int:
    """Return the bytes on disk of the geometry beside the postings."""
    return sum(file.bytes for entry in index.snapshot.manifest.segments for file in entry.geometries)


def touched(index: Index, signatures: Sequence[Signature]) -> float:
    """Return the mean number of postings that a search reads: those of the words of the query."""
    lengths = index.snapshot.list_lengths
    return float(np.mean([lengths[signature.words].sum() for signature in signatures]))


def scoring_milliseconds(searcher: IndexSearcher[Any, Any], queries: Sequence[Any]) -> float:
    """Measure the milliseconds from a signature, or those of a fused query, to the best hundred, on one thread."""
    return milliseconds([functools.partial(searcher.search, one, TOP, threads=1) for one in queries])


def verification_milliseconds(
    make: Callable[[], IndexSearcher[Any, Any]], queries: Sequence[Any], reranking: Reranking
) -> float:
    """Measure the milliseconds from a ranking to the ranking anew of its first images, on one thread.

    make     returns a searcher; each repeat has its own, so that it reads again what a searcher keeps in memory of the
             images that it compares
    queries  with features that are assigned to words
    """
    repeats = range(REPEATS)
    return 1000 * statistics.median(
        min(_verification_seconds(make(), query, reranking) for _ in repeats) for query in queries
    )


def _verification_seconds(searcher: IndexSearcher[Any, Any], query: Any, reranking: Reranking) -> float:
    snapshot, compared = searcher.index.snapshot, reranking.verification
    best = searcher.best_of(snapshot, [query], max(TOP, reranking.images), 1)[0]
    first = best.segments[: reranking.images], best.numbers[: reranking.images]
    # Opens the feature sets, which a search does once and not for each query.
    searcher.matches_of(snapshot, query, (best.segments[-1:], best.numbers[-1:]), compared, 1)
    return timed(lambda: reranked(best.scores, searcher.matches_of(snapshot, query, first, compared, 1), reranking))[1]


def vector_milliseconds(searcher: GlobalSearcher, vectors: np.ndarray) -> float:
    """Measure the milliseconds from a projected descriptor, a row of [q, D], to the best hundred, on one thread."""
    rows = [vectors[place : place + 1] for place in range(len(vectors))]
    return milliseconds([functools.partial(searcher.nearest, row, TOP, threads=1) for row in rows])


def copied_index(folder: Path, index: Index) -> tuple[Index, int]:
    """Create an index with enough copies of all images to have millions of postings; returns it and their number."""
    segment = index.snapshot.segments[0]
    copies = _copies(COPIED_POSTINGS, segment.postings, segment.images)
    copied = Index.create(folder, index.codebook)
    copied.add_contents(_copied_postings(segment, copies))
    return copied, copies


def _copied_postings(segment: Segment, copies: int) -> Contents:
    words, images = segment.decode_words(), segment.decode_images()
    numbers = np.concatenate([images + np.uint32(copy * segment.images) for copy in range(copies)])
    names, fingerprints = _copied_names(segment.images, copies)
    return Contents(names, fingerprints, np.tile(words, copies), numbers, np.tile(segment.codes, (copies, 1)))


def copied_vectors(folder: Path, index: GlobalIndex) -> tuple[GlobalIndex, int]:
    """Create a global index with enough copies of all vectors to exceed the cache; returns it and their number."""
    segment = index.snapshot.segments[0]
    copies = _copies(COPIED_BYTES, segment.vectors.nbytes, segment.images)
    names, fingerprints = _copied_names(segment.images, copies)
    copied = GlobalIndex.create(folder, index.codec)
    copied.add_vectors(VectorContents(names, fingerprints, np.tile(segment.vectors, (copies, 1))))
    return copied, copies


def copied_fused(folder: Path, index: FusedIndex) -> FusedIndex:
    """Create a fused index with enough copies of all images for its largest kind."""
    segment = index.snapshot.segments[0]
    copies = max(
        _copies(COPIED_POSTINGS, part.postings, part.images)
        if isinstance(part, Segment)
        else _copies(COPIED_BYTES, part.vectors.nbytes, part.images)
        for part in segment.parts
    )
    pairs = zip(index.snapshot.encoder.kinds, segment.parts, strict=True)
    parts = tuple(
        _copied_postings(part, copies) if isinstance(part, Segment) else _copied_stored(part, kind.lacks(part), copies)
        for kind, part in pairs
    )
    names, fingerprints = _copied_names(segment.images, copies)
    copied = FusedIndex.create(folder, index.encoders)
    copied.add_contents(FusedContents(names, fingerprints, np.zeros(len(names), np.uint32), parts))
    return copied


def _copied_stored(segment: GlobalSegment, absent: np.ndarray, copies: int) -> StoredVectors:
    return StoredVectors(np.tile(segment.vectors, (copies, 1)), np.tile(absent, copies))


def _copies(wanted: int, held: int, images: int) -> int:
    return max(1, min(-(-wanted // max(held, 1)), COPIED_IMAGES // max(images, 1)))


def _copied_names(images: int, copies: int) -> tuple[list[bytes], np.ndarray]:
    return [b"%d" % number for number in range(images * copies)], np.zeros(images * copies, np.uint64)


def codec_milliseconds(codec: Codec, descriptors: Sequence[np.ndarray]) -> float:
    """Measure the milliseconds to project one descriptor [1, D0], the counterpart of word assignment."""
    return milliseconds([functools.partial(codec.apply, one) for one in descriptors])
