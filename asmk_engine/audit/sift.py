"""SIFT, a kd-tree and RANSAC: the verification that the README of RGLDv2-clean names.

Of it no parameter is published. Descriptors are RootSIFT; a feature of the query takes its nearest neighbour if the
second nearest is farther by the factor 1 / 0.8 (Lowe, IJCV 2004); each feature of the image keeps one; OpenCV's RANSAC
finds a homography with inliers within 1 % of the longer side of the image. One that mirrors is refused.
"""

from __future__ import annotations

import threading

import cv2
import numpy as np

from asmk_engine.features import Features
from asmk_engine.verification.match import Match

RATIO = 0.8
SLACK = 0.01
ROUNDS = 2000
TREES, CHECKS = 4, 64
LEAST = 12
"""Inliers of a pair that is shown by default."""
_INDEX: dict[str, bool | int | float | str] = {"algorithm": 1, "trees": TREES}  # 1 is a kd-tree
_SEARCH: dict[str, bool | int | float | str] = {"checks": CHECKS}
_LOCK = threading.Lock()  # the numbers that OpenCV draws belong to the process


def sift_matches(query: Features, image: Features) -> tuple[Match, Match]:
    """Compare two images by their SIFT features, [n, 128] each: as they are, and with the query mirrored as a control.

    For the control its features are moved to where they are in the mirrored photograph, and pair as before. Of a match
    the inliers are given, each of weight 1; the affine map is 0, since the map is a homography.
    """
    ones, others = _nearest(query.descriptors, image.descriptors)
    points = query.keypoints[ones, :2].astype(np.float32)
    mirrored = np.column_stack([query.image_size[0] - 1 - points[:, 0], points[:, 1]]).astype(np.float32)
    other_points = image.keypoints[others, :2].astype(np.float32)
    slack = SLACK * max(1, *image.image_size)
    inside, by_chance = (_inliers(some, other_points, slack) for some in (points, mirrored))
    return _as_match(query, image, ones, others, inside), _as_match(query, image, ones, others, by_chance)


def _nearest(query: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the features of both images that pair, [m] each, the surest pair first."""
    nothing = np.empty(0, np.int32)
    if len(query) < 4 or len(image) < 4:
        return nothing, nothing
    with _LOCK:
        cv2.setRNGSeed(0)
        matcher = cv2.FlannBasedMatcher(_INDEX, _SEARCH)
        found = matcher.knnMatch(query.astype(np.float32), image.astype(np.float32), k=2)
    best: dict[int, tuple[float, int]] = {}
    for pair in found:
        if len(pair) == 2 and pair[0].distance < RATIO * pair[1].distance:
            known = best.get(pair[0].trainIdx)
            if known is None or pair[0].distance < known[0]:
                best[pair[0].trainIdx] = pair[0].distance, pair[0].queryIdx
    rows = sorted((distance, one, other) for other, (distance, one) in best.items())
    return np.array([row[1] for row in rows], np.int32), np.array([row[2] for row in rows], np.int32)


def _inliers(points: np.ndarray, others: np.ndarray, slack: float) -> np.ndarray:
    """Return which pairs [m] of places one homography explains."""
    if len(points) < 4:
        return np.zeros(len(points), np.bool_)
    with _LOCK:
        cv2.setRNGSeed(0)
        found, inside = cv2.findHomography(points, others, cv2.RANSAC, slack, maxIters=ROUNDS, confidence=0.999)
    if found is None or not _keeps_sides(found, points[inside.ravel() > 0]):
        return np.zeros(len(points), np.bool_)
    kept: np.ndarray = inside.ravel() > 0
    return kept


def _keeps_sides(homography: np.ndarray, points: np.ndarray) -> bool:
    """Return whether a homography neither mirrors nor folds the places [m, 2] at which it was found."""
    depths = points @ homography[2, :2] + homography[2, 2]
    return bool(np.linalg.det(homography) * np.sign(depths[:1]).sum() > 0 and (depths * depths[0] > 0).all())


def _as_match(query: Features, image: Features, ones: np.ndarray, others: np.ndarray, inside: np.ndarray) -> Match:
    chosen, chosen_others = ones[inside], others[inside]
    equal = np.ones(len(chosen))
    return Match(
        pairs=len(ones),
        mass=float(len(ones)),
        weight=float(len(chosen)),
        places=len(chosen),
        places_weight=float(len(chosen)),
        affine=np.zeros((2, 3)),
        query_points=query.keypoints[chosen, :2].astype(np.float32),
        points=image.keypoints[chosen_others, :2].astype(np.float32),
        query_features=chosen,
        features=chosen_others,
        weights=equal,
        similarities=equal,
        words=np.zeros(len(chosen), np.uint32),
        query_scales=query.keypoints[chosen, 2].astype(np.float32),
        scales=image.keypoints[chosen_others, 2].astype(np.float32),
        query_size=query.image_size,
        size=image.image_size,
        is_copy=False,
    )
