"""Mirrored copies: each photograph is described mirrored, and compared with the images that are nearest to that."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from asmk_engine.errors import InputError, MismatchError, NotFoundError, StorageError
from asmk_engine.groups.comparison import EVIDENCE, as_bytes, best_evidence, ends_of, from_bytes
from asmk_engine.groups.images import ComparedImages
from asmk_engine.groups.journal import PieceJournal
from asmk_engine.groups.kinds import DOUBTFUL_SHARE
from asmk_engine.groups.options import Grouping
from asmk_engine.images.decoding import MAX_PIXELS, view_image
from asmk_engine.iteration import Display
from asmk_engine.search.turned import Turn

MIRRORED = Turn(mirrored=True)
PIECE = 64
"""Images that are one piece of the journal."""
LOOKED_AT = 10
"""Nearest images with which a mirrored one is compared."""


class Mirrored:
    """One run over a collection.

    unread  number of an image → why its photograph could not be described
    """

    def __init__(self, images: ComparedImages, options: Grouping, journal: PieceJournal, display: Display) -> None:
        self._images, self._options, self._journal, self._display = images, options, journal, display
        self.unread: dict[int, str] = {}

    def rows(self) -> np.ndarray:
        """Return rows [n] of EVIDENCE of images, mirrored, with others, each pair once."""
        live, found = self._images.live, [np.empty(0, EVIDENCE)]
        with self._display.bar("mirrored", "images") as progress:
            for piece, begin in enumerate(range(0, len(live), PIECE)):
                numbers = live[begin : begin + PIECE].tolist()
                stored = self._journal.piece("mirrored", piece, self._describe(numbers))
                found.append(from_bytes(stored["rows"]))
                self.unread |= {int(key): why for key, why in json.loads(stored["unread"].tobytes()).items()}
                progress(begin + len(numbers), len(live))
        rows = np.concatenate(found)
        return rows[np.unique(ends_of(rows), axis=0, return_index=True)[1]]

    def _describe(self, numbers: list[int]) -> Callable[[], dict[str, np.ndarray]]:
        def describe() -> dict[str, np.ndarray]:
            rows, unread = [np.empty(0, EVIDENCE)], {}
            for number in numbers:
                try:
                    rows.append(self._of_image(number))
                except (InputError, NotFoundError, MismatchError, StorageError) as error:
                    unread[number] = str(error)
            text = np.frombuffer(json.dumps(unread).encode(), np.uint8)
            return {"rows": as_bytes(np.concatenate(rows)), "unread": text}

        return describe

    def _of_image(self, number: int) -> np.ndarray:
        """Compare an image, mirrored, with the nearest images; raises if its photograph cannot be read."""
        images = self._images
        pixels = view_image(images.photograph(number), MAX_PIXELS).pixels
        query = images.index.extractor.extract(MIRRORED.pixels(pixels))
        near, scores = images.nearest_of(query, LOOKED_AT + 1)
        others = (
            (other, score, images.geometries(other))
            for other, score in zip(near.tolist(), scores.tolist(), strict=True)
            if other != number
        )
        rows = best_evidence(number, images.geometries_of(query), others, self._options.verification)
        rows["mirrored"] = 1
        return rows[rows["share"] >= DOUBTFUL_SHARE]
