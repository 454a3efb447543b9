"""One photograph of a question compared with one indexed image: where they match, feature by feature."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from asmk_engine.errors import AsmkError
from asmk_engine.indexes.answers import Hit
from asmk_engine.pictures.explanation import best_match
from asmk_engine.search.turned import UPRIGHT, turned_back
from asmk_engine.serve.questions import Described
from asmk_engine.serve.refusals import Refusal, told
from asmk_engine.serve.shelf import ServedIndex
from asmk_engine.verification.match import Verification


@dataclass(frozen=True)
class Compared:
    """What a photograph and an indexed image have in common.

    hit      the image, with the matches
    query    width and height of the photograph, None if unknown
    """

    hit: Hit
    query: tuple[int, int] | None

    @property
    def pairs(self) -> list[dict[str, Any]]:
        """The matched features, the most similar first, as JSON values."""
        match = best_match(self.hit)
        return [] if match is None else match.contributions()


def compare(served: ServedIndex, described: Described, name: str, threads: int) -> Compared:
    """Compare a photograph with an indexed image; raises Refusal."""
    if not served.verifies:
        raise Refusal(422, f"{served.name}: global descriptors have no places that could be compared")
    served.check_image(name)
    snapshot, searcher = served.index.snapshot, served.searcher
    place = snapshot.find(name)
    if place is None:
        raise Refusal(404, f"{served.name}: {name[:300]!r} was deleted")
    images = np.array([place[0]]), np.array([place[1]])
    try:
        found = searcher.matches_of(snapshot, described.features, images, Verification(), threads)
    except AsmkError as error:
        raise Refusal(422, f"the two cannot be compared: {told(error)}") from None
    matches = tuple(kind[0] for kind in found)
    verdict, probability = searcher.calibration().judged(matches)
    hit = Hit(name, 0.0, matches, verdict=verdict, probability=probability)
    if described.turn != UPRIGHT:
        hit = replace(hit, matches=turned_back(matches, described.turn, described.size), turn=described.turn.label)
    match = best_match(hit)
    size = described.size if any(described.size) else None if match is None else match.query_size
    return Compared(hit, size if size and any(size) else None)
