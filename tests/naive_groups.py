"""Slow twins of the groups: components, modularity, bridges and edges, written from their definitions."""

from __future__ import annotations

import itertools

import numpy as np

from asmk_engine.verification.match import Verification, match


def components(count, pairs):
    """Sets of nodes that are joined, by spreading labels until nothing changes."""
    labels = list(range(count))
    changed = True
    while changed:
        changed = False
        for one, other in pairs:
            low = min(labels[one], labels[other])
            if labels[one] != low or labels[other] != low:
                labels[one] = labels[other] = low
                changed = True
    return {frozenset(node for node in range(count) if labels[node] == label) for label in labels}


def modularity(labels, edges):
    """Q of a division into communities; edges are (one, other, weight)."""
    total = sum(weight for _, _, weight in edges)
    inside = sum(weight for one, other, weight in edges if labels[one] == labels[other])
    degrees = {}
    for one, other, weight in edges:
        for node in (one, other):
            degrees[labels[node]] = degrees.get(labels[node], 0.0) + weight
    return inside / total - sum((degree / (2 * total)) ** 2 for degree in degrees.values())


def bridges(count, pairs):
    """Edges without which there are more components: number, nodes on the side of each end."""
    whole = len(components(count, pairs))
    found = []
    for number, (one, other) in enumerate(pairs):
        left = components(count, pairs[:number] + pairs[number + 1 :])
        if len(left) > whole:
            sides = [len(next(part for part in left if end in part)) for end in (one, other)]
            found.append((number, *sides))
    return found


def weight(found, query):
    """The lesser of the sums of the largest weight at each place and of each word."""
    word_of = {}
    for word, feature in zip(query.words.tolist(), query.features.tolist(), strict=True):
        word_of[feature] = word
    best = {}
    for feature, one in zip(found.query_features.tolist(), found.weights.tolist(), strict=True):
        best[word_of[feature]] = max(best.get(word_of[feature], 0.0), one)
    return min(found.places_weight, sum(best.values()))


def edges(geometries, near, places, least):
    """Pairs of which one is among the nearest of the other, and that match well enough in both directions.

    geometries  of each image
    near        for each image the numbers of its nearest images
    """
    found = {}
    for one, other in itertools.combinations(range(len(geometries)), 2):
        if other not in near[one] and one not in near[other]:
            continue
        ways = [(geometries[a], geometries[b]) for a, b in ((one, other), (other, one))]
        matches = [match(a, b, Verification()) for a, b in ways]
        weights = [weight(found_one, a) for found_one, (a, _) in zip(matches, ways, strict=True)]
        if min(one.places for one in matches) >= places and np.float32(min(weights)) >= np.float32(least):
            found[one, other] = min(weights)
    return found
