"""In how many images each word occurs, which weights the words; of one index, or of several together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from asmk_engine.inverted.snapshot import Snapshot


@dataclass(frozen=True, eq=False)
class WordStatistics:
    """The live entries of an index, and how many of them have each word.

    lengths  [words] int64
    entries  number of entries: images, or regions where these are separate
    """

    lengths: np.ndarray
    entries: int

    def idf(self) -> np.ndarray:
        """Return ln(N / n_w) ** 2, [words] float64; 1 for a word that does not occur, as in the reference code."""
        lengths = self.lengths
        return np.where(lengths > 0, np.log(max(self.entries, 1) / np.maximum(lengths, 1)) ** 2, 1.0)


def statistics_of(snapshot: Snapshot) -> WordStatistics:
    """Count the words of a commit."""
    return WordStatistics(snapshot.list_lengths, sum(len(segment.live_entries()) for segment in snapshot.segments))


def total_statistics(parts: Iterable[WordStatistics]) -> WordStatistics:
    """Add the counts of the parts of a collection; exact, since they are whole numbers."""
    found = list(parts)
    lengths = np.array([part.lengths for part in found], np.int64).sum(axis=0)
    return WordStatistics(np.asarray(lengths), sum(part.entries for part in found))
