"""Memory and time at a million images and more, from what was measured on a few: a model, never a measurement.

Memory of an ASMK index of N images. Words per image and the share f_w of the images that hold word w are as measured,
the codebook is the same, and segments are full ranges of R = 65 536 images. A range then takes

    postings   R Σ f_w, of 8 ceil(bits / 64) bytes of code each
    ids        Σ_w of the Elias-Fano bytes of f_w R numbers below R (kernels/elias_fano.py): about 1.2 a posting at the
               density of a million images under 65 536 words, less where there are fewer words
    tables     24 bytes for each word that occurs

and every image its name, fingerprint and word count, as measured. Of a global index: the stored vector, and the same.
Both without the codebook or codec, which does not grow.

Time of a query, on one thread: that of the assignment, which does not depend on N, and N times the nanoseconds that an
image takes, measured where there are millions of postings or many megabytes of vectors. What the model leaves out: that
lists of a large collection leave the cache and memory, that other photographs have other words, and that larger
collections call for larger codebooks, which shorten the lists.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asmk_engine.inverted.segment import RANGE_BITS, Segment
from asmk_engine.kernels import elias_fano

SIZES = (1_000_000, 100_000_000)
LIST_TABLE_BYTES = 24  # posting_starts, id_starts, list_words, list_digests


@dataclass(frozen=True)
class Extrapolated:
    """What `images` images would take: bytes without the codebook, milliseconds of a query on one thread."""

    images: int
    bytes: float
    milliseconds: float


def extrapolated(
    images: int, bytes_per_image: float, assignment_milliseconds: float, nanoseconds_per_image: float
) -> Extrapolated:
    """The model for a number of images.

    bytes_per_image        at that size: `dense_bytes_per_image`, or the measured ones of a global index
    nanoseconds_per_image  of scoring: of its postings that a query reads, or of its vector
    """
    scoring = images * nanoseconds_per_image / 1e6
    return Extrapolated(images, images * bytes_per_image, assignment_milliseconds + scoring)


def dense_bytes_per_image(segment: Segment) -> float:
    """Bytes of an image in a full range, as the model has it, from the list lengths of a small segment."""
    size = 1 << RANGE_BITS
    lengths = segment.list_lengths()
    scaled = np.rint(lengths[lengths > 0] * (size / max(segment.images, 1))).astype(np.int64)
    ids = int(elias_fano.list_starts(np.clip(scaled, 1, size), size)[-1]) if len(scaled) else 0
    codes = int(scaled.sum()) * 8 * segment.codes.shape[1]
    return (codes + ids + LIST_TABLE_BYTES * len(scaled)) / size + _bytes_beside(segment)


def _bytes_beside(segment: Segment) -> float:
    """Bytes of an image that do not depend on its words: name, its offset and order, fingerprint, word count."""
    beside = ("name_bytes", "name_offsets", "name_order", "fingerprints", "word_counts")
    return sum(segment.file.arrays[name].nbytes for name in beside) / max(segment.images, 1)
