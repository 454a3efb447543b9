"""The kernel: aggregation of the descriptors of an image per word, and the selectivity function.

Tolias, Jenicek and Chum, ECCV 2020, section 3. Binary aggregates are packed as in the original, most significant bit
first into 32-bit words, the last one padded with zeros. The similarity of two codes is 1 - 2 h / D with h the Hamming
distance and D the dimension itself; the original divides by the length of the packed code, and so counts the padding as
agreement if D is not a multiple of 32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from asmk_engine.compat import io_helpers
from asmk_engine.compat.checks import check_descriptors, check_image_ids, check_words
from asmk_engine.compat.codebook import Codebook
from asmk_engine.errors import InputError
from asmk_engine.inverted.comparison import EPSILON
from asmk_engine.inverted.search import SelectiveMatch
from asmk_engine.inverted.signatures import aggregate_residuals


class ASMKKernel:
    """Aggregates descriptors into one vector per word and image.

    binary  one bit per dimension, set if the summed residual is greater than 0; otherwise the L2-normalised sum
    """

    def __init__(self, codebook: Codebook, *, binary: bool = True) -> None:
        if not isinstance(binary, bool | np.bool_):
            raise InputError(f"binary is {binary!r}; give True or False")
        self.codebook = codebook
        self.binary = bool(binary)
        self.params = {"binary": self.binary}

    def aggregate_image(self, des: np.ndarray, word_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Aggregate the residuals of one image per word.

        des       [n, D]
        word_ids  [n, k], the words of every descriptor, to each of which it contributes
        returns   vectors [m, ceil(D / 32)] uint32, or [m, D] float32 if not binary, and words [m] int32, increasing
        """
        engine = self.codebook.engine
        descriptors = check_descriptors(des, engine.dim)
        words = check_words(word_ids, len(descriptors), engine.words)
        distinct, sums = aggregate_residuals(descriptors, words, engine)
        return (pack_signs(sums) if self.binary else _normalised(sums)), distinct

    def aggregate(
        self, des: np.ndarray, word_ids: np.ndarray, image_ids: np.ndarray, *, progress: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Aggregate several images; returns their concatenated vectors [P, ...], words [P] and image ids [P] int64."""
        descriptors = check_descriptors(des, self.codebook.engine.dim)
        words = check_words(word_ids, len(descriptors), self.codebook.engine.words)
        images = list(io_helpers.slice_unique(check_image_ids(image_ids, len(descriptors))))
        vectors, distinct = self.aggregate_image(descriptors[:0], words[:0])
        parts = [(vectors, distinct, np.empty(0, np.int64))]
        for image, rows in io_helpers.progress(images, frequency=progress, header="Aggregate"):
            vectors, distinct = self.aggregate_image(descriptors[rows], words[rows])
            parts.append((vectors, distinct, np.full(len(distinct), image)))
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return columns[0], columns[1], columns[2]

    def similarity(
        self, similarities: np.ndarray, *, similarity_threshold: float = 0.0, alpha: float = 3.0
    ) -> np.ndarray:
        """Apply the selectivity function to similarities in [-1, 1]: s ** alpha if s reaches the threshold, else 0."""
        return SelectiveMatch(alpha=alpha, threshold=similarity_threshold).apply(np.asarray(similarities, np.float64))

    def state_dict(self) -> dict[str, Any]:
        """Return the kernel as plain values."""
        return {"type": "ASMKKernel", "params": dict(self.params)}


def pack_signs(sums: np.ndarray) -> np.ndarray:
    """Pack one bit per component of [m, D], set if greater than 0, into [m, ceil(D / 32)] uint32."""
    packed = np.packbits(sums > 0, axis=1)
    padded = np.zeros((len(sums), 4 * packed_width(sums.shape[1])), np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(">u4").astype(np.uint32)


def packed_width(dim: int) -> int:
    """Return the number of 32-bit words of a packed code."""
    return (dim + 31) // 32


def _normalised(sums: np.ndarray) -> np.ndarray:
    norms = np.sqrt(np.einsum("md,md->m", sums, sums))[:, None]
    return sums / (norms + np.float32(EPSILON))
