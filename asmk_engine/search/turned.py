"""Search for turned and mirrored copies: the query is turned, and the best answer of each image counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from asmk_engine.images.boxes import Box, Size
from asmk_engine.images.decoding import MAX_PIXELS, view_image
from asmk_engine.images.listing import PathLike
from asmk_engine.indexes.answers import Hit
from asmk_engine.indexes.searcher import IndexSearcher
from asmk_engine.verification.match import Match
from asmk_engine.verification.reranking import Reranking


@dataclass(frozen=True)
class Turn:
    """A photograph is mirrored left to right, if at all, and then turned clockwise by quarters of a circle.

    Parameters
    ----------
    quarters : int, default 0
        Number of quarter turns, 0 to 3.
    mirrored : bool, default False
        Whether it is mirrored first.
    """

    quarters: int = 0
    mirrored: bool = False

    @property
    def label(self) -> str:
        """The turn in words: empty, `90`, `mirrored`, `mirrored 90`, …"""
        return " ".join([*["mirrored"] * self.mirrored, *[str(90 * self.quarters)] * bool(self.quarters)])

    def pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Return turned pixels [H', W', 3] of pixels [H, W, 3]."""
        return np.ascontiguousarray(np.rot90(pixels[:, ::-1] if self.mirrored else pixels, -self.quarters))

    def box(self, box: Box, size: Size) -> Box:
        """Return where a box of a photograph of this size is after the turn."""
        (x1, y1, x2, y2), (width, height) = box, size
        if self.mirrored:
            x1, x2 = width - x2, width - x1
        for _ in range(self.quarters):
            x1, y1, x2, y2 = height - y2, x1, height - y1, x2
            width, height = height, width
        return x1, y1, x2, y2

    def matrix(self, size: Size) -> np.ndarray:
        """Return [3, 3] float64, which maps (x, y, 1) in a photograph of this size to its place after the turn."""
        width, height = size
        found = np.array([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]]) if self.mirrored else np.eye(3)
        for _ in range(self.quarters):
            found = np.array([[0.0, -1, height - 1], [1, 0, 0], [0, 0, 1]]) @ found
            width, height = height, width
        return found


UPRIGHT = Turn()


def turns(*, rotations: bool = False, mirror: bool = False) -> list[Turn]:
    """Return the turns that are asked for, the upright photograph first."""
    quarters = range(4) if rotations else range(1)
    return [Turn(number, mirrored) for mirrored in (False, True)[: 1 + mirror] for number in quarters]


def search_turned(
    searcher: IndexSearcher[Any, Any],
    photograph: PathLike | np.ndarray,
    wanted: Sequence[Turn],
    top: int | None = 10,
    *,
    box: Box | None = None,
    rerank: int | Reranking | None = None,
) -> list[Hit]:
    """Find the best images for a photograph and its turned versions.

    Each version is a query of its own; an image counts with the best of its scores, the earliest turn if equal. Matches
    are in pixels of the photograph as it was given, and `Hit.turn` says how it had to be turned.

    photograph  a file, or uint8 pixels [H, W, 3], upright
    wanted      the turns, such as `turns(rotations=True)`
    Raises what `IndexSearcher.search` raises.
    """
    pixels = photograph if isinstance(photograph, np.ndarray) else None
    answers = []
    for turn in wanted:
        if turn == UPRIGHT:
            answers.append(searcher.search(photograph, top, box=box, rerank=rerank))
        else:
            pixels = view_image(photograph, MAX_PIXELS).pixels if pixels is None else pixels
            answers.append(_of_turn(searcher, pixels, turn, top, box, rerank))
    return best_of_turns(answers, top)


def best_of_turns(answers: Iterable[list[Hit]], top: int | None) -> list[Hit]:
    """Return one ranking of the answers of several turns: each image by its best score, the earliest turn if equal."""
    found: dict[str, Hit] = {}
    for hits in answers:
        for hit in hits:
            if hit.name not in found or hit.score > found[hit.name].score:
                found[hit.name] = hit
    return _sorted(found.values())[:top]


def of_turn(hits: Iterable[Hit], turn: Turn, size: Size) -> list[Hit]:
    """Return the answers to a turned query with matches in pixels of the query as it was given, of this size."""
    return [replace(hit, matches=turned_back(hit.matches, turn, size), turn=turn.label) for hit in hits]


def _of_turn(
    searcher: IndexSearcher[Any, Any],
    pixels: np.ndarray,
    turn: Turn,
    top: int | None,
    box: Box | None,
    rerank: int | Reranking | None,
) -> list[Hit]:
    size = pixels.shape[1], pixels.shape[0]
    hits = searcher.search(turn.pixels(pixels), top, box=None if box is None else turn.box(box, size), rerank=rerank)
    return of_turn(hits, turn, size)


def turned_back(matches: Iterable[Match | None], turn: Turn, size: Size) -> tuple[Match | None, ...]:
    """Return matches of a turned query in pixels of the query as it was given."""
    there = turn.matrix(size)
    back = np.linalg.inv(there)
    return tuple(
        None
        if match is None
        else replace(
            match,
            affine=match.affine @ there,
            query_points=(match.query_points @ back[:2, :2].T + back[:2, 2]).astype(np.float32),
            query_size=size,
        )
        for match in matches
    )


def _sorted(hits: Iterable[Hit]) -> list[Hit]:
    """Sort hits as a search does: by decreasing score, equal ones in byte order of the names."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.name.encode()))
