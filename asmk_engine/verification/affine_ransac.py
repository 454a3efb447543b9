"""Verification as in the published code of DELF and DELG: nearest neighbours, and one affine map found by RANSAC.

Each descriptor of the query pairs with its nearest one in the other image if that is near enough. The score of the
image is the number of pairs that one affine map, from the other image to the query, explains (Noh et al., ICCV 2017;
Cao et al., ECCV 2020). `asmk_engine.verification.match` is the verification of this package, which needs no exact
descriptors; this one is for comparison with published figures.

The maps that RANSAC tries depend on its random numbers. They are those of scikit-image up to 0.18, which the published
code used: `RandomState(seed).choice(pairs, 3, replace=False)` for each trial in turn, and always all trials. Later
versions draw from another generator and stop early, so they try other maps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from asmk_engine import threads
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.features import Features

SAMPLE = 3
"""Pairs that determine an affine map. As in the published code, images with no more pairs than this match in 0."""
AT_ONCE = 1 << 20  # residuals in memory


@dataclass(frozen=True)
class AffineRansac:
    """How features pair, and when a map explains a pair; by default as DELG's script.

    Parameters
    ----------
    distance : float, default 1.0
        Distance, of descriptors of length 1, below which a feature pairs with its nearest neighbour.
    residual : float, default 20.0
        A map explains a pair that it maps to less than this many pixels away.
    ratio : float, optional
        If given, a feature pairs if its nearest neighbour is nearer than this share of the distance of the second
        one, whatever `distance` is.
    trials : int, default 1000
        Number of maps that are tried.
    seed : int, default 0
        Seed of the random numbers.

    Raises
    ------
    InputError
        If a value is out of its range.
    """

    distance: float = 1.0
    residual: float = 20.0
    ratio: float | None = None
    trials: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("distance", "residual", "ratio"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} is {value}; give a number above 0")
        if self.trials < 1 or not 0 <= self.seed < 1 << 32:
            raise InputError(f"trials is {self.trials}, seed {self.seed}; give at least 1, and 0 to 4294967295")

    @classmethod
    def detect_to_retrieve(cls) -> AffineRansac:
        """Return the thresholds of DELF in the code of Detect-to-Retrieve (Teichmann et al., CVPR 2019)."""
        return cls(0.9, 10.0)


@dataclass(frozen=True)
class RansacMatch:
    """The features of two images that are near each other, and those that the best map explains.

    pairs            number of pairs
    query_features   [n] int64, numbers of the features of the query that are explained, increasing
    features         [n] int64, numbers of those of the other image that they pair with; one may be in several pairs
    """

    pairs: int
    query_features: np.ndarray
    features: np.ndarray

    @property
    def inliers(self) -> int:
        """Number of pairs that the map explains: the score of the image."""
        return len(self.features)


def ransac_match(query: Features, other: Features, options: AffineRansac | None = None) -> RansacMatch:
    """Match two images; raises MismatchError if their descriptors have different numbers of dimensions."""
    options = options or AffineRansac()
    if query.descriptors.shape[1] != other.descriptors.shape[1] and len(query) and len(other):
        raise MismatchError(
            f"the descriptors of the query have {query.descriptors.shape[1]} dimensions, those of the other image "
            f"{other.descriptors.shape[1]}; compare features of one extractor"
        )
    ones, others = _near(query, other, options)
    if len(ones) <= SAMPLE:
        return RansacMatch(len(ones), ones[:0], others[:0])
    inside = explained(_places(other)[others], _places(query)[ones], options)
    return RansacMatch(len(ones), ones[inside], others[inside])


def ransac_match_all(
    query: Features, others: Iterable[Features], options: AffineRansac | None = None, count: int | None = None
) -> list[RansacMatch]:
    """Do `ransac_match` for many images with `count` threads, a few in memory at a time."""

    def matched(other: Features) -> RansacMatch:
        return ransac_match(query, other, options)

    return list(threads.stream(matched, others, threads.thread_count(count)))


def explained(sources: np.ndarray, targets: np.ndarray, options: AffineRansac) -> np.ndarray:
    """Return which pairs of places [n, 2] float64 the best map from sources to targets explains: [n] bool.

    The best map explains most pairs; of several, its sum of squared residuals over all pairs is least; of several, it
    was tried first. n is at least 3. Without any map, because all places are equal, no pair is explained.
    """
    samples = random_samples(len(sources), options)
    maps = affine_maps(sources[samples], targets[samples])
    size = max(1, AT_ONCE // len(sources))
    counts, sums = np.zeros(len(maps), np.int64), np.full(len(maps), np.inf)
    for begin in range(0, len(maps), size):
        residuals = _residuals(maps[begin : begin + size], sources, targets)
        counts[begin : begin + size] = (residuals < options.residual).sum(1)
        sums[begin : begin + size] = np.einsum("ij,ij->i", residuals, residuals)
    best = np.lexsort((sums, -counts))[0]
    inside: np.ndarray = _residuals(maps[best : best + 1], sources, targets)[0] < options.residual
    return inside


def random_samples(pairs: int, options: AffineRansac) -> np.ndarray:
    """Return the numbers of the pairs of each trial, [trials, 3] int64; see the module for the random numbers."""
    generator = np.random.RandomState(options.seed)
    return np.stack([generator.choice(pairs, SAMPLE, replace=False) for _ in range(options.trials)])


def affine_maps(sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the affine map of each sample, from places [t, n, 2] to places [t, n, 2], as [t, 2, 3] float64.

    Least squares of a homogeneous system, after both sets of places were moved to the mean 0 and scaled to a mean
    square of 2 (Hartley, TPAMI 1997), as scikit-image does; samples without an own map then get the same one as there.
    NaN for places that are all equal, and where the last value of the solution is 0.
    """
    source_means, source_factors, source = _normalised(sources)
    target_means, target_factors, target = _normalised(targets)
    count, each = source.shape[:2]
    system = np.zeros((count, 2 * each, 7))
    for axis in range(2):
        rows = slice(axis * each, (axis + 1) * each)
        system[:, rows, 3 * axis : 3 * axis + 2] = source
        system[:, rows, 3 * axis + 2] = 1.0
        system[:, rows, 6] = target[:, :, axis]
    usable: np.ndarray = np.isfinite(system.sum((1, 2)))
    solutions = np.linalg.svd(np.where(usable[:, None, None], system, 0.0))[2][:, -1]
    usable &= ~np.isclose(solutions[:, -1], 0.0)
    divisors = np.where(usable, solutions[:, -1], np.nan)
    normalised = (-solutions[:, :6] / divisors[:, None]).reshape(count, 2, 3)
    linear = normalised[:, :, :2] * (source_factors / target_factors)[:, None, None]
    moved = normalised[:, :, 2] / target_factors[:, None] + target_means
    offsets = moved - np.einsum("tij,tj->ti", linear, source_means)
    return np.concatenate([linear, offsets[:, :, None]], axis=2)


def _normalised(places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the means [t, 2] of places [t, n, 2], the factors [t] of their scaling, NaN if all are equal, and both."""
    means = places.mean(1)
    centred = places - means[:, None]
    roots = np.sqrt((centred**2).sum((1, 2)) / places.shape[1])
    factors = math.sqrt(2.0) / np.where(roots > 0, roots, np.nan)
    return means, factors, centred * factors[:, None, None]


def _residuals(maps: np.ndarray, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the distances [t, n] of mapped sources from their targets, infinite for a map of NaN."""
    mapped = sources @ maps[:, :, :2].transpose(0, 2, 1) + maps[:, None, :, 2]
    distances = np.sqrt(((mapped - targets) ** 2).sum(2))
    return np.where(np.isnan(distances), np.inf, distances)


def _near(query: Features, other: Features, options: AffineRansac) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the features that pair, [m] int64 each, in the order of the query's."""
    if not len(query) or not len(other):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    tree, descriptors = cKDTree(_unit(other)), _unit(query)
    if options.ratio is None:
        distances, found = tree.query(descriptors, distance_upper_bound=options.distance)
        near = np.isfinite(distances)
    else:
        distances, both = tree.query(descriptors, k=2)
        found, near = both[:, 0], distances[:, 0] < options.ratio * distances[:, 1]
    ones = np.flatnonzero(near)
    return ones, found[ones].astype(np.int64)


def _unit(features: Features) -> np.ndarray:
    """Return the descriptors with a length of 1, which rounding to half precision changes; 0 remains 0."""
    vectors = features.descriptors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def _places(features: Features) -> np.ndarray:
    return features.keypoints[:, :2].astype(np.float64)
