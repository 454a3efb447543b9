"""Geometry: the affine map that most pairs of features of two images agree on.

A pair votes with its weight. Every strong pair proposes a map of scale and translation, and one of rotation too: by its
angles where features have some, else two pairs together. Proposals come in groups, and the best of each is refined by
weighted least squares to an affine map.

What is decided by votes is decided by sums of integers, whose order changes nothing. The sums of the least squares are
of a fixed order for a processor, whatever the number of threads.
"""

import math

import numpy as np
from numba import njit

from asmk_engine.kernels import kernel

_PLACES = "Array(float32, 2, 'C', readonly=True)"
_WEIGHTS = "Array(float64, 1, 'C', readonly=True)"
_GROUP = 8  # proposals of a kind in the first group; each later group is as large as all before it
_MOST = 0.5  # of the weight: a map that explains more leaves too little for a quite different one
_PARTNERS = 32  # first pairs of which two propose a rotation
_APART = 2.0  # how far apart the two are, in tolerances
_UNIT = 2.0**30  # sum of the votes of all pairs
_ROUNDS = 4  # of refinement: more changed no result on photographs
_TURNED = 2.0  # times the weight of the best map, which a map that turns must exceed: turns are rare
_WIDE = 2.0  # tolerances that the first fit of a proposal reaches
_SLANTS = 3  # rounds of fitting a projective map
_LEAST_SLANT = 8  # pairs for the 8 numbers of a projective map
_LEAST_DEPTH = 0.25  # of what is marked, in that of the middle
_HOLD_SLANT = 1e-4  # share of each diagonal that holds the projective map to the affine one
_HOLD = 0.05  # weight of the proposed map in the least squares, as a share of the spread of the pairs


@njit(nogil=True)
def _proposals_needed(share):
    """Return after how many proposals, right with probability `share` each, none was right once in a thousand times.

    At least one group: the best of several right proposals is nearer to the truth.
    """
    if share <= 1e-6:
        return 1 << 30
    return _GROUP if share >= 1.0 else max(_GROUP, int(math.log(1e-3) / math.log1p(-share)))


@njit(nogil=True)
def _mark(table, votes, affine, stretch, wide, marks):
    """Mark the pairs that a map explains by 1, the others by 0; returns the sum of their votes.

    A pair is explained if its place is mapped to within `wide` times its tolerance, and its scales differ from those of
    the map by at most a factor of `stretch`.
    """
    x, y, other_x, other_y, squares, ratios = table[0], table[1], table[2], table[3], table[4], table[5]
    a, b, c, d = np.float32(affine[0]), np.float32(affine[1]), np.float32(affine[2]), np.float32(affine[3])
    right, down = np.float32(affine[4]), np.float32(affine[5])
    scale = math.sqrt(abs(affine[0] * affine[3] - affine[1] * affine[2]))
    low, high, wider = np.float32(scale / stretch), np.float32(scale * stretch), np.float32(wide * wide)
    total = np.int32(0)
    for i in range(len(votes)):
        off = a * x[i] + b * y[i] + right - other_x[i]
        below = c * x[i] + d * y[i] + down - other_y[i]
        near = (off * off + below * below <= wider * squares[i]) & (ratios[i] >= low) & (ratios[i] <= high)
        marks[i] = np.float32(1.0) if near else np.float32(0.0)
        total += votes[i] if near else np.int32(0)
    return total


@njit(nogil=True)
def _similarity(table, i, a, b):
    """Return the map of a scale and a rotation, given as a cos and a sin, that takes pair i's place to the other."""
    a, b, x, y = np.float64(a), np.float64(b), np.float64(table[0, i]), np.float64(table[1, i])
    return a, -b, b, a, table[2, i] - a * x + b * y, table[3, i] - b * x - a * y


@njit(nogil=True)
def _of_two(table, i, j, stretch):
    """Return whether two pairs propose a map of scale, rotation and translation, and the map.

    They propose none if they are too near to each other, if it would turn by more than 45 degrees, or if its scale
    differs from that of one of them by more than a factor of `stretch`.
    """
    u, v = np.float64(table[0, j] - table[0, i]), np.float64(table[1, j] - table[1, i])
    right, down = np.float64(table[2, j] - table[2, i]), np.float64(table[3, j] - table[3, i])
    square, other_square = u * u + v * v, right * right + down * down
    along, across = u * right + v * down, u * down - v * right
    low, high = min(table[5, i], table[5, j]), max(table[5, i], table[5, j])
    agrees = (other_square <= (low * stretch) ** 2 * square) & (other_square * stretch**2 >= high**2 * square)
    apart = other_square >= _APART**2 * max(table[4, i], table[4, j])
    if not (agrees & apart & (along > abs(across))):
        return False, (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    return True, _similarity(table, i, along / square, across / square)


@njit(nogil=True)
def _best_of_ones(table, votes, turn, begin, end, stretch, space):
    """Return the most votes for a map that one of the pairs from `begin` to `end` proposes, the map, and its pair.

    A pair that the best map explains already proposes nothing new.

    turn  whether they propose the rotation of their angles
    """
    best, chosen, affine = np.int64(0), 0, (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    for i in range(begin, end):
        if space[0, i] == 0.0:
            proposed = _similarity(table, i, table[7 if turn else 5, i], table[8, i] if turn else 0.0)
            found = _mark(table, votes, proposed, stretch, 1.0, space[1])
            if found > best:
                best, chosen, affine = found, i, proposed
    return best, affine, chosen


@njit(nogil=True)
def _best_of_twos(table, votes, i, j, count, stretch, space):
    """Return the most votes for a map that two pairs propose, the map and a pair; where the next group begins; a count.

    Pair j goes with each pair i before it, until `count` maps are proposed. Two that the best map explains already
    count, but propose nothing new.
    """
    best, chosen, affine = np.int64(0), 0, (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    partners = min(len(votes), _PARTNERS)
    tried = 0
    while j < partners and tried < count:
        proposes, proposed = _of_two(table, i, j, stretch)
        if proposes:
            tried += 1
            if space[0, i] * space[0, j] == 0.0:
                found = _mark(table, votes, proposed, stretch, 1.0, space[1])
                if found > best:
                    best, chosen, affine = found, i, proposed
        i += 1
        if i == j:
            i, j = 0, j + 1
    return (best, affine, chosen), i, j, tried


@njit(nogil=True, fastmath={"reassoc", "contract"})
def _moments(table, marks, i):
    """Return the sums of what an affine map is fitted to: weights, places less those of pair i, and their products."""
    x, y, other_x, other_y, sharpness = table[0], table[1], table[2], table[3], table[6]
    mid_x, mid_y, other_mid_x, other_mid_y = x[i], y[i], other_x[i], other_y[i]
    w = wu = wv = wr = wd = uu = uv = vv = ur = vr = ud = vd = 0.0
    for k in range(len(marks)):
        weight = np.float64(marks[k] * sharpness[k])
        u, v = np.float64(x[k] - mid_x), np.float64(y[k] - mid_y)
        right, down = np.float64(other_x[k] - other_mid_x), np.float64(other_y[k] - other_mid_y)
        weight_u, weight_v = weight * u, weight * v
        w, wu, wv, wr, wd = w + weight, wu + weight_u, wv + weight_v, wr + weight * right, wd + weight * down
        uu, uv, vv = uu + weight_u * u, uv + weight_u * v, vv + weight_v * v
        ur, vr, ud, vd = ur + weight_u * right, vr + weight_v * right, ud + weight_u * down, vd + weight_v * down
    return w, wu, wv, wr, wd, uu, uv, vv, ur, vr, ud, vd


@njit(nogil=True)
def _fit(table, marks, held, i):
    """Fit an affine map to the marked pairs by weighted least squares, held to the map `held`.

    A pair counts by its weight over the square of its tolerance. The hold is a share of the spread of the places, so it
    decides only where they leave a direction open: all on one line, or at one spot. Places are relative to pair i, for
    the precision of the sums.
    """
    w, wu, wv, wr, wd, uu, uv, vv, ur, vr, ud, vd = _moments(table, marks, i)
    mean_u, mean_v, mean_r, mean_d = wu / w, wv / w, wr / w, wd / w
    xx, xy, yy = max(uu - wu * mean_u, 0.0), uv - wu * mean_v, max(vv - wv * mean_v, 0.0)
    hold = _HOLD * (xx + yy) + 1e-9 * w
    x_right, y_right = ur - wu * mean_r + hold * held[0], vr - wv * mean_r + hold * held[1]
    x_down, y_down = ud - wu * mean_d + hold * held[2], vd - wv * mean_d + hold * held[3]
    xx, yy = xx + hold, yy + hold
    area = max(xx * yy - xy * xy, hold * hold)  # the hold makes the matrix positive definite
    a, b = (yy * x_right - xy * y_right) / area, (xx * y_right - xy * x_right) / area
    c, d = (yy * x_down - xy * y_down) / area, (xx * y_down - xy * x_down) / area
    mean_x, mean_y = mean_u + table[0, i], mean_v + table[1, i]
    return a, b, c, d, mean_r + table[2, i] - a * mean_x - b * mean_y, mean_d + table[3, i] - c * mean_x - d * mean_y


@njit(nogil=True)
def _plausible(affine, uneven):
    """Return whether a map neither mirrors nor collapses: its two stretches differ by at most a factor of `uneven`."""
    a, b, c, d = affine[0], affine[1], affine[2], affine[3]
    area, squares = a * d - b * c, a * a + b * b + c * c + d * d
    return area > 0.0 and squares <= area * (uneven + 1.0 / uneven)


@njit(nogil=True)
def _refined(table, votes, affine, i, stretch, uneven, marks, tried):
    """Refine the map of pair i while its votes grow; returns the map and its votes, and marks its pairs in `marks`.

    The first fit is to the pairs within wider tolerances: a map that is right only nearby must reach beyond. Where it
    does not gain, the rounds begin with the map itself.
    """
    best = _mark(table, votes, affine, stretch, 1.0, marks)
    _mark(table, votes, affine, stretch, _WIDE, tried)
    for k in range(_ROUNDS + 1):
        fitted = _fit(table, marks if k > 0 else tried, affine, i)
        found = _mark(table, votes, fitted, stretch, 1.0, tried) if _plausible(fitted, uneven) else np.int64(0)
        grows = found > best
        if grows or (found == best and k > 0):
            affine, best = fitted, found
            marks[:] = tried
        if k > 0 and not grows:
            break
    return affine, best


@njit(nogil=True, fastmath={"reassoc", "contract"})
def _middle(table, marks):
    """Return the number of marked pairs, and their mean place and root mean square distance from it."""
    x, y, sharpness = table[0], table[1], table[6]
    count = total = mean_x = mean_y = square = 0.0
    for i in range(len(marks)):
        weight = np.float64(marks[i] * sharpness[i])
        u, v = np.float64(x[i]), np.float64(y[i])
        count, total, mean_x, mean_y = count + marks[i], total + weight, mean_x + weight * u, mean_y + weight * v
        square += weight * (u * u + v * v)
    total = max(total, 1e-300)
    mean_x, mean_y = mean_x / total, mean_y / total
    return count, (mean_x, mean_y, math.sqrt(max(square / total - mean_x * mean_x - mean_y * mean_y, 0.0)) + 1e-6)


@njit(nogil=True, fastmath={"reassoc", "contract"})
def _slant_moments(table, marks, affine, middle):
    """Return the sums of the least squares of `_project`.

    Of the places u, v less their mean, over their spread; of the same times the other place, right and down; of these
    times the square of the other place; and of the same times what the affine map leaves of the other place.
    """
    x, y, other_x, other_y, sharpness = table[0], table[1], table[2], table[3], table[6]
    a, b, c, d, x0, y0 = affine
    mean_x, mean_y, per_unit = middle[0], middle[1], 1.0 / middle[2]
    w = wu = wv = wuu = wuv = wvv = 0.0
    xu = xv = xuu = xuv = xvv = yu = yv = yuu = yuv = yvv = suu = suv = svv = 0.0
    ru = rv = r = du = dv = e = su = sv = 0.0
    for i in range(len(marks)):
        weight = np.float64(marks[i] * sharpness[i])
        place_x, place_y = np.float64(x[i]), np.float64(y[i])
        right, down = np.float64(other_x[i]), np.float64(other_y[i])
        u, v = (place_x - mean_x) * per_unit, (place_y - mean_y) * per_unit
        right_rest = right - (a * place_x + b * place_y + x0)
        down_rest = down - (c * place_x + d * place_y + y0)
        u1, v1 = weight * u, weight * v
        uu, uv, vv = u1 * u, u1 * v, v1 * v
        w, wu, wv, wuu, wuv, wvv = w + weight, wu + u1, wv + v1, wuu + uu, wuv + uv, wvv + vv
        xu, xv, xuu, xuv, xvv = xu + right * u1, xv + right * v1, xuu + right * uu, xuv + right * uv, xvv + right * vv
        yu, yv, yuu, yuv, yvv = yu + down * u1, yv + down * v1, yuu + down * uu, yuv + down * uv, yvv + down * vv
        square, both = right * right + down * down, right * right_rest + down * down_rest
        suu, suv, svv, su, sv = suu + square * uu, suv + square * uv, svv + square * vv, su + both * u1, sv + both * v1
        ru, rv, r = ru + right_rest * u1, rv + right_rest * v1, r + right_rest * weight
        du, dv, e = du + down_rest * u1, dv + down_rest * v1, e + down_rest * weight
    return (
        (wuu, wuv, wvv, wu, wv, w), (xuu, xuv, xu, xvv, xv), (yuu, yuv, yu, yvv, yv), (suu, suv, svv),
        (ru, rv, r, du, dv, e, -su, -sv),
    )  # fmt: skip


@njit(nogil=True)
def _project(table, marks, affine, middle):
    """Fit a projective map to the marked pairs; returns [8] float64, what it adds to the affine map.

    The map is (affine (x, y) + (c0 u + c1 v + c2, c3 u + c4 v + c5)) / (1 + c6 u + c7 v) with u and v the places less
    their mean, over their spread. The linear equations (1 + c6 u + c7 v) other = ... are solved by least squares, where
    the left sides have the terms (u, v, 1) for c0 to c2 and c3 to c5, and -other (u, v) for c6 and c7.
    """
    one, right, down, square, vector = _slant_moments(table, marks, affine, middle)
    matrix = np.zeros((8, 8))
    for k in (0, 3):
        matrix[k, k], matrix[k + 1, k], matrix[k + 1, k + 1] = one[0], one[1], one[2]
        matrix[k + 2, k], matrix[k + 2, k + 1], matrix[k + 2, k + 2] = one[3], one[4], one[5]
    for k, of in ((0, right), (3, down)):
        matrix[6, k], matrix[6, k + 1], matrix[6, k + 2] = -of[0], -of[1], -of[2]
        matrix[7, k], matrix[7, k + 1], matrix[7, k + 2] = -of[1], -of[3], -of[4]
    matrix[6, 6], matrix[7, 6], matrix[7, 7] = square
    for k in range(8):
        matrix[k, k] += _HOLD_SLANT * matrix[k, k] + 1e-12 * one[5]
    return _solve(matrix, np.array(vector))


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
def _seen_aslant(table, votes, stretch, uneven, affine, marks, tried, best):
    """Mark also the pairs that only a projective map explains, as of a plane seen aslant.

    Nothing changes if the votes do not grow. The affine map stays that of the pairs it explains itself.
    """
    for _ in range(_SLANTS):
        count, middle = _middle(table, marks)
        if count < _LEAST_SLANT:
            break
        change = _project(table, marks, affine, middle)
        if not _plausible(_tangent(affine, change, middle[0], middle[1], middle[2]), uneven):
            break
        found = _mark_aslant(table, votes, affine, change, middle, stretch * stretch, tried)
        if found <= best:
            break
        best = found
        marks[:] = tried


@njit(nogil=True)
def _mark_aslant(table, votes, affine, change, middle, stretch, marks):
    """Do `_mark` for a projective map: what the affine map and its change give, over the depth."""
    x, y, other_x, other_y, squares, ratios = table[0], table[1], table[2], table[3], table[4], table[5]
    mean_x, mean_y, unit = middle
    a, b = np.float32(affine[0] * unit + change[0]), np.float32(affine[1] * unit + change[1])
    c, d = np.float32(affine[2] * unit + change[3]), np.float32(affine[3] * unit + change[4])
    right = np.float32(affine[0] * mean_x + affine[1] * mean_y + affine[4] + change[2])
    down = np.float32(affine[2] * mean_x + affine[3] * mean_y + affine[5] + change[5])
    e, f, least = np.float32(change[6]), np.float32(change[7]), np.float32(_LEAST_DEPTH)
    mid_x, mid_y, per_unit = np.float32(mean_x), np.float32(mean_y), np.float32(1.0 / unit)
    scale = math.sqrt(abs(affine[0] * affine[3] - affine[1] * affine[2]))
    low, high = np.float32(scale / stretch), np.float32(scale * stretch)
    total = np.int32(0)
    for i in range(len(votes)):
        u, v = (x[i] - mid_x) * per_unit, (y[i] - mid_y) * per_unit
        depth = np.float32(1.0) + e * u + f * v
        off = a * u + b * v + right - depth * other_x[i]
        below = c * u + d * v + down - depth * other_y[i]
        near = (off * off + below * below <= squares[i] * depth * depth) & (depth > least)
        near = near & (ratios[i] >= low) & (ratios[i] <= high)
        marks[i] = np.float32(1.0) if near else np.float32(0.0)
        total += votes[i] if near else np.int32(0)
    return total


@njit(nogil=True, error_model="numpy")
def _table(places, other_places, weights, tolerances):
    """Return rows of x and y of the pairs in both images, squares of the tolerances, ratios of the scales, weights over
    the squares, and the ratios times cos and sin of the differences of the angles.
    """
    table = np.empty((9, len(places)), np.float32)
    for i in range(len(places)):
        square = tolerances[i] * tolerances[i]
        table[0, i], table[1, i] = places[i, 0], places[i, 1]
        table[2, i], table[3, i] = other_places[i, 0], other_places[i, 1]
        table[4, i], table[5, i], table[6, i] = square, other_places[i, 2] / places[i, 2], weights[i] / square
        angle = np.float64(other_places[i, 3]) - np.float64(places[i, 3])
        table[7, i], table[8, i] = table[5, i] * math.cos(angle), table[5, i] * math.sin(angle)
    return table


@njit(nogil=True)
def _votes(weights):
    """Return the weights as integers of the sum `_UNIT`."""
    unit = _UNIT / max(weights.sum(), 1e-300)
    votes = np.empty(len(weights), np.int32)
    for i in range(len(weights)):
        votes[i] = np.int32(weights[i] * unit)
    return votes


@njit(nogil=True)
def _improved(table, votes, proposal, stretch, uneven, best, affine, gain, space):
    """Refine what a group proposes; returns it, its pairs marked, if it exceeds `gain` times the votes of the best."""
    found, proposed, pair = proposal
    if found > 0:
        refined, found = _refined(table, votes, proposed, pair, stretch, uneven, space[1], space[2])
        if found > gain * best:
            space[0] = space[1]
            return found, refined
    return best, affine


@njit(nogil=True)
def _searched(table, votes, proposals, stretch, uneven, space):
    """Return the votes of the best map and the map, and mark its pairs in space[0].

    Groups of proposals without and with rotation take turns until right ones can hardly be missing of either.
    """
    best, affine = np.int64(0), (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    turn = np.isfinite(table[8]).all()  # one pair proposes a rotation, by its angles
    ones = twos = i = 0
    j = tried = 1
    while best < _MOST * _UNIT and tried > 0:
        tried = 0
        end = min(proposals, len(votes), max(2 * ones, _GROUP), _proposals_needed(best / _UNIT))
        if end > ones:
            proposal = _best_of_ones(table, votes, False, ones, end, stretch, space)
            best, affine = _improved(table, votes, proposal, stretch, uneven, best, affine, 1.0, space)
            ones, tried = end, end - ones
        most = min(proposals, len(votes)) if turn else proposals
        end = min(most, max(2 * twos, _GROUP), _proposals_needed((best / _UNIT) ** (1 if turn else 2)))
        if end > twos and best < _MOST * _UNIT:
            if turn:
                proposal, count = _best_of_ones(table, votes, True, twos, end, stretch, space), end - twos
            else:
                proposal, i, j, count = _best_of_twos(table, votes, i, j, end - twos, stretch, space)
            best, affine = _improved(table, votes, proposal, stretch, uneven, best, affine, _TURNED, space)
            twos, tried = twos + count, tried + count
    return best, affine


@kernel(f"float64({_PLACES}, {_PLACES}, {_WEIGHTS}, {_WEIGHTS}, int64, float64, float64, float64[::1], boolean[::1])")
def verify(places, other_places, weights, tolerances, proposals, stretch, uneven, out_map, out_inside):
    """Find the affine map that explains pairs of the greatest weight; returns that weight, 0 for no pairs.

    places, other_places  [n, 4] float32: x, y and scale > 0 of the two features of each pair, in pixels; angles in
                          radians, NaN for features without; pairs propose rotations by them where all have them
    weights               [n] float64 >= 0
    tolerances            [n] float64 > 0: how far from its place a feature may be mapped, in pixels of the other image
    proposals             largest number of maps that are tried without rotation, and with; fewer once more can hardly
                          be better
    stretch               largest factor between the ratio of the scales of a pair and that of the map
    uneven                largest ratio of the two stretches of a map
    out_map               [6] float64, out: a, b, c, d, x, y, which maps (u, v) to (a u + b v + x, c u + d v + y)
    out_inside            [n] bool, out: which pairs the map explains
    """
    table, votes = _table(places, other_places, weights, tolerances), _votes(weights)
    space = np.zeros((3, len(votes)), np.float32)
    best, affine = _searched(table, votes, proposals, stretch, uneven, space)
    _seen_aslant(table, votes, stretch, uneven, affine, space[0], space[1], best)
    for i in range(len(votes)):
        out_inside[i] = space[0, i] > 0.0
    for k in range(6):
        out_map[k] = affine[k]
    return (weights * space[0]).sum()
