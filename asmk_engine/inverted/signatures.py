"""Signatures: the distinct words of an image with one aggregated binary code each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.features import Features
from asmk_engine.kernels.aggregate import aggregate, aggregate_codes
from asmk_engine.threads import stream, thread_count


@dataclass(frozen=True)
class Signature:
    """An image after aggregation, as made by `Searcher.sign`.

    Parameters
    ----------
    words : ndarray of shape (m,), uint32
        The distinct words of the image, increasing.
    codes : ndarray of shape (m, ceil(D / 64)), uint64
        One code for each word; bit d is set if component d of the aggregate is greater than 0.
    dim : int, default 0
        D, the number of bits of a code; 0 if it is not known.

    Notes
    -----
    `len(signature)` is the number of words.
    """

    words: np.ndarray
    codes: np.ndarray
    dim: int = 0

    def __len__(self) -> int:
        return len(self.words)


def code_width(dim: int) -> int:
    """Return the number of 64-bit words of a code of `dim` bits."""
    return (dim + 63) // 64


def aggregate_residuals(projected: np.ndarray, words: np.ndarray, codebook: Codebook) -> tuple[np.ndarray, np.ndarray]:
    """Sum the residuals of one image per word (Tolias et al., ECCV 2020, section 3).

    projected  [n, D] float32, from `Codebook.project`
    words      [n, k] int32, from `Codebook.assign_projected`
    returns    words [m] int32, increasing, and sums [m, D] float32
    """
    out_words = np.empty(words.size, np.int32)
    out_sums = np.empty((words.size, codebook.dim), np.float32)
    count = aggregate(projected, words, codebook.centroids, out_words, out_sums)
    return out_words[:count], out_sums[:count]


def make_signature(projected: np.ndarray, words: np.ndarray, codebook: Codebook) -> Signature:
    """Aggregate and binarise one image; arguments as for `aggregate_residuals`."""
    out_words = np.empty(words.size, np.uint32)
    out_codes = np.empty((words.size, code_width(codebook.dim)), np.uint64)
    count = aggregate_codes(projected, words, codebook.centroids, out_words, out_codes)
    words, codes = out_words[:count].copy(), out_codes[:count].copy()  # copies, to free the unused rows
    return Signature(words, codes, codebook.dim)


@dataclass(frozen=True)
class AssignedFeatures(Features):
    """Features with their words, from which both the signature and the geometry of a query are made.

    projected  [n, D] float32, from `Codebook.project`
    words      [n, k] int32, from `Codebook.assign_projected`
    """

    projected: np.ndarray
    words: np.ndarray


def assigned(
    features: Features, codebook: Codebook, multiple_assignment: int, threads: int | None = None
) -> AssignedFeatures:
    """Assign each descriptor to its `multiple_assignment` nearest words with so many threads, all if None."""
    projected = codebook.project(features.descriptors)
    words = codebook.assign_projected(projected, multiple_assignment, threads=threads)
    return AssignedFeatures(
        features.descriptors, features.keypoints, features.scores, features.image_size, projected, words
    )


def sign(features: Features, codebook: Codebook, multiple_assignment: int = 1) -> Signature:
    """Compute the signature of one image, with each descriptor assigned to its `multiple_assignment` nearest words.

    Assigned features keep the words that they have.
    """
    if not isinstance(features, AssignedFeatures):
        features = assigned(features, codebook, multiple_assignment)
    return make_signature(features.projected, features.words, codebook)


def sign_many(
    images: Iterable[tuple[str, Features]],
    codebook: Codebook,
    multiple_assignment: int = 1,
    *,
    threads: int | None = None,
) -> Iterator[tuple[str, Signature]]:
    """Yield names and signatures of a stream of images, in order, with a few images in memory at a time.

    Every image is projected and assigned separately: the last bits of a matrix product may depend on the other rows,
    and the signature of an image must not depend on the images that are added with it.
    """

    def signed(image: tuple[str, Features]) -> tuple[str, Signature]:
        return image[0], sign(image[1], codebook, multiple_assignment)

    # Comparing with all words takes all processors by itself.
    return stream(signed, images, thread_count(threads) if codebook.assignment == "graph" else 1)
