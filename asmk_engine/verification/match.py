"""Where two images show the same thing: pairs of their features that one affine map explains."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import cv2
import numpy as np

from asmk_engine import threads
from asmk_engine.errors import InputError
from asmk_engine.kernels import geometry as kernels
from asmk_engine.kernels.pairs import pair
from asmk_engine.kernels.places import weigh_places
from asmk_engine.verification.geometry import ImageGeometry

Outline = list[tuple[float, float]]
"""The corners of a region in pixels of the upright original."""


@dataclass(frozen=True)
class Verification:
    """How pairs of features are found and which of them a map explains.

    Parameters
    ----------
    similarity : float, default 0.2
        Least similarity 1 - 2 h / D of two codes that may pair.
    reach, slack : float, default 0.5 and 0.01
        A feature may be mapped to within `reach` times its scale and `slack` times the longer side of its image.
    stretch : float, default 1.5
        Largest factor between the ratio of the scales of a pair and the scale of the map.
    uneven : float, default 3.0
        Largest ratio of the two stretches of a map; mirrored and more uneven maps are refused.
    proposals : int, default 200
        Largest number of maps that are tried of one pair of features each, the most similar ones, and of two.
    exponent : float, default 3.0
        A pair weighs its similarity to this power, as in the score of the index.
    grid : int, default 27
        Squares along the longer side of an image; features in one square are at one place.

    Raises
    ------
    InputError
        If a value is out of its range.
    """

    similarity: float = 0.2
    reach: float = 0.5
    slack: float = 0.01
    stretch: float = 1.5
    uneven: float = 3.0
    proposals: int = 200
    exponent: float = 3.0
    grid: int = 27

    def __post_init__(self) -> None:
        for name, least in (("similarity", 0), ("reach", 0), ("slack", 1e-6), ("stretch", 1), ("uneven", 1),
                            ("proposals", 1), ("exponent", 0), ("grid", 1)):  # fmt: skip
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                raise InputError(f"{name} is {value}; give a number of {least} or more")


@dataclass(frozen=True, eq=False)
class Match:
    """What two images have in common.

    Attributes
    ----------
    pairs : int
        Pairs of features with one word and similar codes, one to one.
    mass : float
        Sum of their weights, similarity cubed by default; from `MutualNeighbours` a share of the greatest possible.
    weight : float
        Sum of the weights of the inliers, the pairs that the map explains.
    places, places_weight : int, float
        Distinct places of the inliers, and the sum of the largest weight at each; of both images the smaller.
    affine : ndarray of shape (2, 3), float64
        (u, v, 1) in the query is mapped to affine @ (u, v, 1) in the other image, in pixels; 0 without inliers.
    query_points, points : ndarray of shape (n, 2), float32
        Places of the inliers in the query and in the other image, in pixels, the most similar pair first.
    query_features, features : ndarray of shape (n,), int32
        Numbers of the inliers in the query and in the other image, in the order of their features.
    weights, similarities : ndarray of shape (n,), float64
        Weights of the inliers, and the similarities 1 - 2 h / D of their codes, of which the weights are powers.
    words : ndarray of shape (n,), uint32
        The word that the two features of each inlier have in common; 0 from `MutualNeighbours`, which pairs without.
    query_scales, scales : ndarray of shape (n,), float32
        Scales of the inliers in the query and in the other image, in pixels.
    query_size, size : tuple of int
        Width and height of the two images in pixels.
    is_copy : bool
        Whether nearly all features are equal at places that the map explains.
    """

    pairs: int
    mass: float
    weight: float
    places: int
    places_weight: float
    affine: np.ndarray
    query_points: np.ndarray
    points: np.ndarray
    query_features: np.ndarray
    features: np.ndarray
    weights: np.ndarray
    similarities: np.ndarray
    words: np.ndarray
    query_scales: np.ndarray
    scales: np.ndarray
    query_size: tuple[int, int]
    size: tuple[int, int]
    is_copy: bool

    @classmethod
    def unplaced(
        cls, pairs: int, mass: float, query_size: tuple[int, int], size: tuple[int, int], is_copy: bool
    ) -> Match:
        """Return a match of pairs of features whose places were not compared."""
        points, whole = np.empty((0, 2), np.float32), np.empty(0, np.int32)
        single, double = np.empty(0, np.float32), np.empty(0)
        return cls(
            pairs, mass, 0.0, 0, 0.0, np.zeros((2, 3)), points, points, whole, whole, double, double,
            whole.astype(np.uint32), single, single, query_size, size, is_copy,
        )  # fmt: skip

    @property
    def inliers(self) -> int:
        """Number of pairs that the map explains."""
        return len(self.points)

    @property
    def query_outline(self) -> Outline:
        """The convex outline of the inliers in the query."""
        return _outline(self.query_points)

    @property
    def outline(self) -> Outline:
        """The convex outline of the inliers in the other image."""
        return _outline(self.points)

    @property
    def query_box(self) -> tuple[float, float, float, float] | None:
        """The box x1, y1, x2, y2 around the inliers in the query, None without inliers."""
        return _box(self.query_points)

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """The box x1, y1, x2, y2 around the inliers in the other image, None without inliers."""
        return _box(self.points)

    @property
    def overlap(self) -> tuple[float, float]:
        """Area of the outline in per cent of the query, and of the other image."""
        return _share(self.query_outline, self.query_size), _share(self.outline, self.size)

    def as_dict(self) -> dict[str, Any]:
        """Return numbers, map, outlines, boxes and overlaps as plain values for JSON, numbers rounded."""
        query_outline, outline = self.query_outline, self.outline
        overlap = _share(query_outline, self.query_size), _share(outline, self.size)
        return {
            "inliers": self.inliers,
            "places": self.places,
            "places_weight": round(self.places_weight, 4),
            "pairs": self.pairs,
            "mass": round(self.mass, 4),
            "is_copy": self.is_copy,
            "affine": [[round(value, 6) for value in row] for row in self.affine.tolist()],
            "query_outline": _rounded(query_outline),
            "outline": _rounded(outline),
            "query_box": _rounded_box(self.query_box),
            "box": _rounded_box(self.box),
            "overlap": [round(share, 2) for share in overlap],
        }

    def contributions(self) -> list[dict[str, Any]]:
        """Return what each inlier contributes, the most similar first, as plain values for JSON, numbers rounded.

        Each has `word`, `similarity`, `weight`, and `query` and `image`, the x, y and scale of its two features.
        """
        query = np.column_stack([self.query_points, self.query_scales]).tolist()
        image = np.column_stack([self.points, self.scales]).tolist()
        columns = self.words.tolist(), self.similarities.tolist(), self.weights.tolist(), query, image
        return [
            {
                "word": word,
                "similarity": round(similarity, 4),
                "weight": round(weight, 6),
                "query": [round(value, 1) for value in one],
                "image": [round(value, 1) for value in other],
            }
            for word, similarity, weight, one, other in zip(*columns, strict=True)
        ]


COPY = 0.9  # share of the features of a copy, by weight: re-encoding a photograph changes some


def match(query: ImageGeometry, other: ImageGeometry, options: Verification | None = None) -> Match:
    """Find what two images have in common.

    query    may have several words for each feature
    other    an image with codes of the same size
    """
    options = options or Verification()
    ones, others, distances = _pairs(query, other, options.similarity)
    similarities = np.maximum(1.0 - 2.0 * distances / max(query.dim, 1), 0.0)
    found = match_of_pairs(query, other, ones, others, similarities, options)
    return replace(found, words=_common_words(query, other, found.query_features, found.features))


class PlacedImage(Protocol):
    """The features of an image at their places."""

    @property
    def places(self) -> np.ndarray:
        """The places [f, 4] float32, as in `ImageGeometry`."""
        ...

    @property
    def image_size(self) -> tuple[int, int]:
        """Width and height of the upright original in pixels."""
        ...

    def __len__(self) -> int: ...


def match_of_pairs(
    query: PlacedImage,
    other: PlacedImage,
    ones: np.ndarray,
    others: np.ndarray,
    similarities: np.ndarray,
    options: Verification,
) -> Match:
    """Find the map that explains given pairs of features; the words of the match are 0.

    ones, others  [n] numbers of the features of each pair in the query and in the other image, most similar first
    similarities  [n] float64, 0 or more
    """
    weights = np.power(similarities, options.exponent)
    places, other_places = query.places[ones], other.places[others]
    tolerances = options.reach * other_places[:, 2].astype(np.float64) + options.slack * max(1, *other.image_size)
    affine, inside = np.empty(6), np.empty(len(ones), np.bool_)
    weight = kernels.verify(
        places, other_places, weights, tolerances, options.proposals, options.stretch, options.uneven, affine, inside,
    )  # fmt: skip
    found, found_weight = _places(query, places, weights, inside, options.grid)
    other_found, other_weight = _places(other, other_places, weights, inside, options.grid)
    return Match(
        pairs=len(ones),
        mass=float(np.cumsum(weights)[-1]) if len(weights) else 0.0,
        weight=weight,
        places=min(found, other_found),
        places_weight=min(found_weight, other_weight),
        affine=np.array([[*affine[:2], affine[4]], [*affine[2:4], affine[5]]]),
        query_points=places[inside, :2],
        points=other_places[inside, :2],
        query_features=ones[inside].astype(np.int32),
        features=others[inside].astype(np.int32),
        weights=weights[inside],
        similarities=similarities[inside],
        words=np.zeros(int(inside.sum()), np.uint32),
        query_scales=places[inside, 2],
        scales=other_places[inside, 2],
        query_size=query.image_size,
        size=other.image_size,
        is_copy=0 < COPY * min(len(query), len(other)) <= weight,
    )


def match_all(
    query: ImageGeometry,
    others: Iterable[ImageGeometry | None],
    options: Verification | None = None,
    count: int | None = None,
) -> list[Match | None]:
    """Do `match` for many images with `count` threads, a few in memory at a time; None where the geometry is None."""

    def matched(other: ImageGeometry | None) -> Match | None:
        return None if other is None else match(query, other, options)

    return list(threads.stream(matched, others, threads.thread_count(count)))


def _pairs(query: ImageGeometry, other: ImageGeometry, similarity: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the features of each pair and the distances of their codes, most similar first."""
    room = min(len(query), len(other))
    ones, others, distances = (np.empty(room, np.int32) for _ in range(3))
    farthest = int(query.dim * (1.0 - similarity) / 2.0)
    count = pair(
        query.words, query.codes, query.features, other.words, other.codes, other.features, farthest, ones, others,
        distances,
    )  # fmt: skip
    return ones[:count], others[:count], distances[:count]


def _common_words(query: ImageGeometry, other: ImageGeometry, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the word of each pair of features [n] uint32, that of the nearest codes if they share several."""
    if len(other.words) == len(other):  # one word for each feature, as in an index
        word_of = np.empty(len(other), np.uint32)
        word_of[other.features] = other.words
        return word_of[others]
    found = [_common_word(query, other, one, another) for one, another in zip(ones, others, strict=True)]
    return np.array(found, np.uint32)


def _common_word(query: ImageGeometry, other: ImageGeometry, one: int, another: int) -> int:
    rows, columns = np.flatnonzero(query.features == one), np.flatnonzero(other.features == another)
    _, first, second = np.intersect1d(query.words[rows], other.words[columns], return_indices=True)
    differing = query.codes[rows[first]] ^ other.codes[columns[second]]
    return int(query.words[rows[first[np.argmin(np.bitwise_count(differing).sum(axis=1))]]])


def _places(
    image: PlacedImage, places: np.ndarray, weights: np.ndarray, inside: np.ndarray, grid: int
) -> tuple[int, float]:
    total = np.zeros(1)
    count = weigh_places(places, weights, inside, max(1, *image.image_size) / grid, total)
    return count, float(total[0])


def _outline(points: np.ndarray) -> Outline:
    if not len(points):
        return []
    corners: list[list[float]] = cv2.convexHull(np.ascontiguousarray(points, np.float32)).reshape(-1, 2).tolist()
    return [(x, y) for x, y in corners]


def _box(points: np.ndarray) -> tuple[float, float, float, float] | None:
    if not len(points):
        return None
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    return left, top, right, bottom


def _share(outline: Outline, size: tuple[int, int]) -> float:
    if len(outline) < 3 or not size[0] * size[1]:
        return 0.0
    return min(100.0, 100.0 * float(cv2.contourArea(np.array(outline, np.float32))) / (size[0] * size[1]))


def _rounded(outline: Outline) -> list[list[float]]:
    return [[round(x, 1), round(y, 1)] for x, y in outline]


def _rounded_box(box: tuple[float, float, float, float] | None) -> list[float] | None:
    return None if box is None else [round(value, 1) for value in box]
