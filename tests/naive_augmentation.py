"""A slow, obvious twin of database-side augmentation: dictionaries, from the formula of the manual."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from naive_diffusion import Similar, nearest


def augmented(
    similar: Similar,
    names: list[str],
    scores: Mapping[str, float],
    copies: Collection[str],
    k: int,
    power: float,
    own: float = 1.0,
) -> dict[str, float]:
    """The average of the score of each image and those of its neighbours, for images that have one.

    scores  those of the images that the search finds
    copies  images that equal the query, which are neighbours of none
    own     the similarity of an image to itself
    """
    found = {}
    for name in names:
        near = [other for other in nearest(similar, name, names, k) if other not in copies]
        weights = [(similar[name, other] / own) ** power for other in near]
        total = scores.get(name, 0.0) + math.fsum(
            weight * scores.get(other, 0.0) for weight, other in zip(weights, near, strict=True)
        )
        if name in scores or total > 0:
            found[name] = total / (1 + math.fsum(weights))
    return found
