"""The signatures in hand that will become a segment."""

from __future__ import annotations

import numpy as np

from asmk_engine.segment_writer import Contents
from asmk_engine.signatures import Signature

FIRST_ROOM = 1 << 12


class Batch:
    """Named signatures, `width` 64-bit words to a code, their postings side by side in arrays that grow.

    names, fingerprints  of the images, in the order in which they were taken
    postings             how many
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.names: list[str] = []
        self.postings = 0
        self._fingerprints: list[int] = []
        self._counts: list[int] = []
        self._words = np.empty(FIRST_ROOM, np.uint32)
        self._codes = np.empty((FIRST_ROOM, width), np.uint64)

    def append(self, name: str, fingerprint: int, signature: Signature) -> None:
        """Take one image."""
        rows = slice(self.postings, self.postings + len(signature))
        if rows.stop > len(self._words):
            room = max(rows.stop, 2 * len(self._words))
            self._words, self._codes = (_grown(array, rows.start, room) for array in (self._words, self._codes))
        self._words[rows], self._codes[rows] = signature.words, signature.codes
        self.names.append(name)
        self._fingerprints.append(fingerprint)
        self._counts.append(len(signature))
        self.postings = rows.stop

    def contents(self) -> Contents:
        """Everything taken, images numbered in order."""
        return Contents(
            [name.encode() for name in self.names],
            np.array(self._fingerprints, np.uint64),
            self._words[: self.postings],
            np.repeat(np.arange(len(self._counts), dtype=np.uint32), self._counts),
            self._codes[: self.postings],
        )


def _grown(array: np.ndarray, rows: int, room: int) -> np.ndarray:
    """An array of `room` rows that begins with `rows` of another; the rest takes no memory until it is used."""
    grown = np.empty((room, *array.shape[1:]), array.dtype)
    grown[:rows] = array[:rows]
    return grown
