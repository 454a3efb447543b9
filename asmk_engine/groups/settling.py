"""Settling which pairs of images are files of one photograph, by the pixels of as few pairs as need be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from asmk_engine import threads
from asmk_engine.errors import AsmkError
from asmk_engine.groups.comparison import ends_of
from asmk_engine.groups.graph import components
from asmk_engine.groups.images import ComparedImages
from asmk_engine.groups.journal import PieceJournal
from asmk_engine.groups.kinds import DOUBTFUL_SHARE, looks_same
from asmk_engine.groups.pixels import GreyImages, agreement
from asmk_engine.iteration import Display

PIECE = 256
"""Pairs that are one piece of the journal."""


class Settling:
    """One run over a collection.

    unread  number of an image → why its photograph could not be read
    """

    def __init__(self, images: ComparedImages, journal: PieceJournal, display: Display) -> None:
        self._images, self._journal, self._display = images, journal, display
        self._grey = GreyImages(images.photograph)
        self.unread: dict[int, str] = {}

    def settled(self, rows: np.ndarray) -> np.ndarray:
        """Return rows [n] of EVIDENCE with `agreement` and `same`, one for each pair: mirrored only where that is same.

        Pairs are looked at in the order of their shares of common features, and not at all where others have already
        shown that both images are files of one photograph: so copies take as many looks as there are copies.
        """
        rows, stage = rows.copy(), "mirroredpixels" if rows["mirrored"].any() else "pixels"
        due = np.flatnonzero(rows["share"] >= DOUBTFUL_SHARE)
        due = due[np.lexsort((rows["mirrored"][due], rows["other"][due], rows["one"][due], -rows["share"][due]))]
        labels = np.arange(self._images.count)
        with self._display.bar("copies", "pairs") as progress:
            for piece, begin in enumerate(range(0, len(due), PIECE)):
                part = due[begin : begin + PIECE]
                open_ones = part[labels[rows["one"][part]] != labels[rows["other"][part]]]
                found = self._journal.piece(stage, piece, self._look(rows[open_ones]))
                rows["agreement"][open_ones] = found["agreement"]
                same = due[: begin + len(part)]
                same = same[looks_same(rows[same])]
                labels = components(self._images.count, rows["one"][same], rows["other"][same])
                progress(begin + len(part), len(due))
        rows["same"] = labels[rows["one"]] == labels[rows["other"]]
        return _one_each(rows)

    def _look(self, rows: np.ndarray) -> Callable[[], dict[str, np.ndarray]]:
        def look() -> dict[str, np.ndarray]:
            found = threads.run(self._agreement, list(rows), self._images.threads)
            return {"agreement": np.array(found, np.float32)}

        return look

    def _agreement(self, row: np.ndarray) -> float:
        """Return the agreement of a pair, not a number if a photograph is not at hand."""
        number = int(row["one"])
        try:
            one = self._grey.load(number, mirrored=bool(row["mirrored"]))
            number = int(row["other"])
            return agreement(one, self._grey.load(number), row["affine"].reshape(2, 3))
        except AsmkError as error:
            self.unread[number] = str(error)
            return float("nan")


def _one_each(rows: np.ndarray) -> np.ndarray:
    """Return one row for each pair of images: the mirrored one where that alone shows one photograph."""
    kept = rows[(rows["mirrored"] == 0) | ((rows["same"] > 0) & looks_same(rows))]
    upright_is_worse = (kept["mirrored"] == 0) & ~looks_same(kept)
    order = np.lexsort((kept["mirrored"], upright_is_worse))
    kept = kept[order]
    return kept[np.unique(ends_of(kept), axis=0, return_index=True)[1]]
