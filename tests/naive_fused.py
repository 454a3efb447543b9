"""A slow, obvious twin of the fused score, from the scores that an index of each kind alone gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def fused(
    kinds: Sequence[Mapping[str, float]], weights: Sequence[float], own: frozenset[str] = frozenset()
) -> list[tuple[str, float]]:
    """Names with scores, best first.

    kinds    for each kind that the query has features of, the images it finds with their scores
    weights  for each of these kinds, with the sum 1 over all kinds of the index
    own      names of images with the content of the query
    """
    found: dict[str, list[float]] = {}
    for scores, weight in zip(kinds, weights, strict=True):
        if weight == 0:
            continue
        best = max([score for name, score in scores.items() if name not in own], default=0.0)
        for name, score in scores.items():
            found.setdefault(name, []).append(weight * (score / best if best > 0 else score))
    totals = {}
    for name, terms in found.items():
        total = 0.0
        for term in sorted([*terms, *[0.0] * (len([weight for weight in weights if weight]) - len(terms))]):
            total += term
        totals[name] = total
    return sorted(totals.items(), key=lambda item: (-item[1], item[0].encode()))
