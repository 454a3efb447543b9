"""What is measured of an index beside the quality of its answers: bytes, words, and milliseconds.

Times are processor time, of all threads together, since on a machine with other work the clock on the wall says little:
on an idle one a single thread takes as long. Those of queries are medians over queries of the best of a few repeats.
Scoring runs on one thread; the assignment of words is a product of matrices, on as many threads as the linear algebra
library takes. Scoring is measured a second time on copies of the images under other names, enough of them that the
fixed cost of a search no longer shows: what an image takes there is what the extrapolation rests on.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from asmk_engine.flat.codec import Codec
from asmk_engine.flat.index import GlobalIndex
from asmk_engine.flat.search import GlobalSearcher
from asmk_engine.flat.segment import VectorContents
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.inverted.segment_writer import Contents
from asmk_engine.inverted.signatures import Signature

Made = TypeVar("Made")
REPEATS = 5
TIMED_QUERIES = 24
TOP = 100  # images of an answer that is timed
COPIED_POSTINGS = 1 << 22
COPIED_BYTES = 1 << 26
COPIED_IMAGES = 100_000


def milliseconds(tasks: Sequence[Callable[[], object]], repeats: int = REPEATS) -> float:
    """Median over the tasks of the best of some repeats of each; the first task runs once before, uncounted."""
    tasks[0]()
    return 1000 * statistics.median(_seconds(task, repeats) for task in tasks)


def _seconds(task: Callable[[], object], repeats: int) -> float:
    return min(timed(task)[1] for _ in range(repeats))


def timed(work: Callable[[], Made]) -> tuple[Made, float]:
    """What a piece of work makes, and the seconds of processor time it took."""
    begun = time.process_time()
    made = work()
    return made, time.process_time() - begun


def disk_bytes(index: Index | GlobalIndex) -> dict[str, int]:
    """Bytes on the disk: of the `segments`, and apart from them of the `codebook`, or what has its place."""
    manifest = index.snapshot.manifest
    return {"segments": sum(entry.file.bytes for entry in manifest.segments), "codebook": manifest.encoder.bytes}


def touched(index: Index, signatures: Sequence[Signature]) -> float:
    """Mean over queries of the postings that a search reads: those of the words of the query."""
    lengths = index.snapshot.list_lengths
    return float(np.mean([lengths[signature.words].sum() for signature in signatures]))


def scoring_milliseconds(searcher: Searcher, signatures: Sequence[Signature]) -> float:
    """Milliseconds from a signature to the best hundred images, on one thread."""
    return milliseconds([functools.partial(searcher.search, one, TOP, threads=1) for one in signatures])


def vector_milliseconds(searcher: GlobalSearcher, vectors: np.ndarray) -> float:
    """Milliseconds from a projected descriptor, one of [q, D], to the best hundred images, on one thread."""
    rows = [vectors[place : place + 1] for place in range(len(vectors))]
    return milliseconds([functools.partial(searcher.nearest, row, TOP, threads=1) for row in rows])


def copied_index(folder: Path, index: Index) -> tuple[Index, int]:
    """An index in a new folder with so many copies of all images that it has millions of postings; and how many."""
    segment = index.snapshot.segments[0]
    copies = _copies(COPIED_POSTINGS, segment.postings, segment.images)
    words, images = segment.decode_words(), segment.decode_images()
    numbers = np.concatenate([images + np.uint32(copy * segment.images) for copy in range(copies)])
    names, fingerprints = _copied_names(segment.images, copies)
    contents = Contents(names, fingerprints, np.tile(words, copies), numbers, np.tile(segment.codes, (copies, 1)))
    copied = Index.create(folder, index.codebook)
    copied.add_contents(contents)
    return copied, copies


def copied_vectors(folder: Path, index: GlobalIndex) -> tuple[GlobalIndex, int]:
    """A global index in a new folder with so many copies of all vectors that they leave the cache; and how many."""
    segment = index.snapshot.segments[0]
    copies = _copies(COPIED_BYTES, segment.vectors.nbytes, segment.images)
    names, fingerprints = _copied_names(segment.images, copies)
    copied = GlobalIndex.create(folder, index.codec)
    copied.add_vectors(VectorContents(names, fingerprints, np.tile(segment.vectors, (copies, 1))))
    return copied, copies


def _copies(wanted: int, held: int, images: int) -> int:
    return max(1, min(-(-wanted // max(held, 1)), COPIED_IMAGES // max(images, 1)))


def _copied_names(images: int, copies: int) -> tuple[list[bytes], np.ndarray]:
    return [b"%d" % number for number in range(images * copies)], np.zeros(images * copies, np.uint64)


def codec_milliseconds(codec: Codec, descriptors: Sequence[np.ndarray]) -> float:
    """Milliseconds of the projection of one descriptor [1, D0]: what the assignment of words is to local features."""
    return milliseconds([functools.partial(codec.apply, one) for one in descriptors])
