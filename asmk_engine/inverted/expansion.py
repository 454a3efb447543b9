"""Query expansion by Hamming codes: matched features of images that show the same thing join the query.

    code(w) = sign( q(w) + sum over the joined features f with the word w of c(f) )

q(w) is the aggregated code of the query for the word w, with components 1 and -1, and c(f) the code of one feature; a
component whose sum is 0 stays that of the query. So the joined images vote for what belongs to the thing and not to one
photograph of it (Tolias and Jegou, "Visual query expansion with or
without geometry: refining local descriptors by feature aggregation", Pattern Recognition 2014, here with binary codes
only). A pair of features has one word, so no word is new.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from asmk_engine.inverted.signatures import Signature
from asmk_engine.verification.geometry import ImageGeometry


def expanded_signature(signature: Signature, joined: Iterable[tuple[ImageGeometry, np.ndarray]]) -> Signature:
    """Return the signature of a query that features of other images have joined.

    joined  images, each with the numbers [m] int32 of its features that pair with one of the query
    """
    votes = _signs(signature.codes)
    for image, features in joined:
        rows = _rows(image)[features]
        places = np.searchsorted(signature.words, image.words[rows])
        np.add.at(votes, places, _signs(image.codes[rows]))
    codes = np.where(votes == 0, _signs(signature.codes), votes) > 0
    return replace(signature, codes=np.packbits(codes, axis=1, bitorder="little").view("<u8").astype(np.uint64))


def _rows(image: ImageGeometry) -> np.ndarray:
    """Return the row of each feature of an image whose features have one word each, [f] int64."""
    rows = np.empty(len(image), np.int64)
    rows[image.features] = np.arange(len(image.features))
    return rows


def _signs(codes: np.ndarray) -> np.ndarray:
    """Return the bits of codes [n, W] uint64 as 1 and -1, [n, 64 W] int32."""
    bits = np.unpackbits(np.ascontiguousarray(codes, "<u8").view(np.uint8), axis=1, bitorder="little")
    return np.where(bits, 1, -1).astype(np.int32)
