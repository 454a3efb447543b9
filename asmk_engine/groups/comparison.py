"""Two images compared in both directions: what speaks for their showing the same, in one row of numbers.

share     inliers / the smaller number of the features of both images in the part that both show
residual  median distance of an inlier from where the map puts it, in units of the longer side of the other image
shift     median distance between the places of an inlier in the two images, each relative to its own frame: in
          shares of its sides, or in pixels from one of its corners, whichever is less
border    share of the inliers, by weight, in the outer tenth of an image, of both images the smaller
common    the share of the frame of each image that the other one shows, as the map places them
cells     the cells of 8 x 8 of each image in which inliers are, one bit each, row by row
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from asmk_engine.groups.options import LEAST_PLACES
from asmk_engine.verification.geometry import ImageGeometry
from asmk_engine.verification.match import Match, Verification, match

EVIDENCE = np.dtype([
    ("one", "<u4"), ("other", "<u4"), ("inliers", "<u4"), ("places", "<u4"), ("weight", "<f4"), ("share", "<f4"),
    ("residual", "<f4"), ("shift", "<f4"), ("border", "<f4"), ("common", "<f4", (2,)), ("cells", "<u8", (2,)),
    ("affine", "<f8", (6,)), ("score", "<f4"), ("agreement", "<f4"),
    ("mirrored", "u1"), ("same", "u1"),
])  # fmt: skip
"""A row: the numbers of two images, the evidence, and their similarity in the index.

Inliers, places and weight are the smaller of the two directions; the weight is the sum of the weights of the inliers,
each place and each word counted once. In mirrored rows, `one` is the image that was mirrored.
"""
Geometries = tuple[ImageGeometry | None, ...]
"""The geometry of one image for each kind of local features; None for a kind of which it has none."""
CELLS = 8
BORDER = 0.1


def best_evidence(
    number: int, own: Geometries, others: Iterable[tuple[int, float, Geometries]], options: Verification
) -> np.ndarray:
    """Compare an image with others; returns rows [n] of EVIDENCE, without those of chance.

    own     the geometry of the image for each kind of features; the kind of most weight counts, the first if equal
    others  number, similarity and geometry of each
    """
    found = []
    for other, similarity, geometries in others:
        pairs = zip(own, geometries, strict=True)
        rows = [compared(one, another, options) for one, another in pairs if one is not None and another is not None]
        best = max((row for row in rows if row is not None), key=lambda row: float(row["weight"]), default=None)
        if best is not None:
            best["one"], best["other"], best["score"] = number, other, similarity
            found.append(best)
    return np.array(found, EVIDENCE)


def compared(one: ImageGeometry, other: ImageGeometry, options: Verification) -> np.ndarray | None:
    """Compare two images in both directions; None if either finds fewer than `LEAST_PLACES` places.

    Returns a row of EVIDENCE, shape (), without the numbers of the images. The map is that from `one` to `other`.
    """
    there = match(one, other, options)
    if there.places < LEAST_PLACES:
        return None
    back = match(other, one, options)
    if back.places < LEAST_PLACES:
        return None
    row = _evidence(there, one.places, other.places)
    row["inliers"] = min(there.inliers, back.inliers)
    row["places"] = min(there.places, back.places)
    row["weight"] = min(_weight(there, one), _weight(back, other))
    return row


def _weight(found: Match, query: ImageGeometry) -> float:
    """Return the sum of the weights of the inliers, each place counted once, or each word, whichever is less.

    A sky has many places and few words: its features are all alike, so that any map explains some of them.
    """
    words = np.zeros(len(query), np.int64)
    words[query.features] = query.words
    order = np.lexsort((-found.weights, words[found.query_features]))
    of_inliers = words[found.query_features][order]
    is_first = np.concatenate([[True], of_inliers[1:] != of_inliers[:-1]])
    return min(found.places_weight, float(np.cumsum(found.weights[order][is_first])[-1]))


def as_bytes(rows: np.ndarray) -> np.ndarray:
    """Return rows [n] of EVIDENCE as [n, bytes] uint8, as an array file stores them."""
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), EVIDENCE.itemsize)


def from_bytes(stored: np.ndarray) -> np.ndarray:
    """Return the rows [n] of EVIDENCE of `as_bytes`."""
    return np.ascontiguousarray(stored).reshape(-1).view(EVIDENCE)


def _evidence(found: Match, places: np.ndarray, other_places: np.ndarray) -> np.ndarray:
    """Return what the match in one direction says; x and y of all features of the two images are in [n, 4] each."""
    row = np.zeros((), EVIDENCE)
    row["affine"] = found.affine.reshape(-1)
    row["share"] = _share(found, places, other_places)
    distances = np.linalg.norm(_mapped(found.affine, found.query_points) - found.points, axis=1)
    row["residual"] = np.median(distances) / max(1, *found.size)
    row["shift"] = _shift(found)
    sides = (found.query_points, found.query_size), (found.points, found.size)
    row["border"] = min(_border(points, size, found.weights) for points, size in sides)
    row["cells"] = [_cells(points, size) for points, size in sides]
    row["common"] = _common(found)
    row["agreement"] = np.nan  # until the pixels are looked at
    return row


def ends_of(rows: np.ndarray) -> np.ndarray:
    """Return the numbers of both images of rows [n] of EVIDENCE, the smaller first, [n, 2]."""
    return np.sort(np.stack([rows["one"], rows["other"]], axis=1), axis=1)


def _mapped(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    mapped: np.ndarray = points[:, :2] @ affine[:, :2].T + affine[:, 2]
    return mapped


def _share(found: Match, places: np.ndarray, other_places: np.ndarray) -> float:
    """Return which share of the features in the part that both images show are inliers."""
    back = np.linalg.inv(np.vstack([found.affine, [0.0, 0.0, 1.0]]))[:2]
    shown = _inside(_mapped(found.affine, places), found.size)
    other_shown = _inside(_mapped(back, other_places), found.query_size)
    return min(1.0, found.inliers / max(1, min(shown, other_shown)))


def _inside(points: np.ndarray, size: tuple[int, int]) -> int:
    return int(np.count_nonzero(((points >= -0.5) & (points <= np.array(size) - 0.5)).all(1)))


def _common(found: Match) -> tuple[float, float]:
    """Return the share of both frames in which they meet."""
    frame, other = _corners(found.query_size), _corners(found.size)
    there = _mapped(found.affine, frame).astype(np.float32)
    met = float(cv2.intersectConvexConvex(there, other.astype(np.float32))[0])
    own, others = float(cv2.contourArea(there)), float(cv2.contourArea(other.astype(np.float32)))
    return min(1.0, met / max(own, 1e-6)), min(1.0, met / max(others, 1e-6))


def _corners(size: tuple[int, int]) -> np.ndarray:
    width, height = size
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64) - 0.5


def _shift(found: Match) -> float:
    one, other = _relative(found.query_points, found.query_size), _relative(found.points, found.size)
    in_shares = float(np.median(np.abs(one - other).max(1)))
    moved = np.abs(found.query_points - found.points)
    from_last = np.abs(found.query_points - found.points - (np.array(found.query_size) - found.size))
    in_pixels = np.minimum(np.median(moved, axis=0), np.median(from_last, axis=0)).max()
    return min(in_shares, float(in_pixels) / max(1, *found.size))


def _relative(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    relative: np.ndarray = (points + 0.5) / np.maximum(size, 1)
    return relative


def _border(points: np.ndarray, size: tuple[int, int], weights: np.ndarray) -> float:
    relative = _relative(points, size)
    outside = ((relative < BORDER) | (relative > 1 - BORDER)).any(1)
    return float(weights[outside].sum() / max(float(weights.sum()), 1e-12))


def _cells(points: np.ndarray, size: tuple[int, int]) -> int:
    column, row = np.clip((_relative(points, size) * CELLS).astype(np.int64), 0, CELLS - 1).T
    return sum(1 << cell for cell in {*(row * CELLS + column).tolist()})
