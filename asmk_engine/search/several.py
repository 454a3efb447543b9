"""Search with several photographs of one thing as one question: each is a query, and the mean of its scores counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from asmk_engine.indexes.answers import Hit
from asmk_engine.indexes.photographs import is_photograph
from asmk_engine.indexes.searcher import IndexSearcher, check_top
from asmk_engine.verification.reranking import Reranking
from asmk_engine.verification.verdict import evidence_of

DEPTH = 10_000
"""The best answers to each photograph that count; all if fewer images are indexed. Reading more names takes time."""


@dataclass(frozen=True)
class CombinedHit:
    """An image that answers several photographs.

    Attributes
    ----------
    hit : Hit
        The answer to the photograph that the image fits best, with the mean of the scores of all photographs.
    photograph : int
        The position of this photograph among the queries, from 0.
    """

    hit: Hit
    photograph: int


def search_several(
    searcher: IndexSearcher[Any, Any],
    queries: Iterable[Any],
    top: int | None = 10,
    *,
    rerank: int | Reranking | None = None,
) -> list[CombinedHit]:
    """Find the best images for several photographs of the same thing.

    The score of an image is the mean of its scores for the single photographs, 0 for one that does not find it among
    its best 10 000, or `top` if that is more. One photograph gives what a plain search gives. docs/halves.md compares
    other ways to combine them.

    An image fits best the photograph for which its matches have the most evidence, then the greatest score; the first
    of equal ones. So its verdict is the most favourable: each photograph shows another side of the thing, and an image
    that matches one of them shows the thing, whatever the others show. Each photograph may also match an image by
    chance, so false matches grow with their number, and `match` is less sure than the 99 % of a single query.

    Parameters
    ----------
    searcher : IndexSearcher
        The searcher of an index of any kind.
    queries : iterable
        What `IndexSearcher.search` takes as one query: photographs, features or signatures.
    top : int or None, default 10
        Number of images, all that a photograph finds if None.
    rerank : int or Reranking, optional
        As for `IndexSearcher.search`, for each photograph.

    Returns
    -------
    list of CombinedHit
        The images, best first, equal scores in byte order of the names; empty without photographs. The order of the
        photographs changes nothing but their positions, and which of equal ones is named.

    Raises
    ------
    AsmkError
        As `IndexSearcher.search`.
    """
    check_top(top)
    single = is_photograph(queries) or isinstance(queries, searcher.kinds)
    depth = None if top is None else max(top, DEPTH)
    return combined(searcher.search([queries] if single else queries, depth, rerank=rerank), top)


def combined(answers: Sequence[Sequence[Hit]], top: int | None) -> list[CombinedHit]:
    """Return one ranking of the answers to several photographs, each with DEPTH hits if there are so many."""
    found: dict[str, list[tuple[Hit, int]]] = {}
    for place, hits in enumerate(answers):
        for hit in hits:
            found.setdefault(hit.name, []).append((hit, place))
    each = [_combined(one, len(answers)) for one in found.values()]
    return sorted(each, key=lambda one: (-one.hit.score, one.hit.name.encode()))[:top]


def _combined(found: list[tuple[Hit, int]], photographs: int) -> CombinedHit:
    """Return an image that some of the photographs find, each at most once."""
    if photographs == 1:
        return CombinedHit(*found[0])
    best, place = max(found, key=lambda one: _fit(one[0]))
    mean = math.fsum(hit.score for hit, _ in found) / photographs  # exact, so that no order changes it
    return CombinedHit(replace(best, score=mean), place)


def _fit(hit: Hit) -> tuple[bool, float, float]:
    """Return how well an image fits a photograph: verified or not, evidence, score."""
    return bool(hit.matches), evidence_of(hit.matches), hit.score
