"""Geometry: the affine map that most pairs of features of two images agree on.

A pair votes with its weight. Every strong pair proposes a map of scale and translation, or of rotation too where
features have angles; the best few proposals are refined by weighted least squares to affine maps.
"""

import math

import numpy as np
from numba import njit

from asmk_engine.kernels import kernel

_PLACES = "Array(float32, 2, 'C', readonly=True)"
_WEIGHTS = "Array(float64, 1, 'C', readonly=True)"
_ROUNDS = 4  # of refinement: more changed no result on photographs
_FINALISTS = 3  # proposals that are refined
_SLANTS = 3  # rounds of fitting a projective map
_LEAST_SLANT = 8  # pairs for the 8 numbers of a projective map
_LEAST_DEPTH = 0.25  # of what is marked, in that of the middle
_HOLD_SLANT = 1e-4  # share of each diagonal that holds the projective map to the affine one
_HOLD = 0.05  # weight of the proposed map in the least squares, as a share of the spread of the pairs


@njit(nogil=True)
def _proposals_needed(share):
    """Return after how many proposals, right with probability `share` each, none was right once in a thousand times.

    Twice as many, and at least 16: the best of several right proposals is nearer to the truth.
    """
    if share <= 1e-6:
        return 1 << 30
    return 16 if share >= 1.0 else max(16, int(2.0 * math.log(1e-3) / math.log1p(-share)))


@njit(nogil=True)
def _scaled_votes(scale, right, down, spread, columns, votes):
    """Sum the votes for a map of scale and translation; integers, so their order changes nothing."""
    x, y, other_x, other_y, squares, ratios, _ = columns
    middle = np.float32(math.log2(scale))
    total = np.int32(0)
    for i in range(len(votes)):
        off = scale * x[i] + right - other_x[i]
        below = scale * y[i] + down - other_y[i]
        near = (off * off + below * below <= squares[i]) & (abs(ratios[i] - middle) <= spread)
        total += votes[i] if near else np.int32(0)
    return total


@njit(nogil=True)
def _turned_votes(a, b, right, down, spread, columns, votes):
    """Sum the votes for a map of scale, rotation and translation."""
    x, y, other_x, other_y, squares, ratios, _ = columns
    middle = np.float32(math.log2(math.sqrt(a * a + b * b)))
    total = np.int32(0)
    for i in range(len(votes)):
        off = a * x[i] - b * y[i] + right - other_x[i]
        below = b * x[i] + a * y[i] + down - other_y[i]
        near = (off * off + below * below <= squares[i]) & (abs(ratios[i] - middle) <= spread)
        total += votes[i] if near else np.int32(0)
    return total


@njit(nogil=True)
def _proposed(one, other, turns):
    """Return the scale and the rotation that take one feature (x, y, scale, angle) to another, as a cos and a sin."""
    scale = other[2] / one[2]
    if not turns:
        return scale, np.float32(0.0)
    angle = other[3] - one[3]
    return scale * np.float32(math.cos(angle)), scale * np.float32(math.sin(angle))


@njit(nogil=True)
def _best_proposals(places, other_places, weights, columns, proposals, turns, spread):
    """Return the pairs whose maps get the most votes, the best first, -1 for none."""
    firsts, best = np.full(_FINALISTS, -1, np.int64), np.zeros(_FINALISTS, np.int32)
    total = weights.sum()
    unit = 2.0**30 / max(total, 1e-300)
    votes = np.empty(len(weights), np.int32)
    for i in range(len(weights)):
        votes[i] = np.int32(weights[i] * unit)
    for i in range(min(proposals, len(weights))):
        if i >= _proposals_needed(best[0] / 2.0**30):
            break
        one, other = places[i], other_places[i]
        a, b = _proposed(one, other, turns)
        right = other[0] - a * one[0] + b * one[1]
        down = other[1] - b * one[0] - a * one[1]
        if turns:
            found = _turned_votes(a, b, right, down, spread, columns, votes)
        else:
            found = _scaled_votes(a, right, down, spread, columns, votes)
        place = _FINALISTS
        while place > 0 and found > best[place - 1]:
            place -= 1
        for k in range(_FINALISTS - 1, place, -1):
            firsts[k], best[k] = firsts[k - 1], best[k - 1]
        if place < _FINALISTS:
            firsts[place], best[place] = i, found
    return firsts


@njit(nogil=True)
def _vote(columns, weights, affine, spread, inside):
    """Mark the pairs that a map explains; returns the sum of their weights.

    A pair is explained if its place is mapped to within its tolerance, and its scales differ from the map's by at most
    a factor of 2 ** `spread`.
    """
    x, y, other_x, other_y, squares, ratios, _ = columns
    a, b, c, d, right, down = affine
    middle = 0.5 * math.log2(max(abs(a * d - b * c), 1e-300))
    total = 0.0
    for i in range(len(weights)):
        off = a * x[i] + b * y[i] + right - other_x[i]
        below = c * x[i] + d * y[i] + down - other_y[i]
        inside[i] = (off * off + below * below <= squares[i]) & (abs(ratios[i] - middle) <= spread)
        total += weights[i] if inside[i] else 0.0
    return total


@njit(nogil=True)
def _fit(columns, weights, inside, held):
    """Fit an affine map to the marked pairs by weighted least squares, held to the map `held`.

    A pair counts by its weight over the square of its tolerance. The hold is a share of the spread of the places, so it
    decides only where they leave a direction open: all on one line, or at one spot.
    """
    x, y, other_x, other_y, _, _, sharpness = columns
    total = mean_x = mean_y = other_mean_x = other_mean_y = 0.0
    for i in range(len(weights)):
        weight = weights[i] * sharpness[i] if inside[i] else 0.0
        total += weight
        mean_x += weight * x[i]
        mean_y += weight * y[i]
        other_mean_x += weight * other_x[i]
        other_mean_y += weight * other_y[i]
    mean_x, mean_y, other_mean_x, other_mean_y = (
        mean_x / total, mean_y / total, other_mean_x / total, other_mean_y / total,
    )  # fmt: skip
    xx = xy = yy = x_right = y_right = x_down = y_down = 0.0
    for i in range(len(weights)):
        weight = weights[i] * sharpness[i] if inside[i] else 0.0
        u, v = x[i] - mean_x, y[i] - mean_y
        right, down = other_x[i] - other_mean_x, other_y[i] - other_mean_y
        xx += weight * u * u
        xy += weight * u * v
        yy += weight * v * v
        x_right += weight * u * right
        y_right += weight * v * right
        x_down += weight * u * down
        y_down += weight * v * down
    hold = _HOLD * (xx + yy) + 1e-9 * total
    xx, yy = xx + hold, yy + hold
    area = xx * yy - xy * xy  # > 0: the hold makes the matrix positive definite
    x_right, y_right = x_right + hold * held[0], y_right + hold * held[1]
    x_down, y_down = x_down + hold * held[2], y_down + hold * held[3]
    a, b = (yy * x_right - xy * y_right) / area, (xx * y_right - xy * x_right) / area
    c, d = (yy * x_down - xy * y_down) / area, (xx * y_down - xy * x_down) / area
    return a, b, c, d, other_mean_x - a * mean_x - b * mean_y, other_mean_y - c * mean_x - d * mean_y


@njit(nogil=True)
def _plausible(affine, uneven):
    """Return whether a map neither mirrors nor collapses: its two stretches differ by at most a factor of `uneven`."""
    a, b, c, d = affine[0], affine[1], affine[2], affine[3]
    area, squares = a * d - b * c, a * a + b * b + c * c + d * d
    return area > 0.0 and squares <= area * (uneven + 1.0 / uneven)


@njit(nogil=True)
def _refined(columns, weights, affine, spread, uneven, inside, tried):
    """Refine a map while the sum of its votes grows; returns the map and the sum, and marks its pairs in `inside`."""
    best = _vote(columns, weights, affine, spread, inside)
    for _ in range(_ROUNDS):
        if best <= 0.0:
            break
        fitted = _fit(columns, weights, inside, affine)
        if not _plausible(fitted, uneven):
            break
        votes = _vote(columns, weights, fitted, spread, tried)
        if votes < best:
            break
        grows = votes > best
        affine, best = fitted, votes
        inside[:] = tried
        if not grows:
            break
    return affine, best


@njit(nogil=True)
def _middle(columns, weights, inside):
    """Return the mean place of the marked pairs in the first image, and the root mean square distance from it."""
    x, y, _, _, _, _, sharpness = columns
    total = mean_x = mean_y = square = 0.0
    for i in range(len(weights)):
        weight = weights[i] * sharpness[i] if inside[i] else 0.0
        total += weight
        mean_x += weight * x[i]
        mean_y += weight * y[i]
        square += weight * (x[i] * x[i] + y[i] * y[i])
    mean_x, mean_y = mean_x / total, mean_y / total
    return mean_x, mean_y, math.sqrt(max(square / total - mean_x * mean_x - mean_y * mean_y, 0.0)) + 1e-6


@njit(nogil=True)
def _project(columns, weights, inside, affine, middle):
    """Fit a projective map to the marked pairs; returns [8] float64, what it adds to the affine map.

    The map is (affine (x, y) + (c0 u + c1 v + c2, c3 u + c4 v + c5)) / (1 + c6 u + c7 v) with u and v the places less
    their mean, over their spread. The linear equations (1 + c6 u + c7 v) other = ... are solved by least squares, where
    the left sides have the terms (u, v, 1) for c0 to c2 and c3 to c5, and -other (u, v) for c6 and c7.
    """
    x, y, other_x, other_y, _, _, sharpness = columns
    mean_x, mean_y, unit = middle
    w = wu = wv = wuu = wuv = wvv = 0.0
    xu = xv = xuu = xuv = xvv = yu = yv = yuu = yuv = yvv = suu = suv = svv = 0.0
    ru = rv = r = du = dv = d = su = sv = 0.0
    for i in range(len(weights)):
        weight = weights[i] * sharpness[i] if inside[i] else 0.0
        u, v = (x[i] - mean_x) / unit, (y[i] - mean_y) / unit
        right, down = np.float64(other_x[i]), np.float64(other_y[i])
        right_rest = right - (affine[0] * x[i] + affine[1] * y[i] + affine[4])
        down_rest = down - (affine[2] * x[i] + affine[3] * y[i] + affine[5])
        u1, v1 = weight * u, weight * v
        uu, uv, vv = u1 * u, u1 * v, v1 * v
        w, wu, wv, wuu, wuv, wvv = w + weight, wu + u1, wv + v1, wuu + uu, wuv + uv, wvv + vv
        xu, xv, xuu, xuv, xvv = xu + right * u1, xv + right * v1, xuu + right * uu, xuv + right * uv, xvv + right * vv
        yu, yv, yuu, yuv, yvv = yu + down * u1, yv + down * v1, yuu + down * uu, yuv + down * uv, yvv + down * vv
        square, both = right * right + down * down, right * right_rest + down * down_rest
        suu, suv, svv, su, sv = suu + square * uu, suv + square * uv, svv + square * vv, su + both * u1, sv + both * v1
        ru, rv, r = ru + right_rest * u1, rv + right_rest * v1, r + right_rest * weight
        du, dv, d = du + down_rest * u1, dv + down_rest * v1, d + down_rest * weight
    matrix = np.zeros((8, 8))
    for k in (0, 3):
        matrix[k, k], matrix[k + 1, k], matrix[k + 1, k + 1] = wuu, wuv, wvv
        matrix[k + 2, k], matrix[k + 2, k + 1], matrix[k + 2, k + 2] = wu, wv, w
    matrix[6, 0], matrix[6, 1], matrix[6, 2], matrix[7, 0], matrix[7, 1], matrix[7, 2] = (
        -xuu,
        -xuv,
        -xu,
        -xuv,
        -xvv,
        -xv,
    )
    matrix[6, 3], matrix[6, 4], matrix[6, 5], matrix[7, 3], matrix[7, 4], matrix[7, 5] = (
        -yuu,
        -yuv,
        -yu,
        -yuv,
        -yvv,
        -yv,
    )
    matrix[6, 6], matrix[7, 6], matrix[7, 7] = suu, suv, svv
    for k in range(8):
        matrix[k, k] += _HOLD_SLANT * matrix[k, k] + 1e-12 * w
    return _solve(matrix, np.array([ru, rv, r, du, dv, d, -su, -sv]))


@njit(nogil=True)
def _solve(matrix, vector):
    """Solve a positive definite system, of which the lower half is given, by Cholesky's method, in place."""
    size = len(vector)
    for i in range(size):
        for j in range(i + 1):
            rest = matrix[i, j]
            for k in range(j):
                rest -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = math.sqrt(max(rest, 1e-300)) if i == j else rest / matrix[j, j]
    for i in range(size):
        for k in range(i):
            vector[i] -= matrix[i, k] * vector[k]
        vector[i] /= matrix[i, i]
    for i in range(size - 1, -1, -1):
        for k in range(i + 1, size):
            vector[i] -= matrix[k, i] * vector[k]
        vector[i] /= matrix[i, i]
    return vector


@njit(nogil=True)
def _tangent(affine, change, mean_x, mean_y, unit):
    """Return the linear part of a projective map, as `_project` describes it, at the mean place."""
    right = affine[0] * mean_x + affine[1] * mean_y + affine[4] + change[2]
    down = affine[2] * mean_x + affine[3] * mean_y + affine[5] + change[5]
    return (
        affine[0] + (change[0] - right * change[6]) / unit,
        affine[1] + (change[1] - right * change[7]) / unit,
        affine[2] + (change[3] - down * change[6]) / unit,
        affine[3] + (change[4] - down * change[7]) / unit,
    )


@njit(nogil=True)
def _seen_aslant(columns, weights, spread, uneven, affine, inside, tried, best):
    """Mark also the pairs that only a projective map explains, as of a plane seen aslant; returns the new weight.

    Nothing changes if the weight does not grow. The affine map stays that of the pairs it explains itself.
    """
    x, y, other_x, other_y, squares, ratios, _ = columns
    middle = 0.5 * math.log2(max(abs(affine[0] * affine[3] - affine[1] * affine[2]), 1e-300))
    for _ in range(_SLANTS):
        marked = 0
        for i in range(len(weights)):
            marked += inside[i]
        if marked < _LEAST_SLANT:
            break
        mean_x, mean_y, unit = _middle(columns, weights, inside)
        change = _project(columns, weights, inside, affine, (mean_x, mean_y, unit))
        if not _plausible(_tangent(affine, change, mean_x, mean_y, unit), uneven):
            break
        votes = 0.0
        for i in range(len(weights)):
            u, v = (x[i] - mean_x) / unit, (y[i] - mean_y) / unit
            depth = 1.0 + change[6] * u + change[7] * v
            off = affine[0] * x[i] + affine[1] * y[i] + affine[4] + change[0] * u + change[1] * v + change[2]
            below = affine[2] * x[i] + affine[3] * y[i] + affine[5] + change[3] * u + change[4] * v + change[5]
            off, below = off - depth * other_x[i], below - depth * other_y[i]
            near = off * off + below * below <= squares[i] * depth * depth
            tried[i] = near & (depth > _LEAST_DEPTH) & (abs(ratios[i] - middle) <= 2.0 * spread)
            votes += weights[i] if tried[i] else 0.0
        if votes <= best:
            break
        best = votes
        inside[:] = tried
    return best


@njit(nogil=True)
def _columns(places, other_places, tolerances):
    """Return x and y of the pairs in both images, the squares of the tolerances, log2 of the ratios of the scales, and
    one over the squares.
    """
    count = len(places)
    table = np.empty((7, count), np.float32)
    for i in range(count):
        table[0, i], table[1, i] = places[i, 0], places[i, 1]
        table[2, i], table[3, i] = other_places[i, 0], other_places[i, 1]
        table[4, i] = tolerances[i] * tolerances[i]
        table[5, i] = math.log2(other_places[i, 2] / places[i, 2])
        table[6, i] = 1.0 / (tolerances[i] * tolerances[i])
    return table[0], table[1], table[2], table[3], table[4], table[5], table[6]


@kernel(
    f"float64({_PLACES}, {_PLACES}, {_WEIGHTS}, {_WEIGHTS}, int64, boolean, float64, float64, float64[::1], "
    "boolean[::1])"
)
def verify(places, other_places, weights, tolerances, proposals, turns, stretch, uneven, out_map, out_inside):
    """Find the affine map that explains pairs of the greatest weight; returns that weight, 0 for no pairs.

    places, other_places  [n, 4] float32: x, y, scale > 0, angle of the two features of each pair, in pixels and radians
    weights               [n] float64 >= 0
    tolerances            [n] float64 > 0: how far from its place a feature may be mapped, in pixels of the other image
    proposals             number of pairs, from the first, whose maps are tried; fewer once more can hardly be better
    turns                 whether a pair proposes a rotation by the difference of its angles
    stretch               largest factor between the ratio of the scales of a pair and that of the map
    uneven                largest ratio of the two stretches of a map
    out_map               [6] float64, out: a, b, c, d, x, y, which maps (u, v) to (a u + b v + x, c u + d v + y)
    out_inside            [n] bool, out: which pairs the map explains
    """
    out_map[:] = 0.0
    out_inside[:] = False
    columns, spread = _columns(places, other_places, tolerances), math.log2(stretch)
    inside, tried = np.empty(len(weights), np.bool_), np.empty(len(weights), np.bool_)
    best = 0.0
    for i in _best_proposals(places, other_places, weights, columns, proposals, turns, np.float32(spread)):
        if i >= 0 and not out_inside[i]:  # a pair that the best map explains would propose nothing new
            one, other = places[i], other_places[i]
            a, b = _proposed(one, other, turns)
            right = np.float64(other[0]) - np.float64(a) * one[0] + np.float64(b) * one[1]
            down = np.float64(other[1]) - np.float64(b) * one[0] - np.float64(a) * one[1]
            proposed = np.float64(a), -np.float64(b), np.float64(b), np.float64(a), right, down
            refined, votes = _refined(columns, weights, proposed, spread, uneven, inside, tried)
            if votes > best:
                best = votes
                out_inside[:] = inside
                for k in range(6):
                    out_map[k] = refined[k]
    return _seen_aslant(columns, weights, spread, uneven, out_map, out_inside, inside, best)


@kernel(f"int64({_PLACES}, {_WEIGHTS}, Array(boolean, 1, 'C', readonly=True), float64, float64[::1])")
def weigh_places(places, weights, inside, side, out_weight):
    """Count the distinct places of marked features, the squares of a grid that hold some; returns their number.

    places      [n, 4] float32, x and y first
    weights     [n] float64
    inside      [n] bool
    side        of a square, in the unit of x and y
    out_weight  [1] float64, out: the sum over the squares of the largest weight in each
    """
    cells = np.empty(len(inside), np.int64)
    kept = np.empty(len(inside))
    count = 0
    for i in range(len(inside)):
        if inside[i]:
            column, row = np.int64(math.floor(places[i, 0] / side)), np.int64(math.floor(places[i, 1] / side))
            cells[count], kept[count] = (row << 32) ^ (column & 0xFFFFFFFF), weights[i]
            count += 1
    order = np.argsort(cells[:count], kind="mergesort")
    distinct = 0
    total = largest = 0.0
    for i in range(count):
        if i > 0 and cells[order[i]] != cells[order[i - 1]]:
            total += largest
            largest = 0.0
            distinct += 1
        largest = max(largest, kept[order[i]])
    out_weight[0] = total + largest
    return distinct + (count > 0)
