"""Memory and time at a million images and more, modelled from measurements on few images.

Memory of an ASMK index of N images: words per image and the share f_w of the images that contain word w are as
measured, the codebook is the same, and segments are full ranges of R = 65 536 images. A range then takes

    postings   R Σ f_w, with 8 ceil(bits / 64) bytes of code each
    ids        Σ_w of the Elias-Fano bytes of f_w R numbers below R (kernels/elias_fano.py): about 1.2 per posting at
               the density of a million images with 65 536 words, less with fewer words
    tables     24 bytes per word that occurs

plus name, fingerprint and word count of every image, as measured. For a global index: the stored vector, plus the same.
For a fused index: this of each part, with one name and fingerprint. For a re-ranked row: also the geometry or features
that verification reads, as measured. All exclude the codebook or codec, whose size is constant.

Time of a query, on one thread: the time of the assignment and of the verification of a fixed number of answers, which
do not depend on N, plus N times the nanoseconds per image, measured with millions of postings or many megabytes of
vectors. The model ignores that the lists of a large collection exceed the cache and memory, that other images have
other words, and that larger collections need larger codebooks, which shorten the lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asmk_engine.fused.snapshot import FusedSegment
from asmk_engine.indexes.image_table import ImageTable
from asmk_engine.inverted.segment import RANGE_BITS, Segment
from asmk_engine.kernels import elias_fano

SIZES = (1_000_000, 100_000_000)
LIST_TABLE_BYTES = 24  # posting_starts, id_starts, list_words, list_digests
TABLE = ("name_bytes", "name_offsets", "name_order", "fingerprints")
WORD_COUNTS = "word_counts"


@dataclass(frozen=True)
class Extrapolated:
    """The model for `images` images: bytes without the codebook, and milliseconds per query on one thread."""

    images: int
    bytes: float
    milliseconds: float


def extrapolated(
    images: int, bytes_per_image: float, fixed_milliseconds: float, nanoseconds_per_image: float
) -> Extrapolated:
    """Compute the model for a number of images.

    bytes_per_image        at that size: `dense_bytes_per_image`, or as measured for a global index
    fixed_milliseconds     what does not depend on their number: assignment and verification
    nanoseconds_per_image  scoring time per image: of the postings that a query reads, or of the vector
    """
    scoring = images * nanoseconds_per_image / 1e6
    return Extrapolated(images, images * bytes_per_image, fixed_milliseconds + scoring)


def dense_bytes_per_image(segment: Segment) -> float:
    """Return the modelled bytes per image in a full range, from the list lengths of a small segment."""
    return _bytes_of_lists(segment) + _bytes_of_arrays(segment, (*TABLE, WORD_COUNTS))


def fused_bytes_per_image(segment: FusedSegment) -> float:
    """Return the modelled bytes per image of a fused index: of its table, and of the lists or vectors of each kind."""
    return _bytes_of_arrays(segment, TABLE) + sum(
        _bytes_of_lists(part) + _bytes_of_arrays(part, (WORD_COUNTS,))
        if isinstance(part, Segment)
        else part.vectors.nbytes / max(part.images, 1)
        for part in segment.parts
    )


def _bytes_of_lists(segment: Segment) -> float:
    """Return the modelled bytes per image of codes, image numbers and tables of lists in a full range."""
    size = 1 << RANGE_BITS
    lengths = segment.list_lengths()
    scaled = np.rint(lengths[lengths > 0] * (size / max(segment.images, 1))).astype(np.int64)
    ids = int(elias_fano.list_starts(np.clip(scaled, 1, size), size)[-1]) if len(scaled) else 0
    codes = int(scaled.sum()) * 8 * segment.codes.shape[1]
    return (codes + ids + LIST_TABLE_BYTES * len(scaled)) / size


def _bytes_of_arrays(segment: ImageTable, names: Sequence[str]) -> float:
    """Return the bytes per image of arrays whose size is independent of the words."""
    return sum(segment.file.arrays[name].nbytes for name in names) / max(segment.images, 1)
