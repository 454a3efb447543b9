"""Slow twins of the re-ranking by pair scores, written from section 5.1 of Lee et al., CVPR 2022."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence


def reranked(
    ranking: Sequence[tuple[str, float]],
    pair_score: Mapping[str, float],
    images: int,
    weight: float,
    base_weight: float,
    left_out: Collection[str],
) -> list[str]:
    """Names in their new order: the first `images` that are not left out are sorted among the places that they had."""
    places = []
    for place, (name, _) in enumerate(ranking):
        if name not in left_out and len(places) < images:
            places.append(place)
    chosen = [ranking[place] for place in places]
    chosen = sorted(chosen, key=lambda one: -(base_weight * one[1] + weight * pair_score[one[0]]))
    found = [name for name, _ in ranking]
    for place, (name, _) in zip(places, chosen, strict=True):
        found[place] = name
    return found
