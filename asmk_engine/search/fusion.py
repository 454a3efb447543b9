"""Late fusion of several rankings of the same images; for the kinds of features of one index see `fused.scores`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from asmk_engine.errors import InputError
from asmk_engine.fused.scores import shares
from asmk_engine.indexes.answers import Hit

FUSIONS = ("scores", "ranks")
RANK_CONSTANT = 60


def fuse(
    rankings: Sequence[Sequence[Hit]],
    *,
    method: str = "scores",
    weights: Sequence[float] | None = None,
    top: int | None = None,
) -> list[Hit]:
    """Fuse several rankings into one, best first; equal scores in byte order of the names.

    An image that is not in a ranking gets 0 from it. Raises InputError for an unknown method or invalid weights.

    rankings  each best first, every name once
    method    `scores`: the weighted sum of scores, scaled per ranking to 0 for its last image and 1 for its first;
              `ranks`: the weighted sum of 1 / (60 + rank) (Cormack et al., SIGIR 2009)
    weights   weights of the rankings, 0 or more and normalised to a sum of 1; equal if None
    top       number of images to return, all if None
    """
    if method not in FUSIONS:
        raise InputError(f"fusion is {method!r}; choose one of {', '.join(FUSIONS)}")
    parts = {"scores": _from_scores, "ranks": _from_ranks}[method]
    totals: dict[str, float] = {}
    for weight, ranking in zip(shares(weights, len(rankings)), rankings, strict=True):
        for hit, part in zip(ranking, parts(ranking), strict=True):
            totals[hit.name] = totals.get(hit.name, 0.0) + weight * part
    hits = [Hit(name, score) for name, score in totals.items()]
    return sorted(hits, key=lambda hit: (-hit.score, hit.name.encode()))[:top]


def _from_scores(ranking: Sequence[Hit]) -> Iterable[float]:
    """Scale scores to the range from 0 to 1; all 1 if they are equal."""
    if not ranking:
        return []
    most, least = ranking[0].score, ranking[-1].score
    return [(hit.score - least) / (most - least) if most > least else 1.0 for hit in ranking]


def _from_ranks(ranking: Sequence[Hit]) -> Iterable[float]:
    return [1.0 / (RANK_CONSTANT + rank) for rank in range(1, len(ranking) + 1)]
