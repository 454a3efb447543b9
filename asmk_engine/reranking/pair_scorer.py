"""What compares a query with the images of an index, pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from asmk_engine.images.boxes import Box


class PairScorer(Protocol):
    """Scores pairs of a query and an indexed image; where it finds their pixels or features is its own concern."""

    def scores(self, query: str, box: Box | None, candidates: Sequence[str], /) -> np.ndarray:
        """Return the scores [n] float64 of n indexed images, by their names, for one query; higher is more similar.

        query  the name of an indexed image, a file, or the name of a query of a ground truth
        box    x1, y1, x2, y2 in pixels of the upright query, None for the whole

        An image that cannot be compared, such as one whose photograph is gone, raises; the scorer may score it 0 and
        report it instead.
        """
        ...
