"""Images as their regions: one signature of all of them (R-ASMK), or one of each (D2R-ASMK).

Source: Teichmann, Araujo, Zhu and Sim, CVPR 2019, section 4, and the code of Detect-to-Retrieve.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from asmk_engine.codebooks import Codebook
from asmk_engine.features import Features
from asmk_engine.images.boxes import Box
from asmk_engine.inverted.signatures import (
    AssignedFeatures,
    Signature,
    aggregate_residuals,
    assigned,
    code_width,
    make_signature,
)
from asmk_engine.regions.boxes import rows_inside

LEAST_NORM = 1e-6
"""A word whose mean aggregate has no greater norm is left out, and a smaller norm of a region counts as this."""
Regional = Sequence[Signature]
"""The signatures of the entries of an image, the first of them that of the whole image."""


def regional_signature(regions: Iterable[Features], codebook: Codebook) -> Signature:
    """Join the features of several regions of an image in one signature, as R-ASMK does.

    The residuals of each region are summed per word, and all sums of a region together are divided by their norm; the
    mean over the regions is divided by its norm word by word, and binarised. A region without features counts in the
    mean.

    Parameters
    ----------
    regions : iterable of Features
        The features of the whole image and of each region, such as those in a box, or those of a crop, which the code
        of Detect-to-Retrieve extracts anew.
    codebook : Codebook
        The codebook; each descriptor is assigned to one word.

    Returns
    -------
    Signature
        The words whose mean has a norm above 1e-6, with their codes; none without regions.

    Raises
    ------
    MismatchError
        If the dimension of the descriptors differs from that of the codebook.
    """
    found = [image if isinstance(image, AssignedFeatures) else assigned(image, codebook, 1) for image in regions]
    return _joined([aggregate_residuals(image.projected, image.words, codebook) for image in found], codebook)


def _joined(aggregates: Sequence[tuple[np.ndarray, np.ndarray]], codebook: Codebook) -> Signature:
    """Join words [m] and sums [m, D] of each region."""
    words = np.unique(np.concatenate([np.empty(0, np.int32), *(own for own, _ in aggregates)]))
    totals = np.zeros((len(words), codebook.dim))
    for own, sums in aggregates:
        exact = sums.astype(np.float64)
        totals[np.searchsorted(words, own)] += exact / max(float(np.sqrt(np.square(exact).sum())), LEAST_NORM)
    totals /= max(len(aggregates), 1)
    kept = np.sqrt(np.square(totals).sum(axis=1)) > LEAST_NORM
    return Signature(words[kept].astype(np.uint32), packed_signs(totals[kept]), codebook.dim)


def packed_signs(vectors: np.ndarray) -> np.ndarray:
    """Return the codes [m, W] uint64 of vectors [m, D]: bit d is set where component d is greater than 0."""
    width = code_width(vectors.shape[1])
    bits = np.zeros((len(vectors), 64 * width), bool)
    bits[:, : vectors.shape[1]] = vectors > 0
    return np.packbits(bits, axis=1, bitorder="little").view("<u8").astype(np.uint64)


def signatures_of(image: AssignedFeatures, boxes: Sequence[Box], codebook: Codebook, mode: str) -> Regional:
    """Return the signatures of an image: one if `mode` is `aggregate`, else those of the whole image and its regions.

    A region without features has no signature of its own, since nothing can be found in it.
    """
    parts = [image, *(_inside(image, box) for box in boxes)]
    if mode == "aggregate":
        return [regional_signature(parts, codebook)]
    own = [parts[0], *(part for part in parts[1:] if len(part))]
    return [make_signature(part.projected, part.words, codebook) for part in own]


def _inside(image: AssignedFeatures, box: Box) -> AssignedFeatures:
    rows = rows_inside(image, box)
    parts = (image.descriptors, image.keypoints, image.scores)
    descriptors, keypoints, scores = (part[rows] for part in parts)
    return AssignedFeatures(descriptors, keypoints, scores, image.image_size, image.projected[rows], image.words[rows])
