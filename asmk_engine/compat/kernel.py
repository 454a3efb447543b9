"""The kernel: aggregation of the descriptors of an image per word, and the selectivity function.

Tolias, Jenicek and Chum, ECCV 2020, section 3. Binary aggregates are packed as in the original, most significant bit
first into 32-bit words, the last one padded with zeros. The similarity of two codes is 1 - 2 h / D with h the Hamming
distance and D the dimension itself; the original divides by the length of the packed code, and so counts the padding as
agreement if D is not a multiple of 32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from asmk_engine.compat import io_helpers
from asmk_engine.compat.checks import check_descriptors, check_image_ids, check_words
from asmk_engine.compat.codebook import Codebook
from asmk_engine.compat.functional import asmk_kernel
from asmk_engine.compat.hamming import hamming_cdist_packed, pack_bits
from asmk_engine.errors import InputError
from asmk_engine.inverted.comparison import EPSILON
from asmk_engine.inverted.search import SelectiveMatch
from asmk_engine.inverted.signatures import aggregate_residuals


class ASMKKernel:
    """Aggregates descriptors into one vector per word and image.

    binary  one bit per dimension, set where the summed residual is greater than 0; otherwise the sum over its L2 norm.
            `bin` and `nobin` stand for True and False.
    """

    binary_shortcuts: ClassVar[dict[str, bool]] = {"bin": True, "nobin": False}

    def __init__(self, codebook: Codebook, *, binary: bool | str = True) -> None:
        wanted = self.binary_shortcuts.get(binary) if isinstance(binary, str) else binary
        if not isinstance(wanted, bool | np.bool_):
            raise InputError(f"binary is {binary!r}; give True or False")
        self.codebook = codebook
        self.binary = bool(wanted)
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
        self,
        qvec: np.ndarray,
        vecs: np.ndarray | None = None,
        image_ids: np.ndarray | None = None,
        *,
        similarity_threshold: float = 0.0,
        alpha: float = 3.0,
    ) -> Any:
        """What similarities in [-1, 1] are worth: their power alpha where they reach the threshold, else 0.

        qvec   similarities of any shape, as `IVF.search` of this package asks; or, as that of the original does, a
               vector of the query, then with
        vecs   the vectors of a list, [m, W], and image_ids [m]; returned are the ids and values of those that reach it
        """
        match = SelectiveMatch(alpha=alpha, threshold=similarity_threshold)
        if vecs is None or image_ids is None:
            return match.apply(np.asarray(qvec, np.float64))
        if self.binary:
            table = hamming_cdist_packed(qvec[None], vecs, self.codebook.engine.dim)
            similarities = 1.0 - 2.0 * table[0]
        else:
            similarities = np.matmul(vecs, qvec)
        return asmk_kernel(similarities, image_ids, alpha=match.alpha, similarity_threshold=match.threshold)

    def state_dict(self) -> dict[str, Any]:
        """Return the kernel as plain values."""
        return {"type": "ASMKKernel", "params": dict(self.params)}

    @classmethod
    def initialize_from_state(cls, state: Mapping[str, Any], codebook: Codebook) -> ASMKKernel:
        """The kernel in a state, for a codebook; InputError for what is no such state."""
        params = state.get("params") if isinstance(state, Mapping) and state.get("type") == "ASMKKernel" else None
        if not isinstance(params, Mapping) or params.keys() != {"binary"}:
            raise InputError(f"{str(state)[:60]!r}: expected the state of an ASMKKernel, as `state_dict` gives it")
        return cls(codebook, binary=params["binary"])


def pack_signs(sums: np.ndarray) -> np.ndarray:
    """One bit for each component of [m, D] greater than 0, as [m, ceil(D / 32)] uint32."""
    return pack_bits(sums > 0)


def _normalised(sums: np.ndarray) -> np.ndarray:
    norms = np.sqrt(np.einsum("md,md->m", sums, sums))[:, None]
    return sums / (norms + np.float32(EPSILON))
