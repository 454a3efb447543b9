"""Geometry: pairs of equal features of two images, and the affine map that most of them agree on.

A pair votes with its weight. Every strong pair proposes a map of scale and translation, or of rotation too where
features have angles; the best few proposals are refined by weighted least squares to affine maps.
"""

import math

import numpy as np
from numba import njit

from asmk_engine.kernels import kernel

_U4 = "Array(uint32, 1, 'C', readonly=True)"
_I4 = "Array(int32, 1, 'C', readonly=True)"
_CODES = "Array(uint64, 2, 'C', readonly=True)"
_PLACES = "Array(float32, 2, 'C', readonly=True)"
_WEIGHTS = "Array(float64, 1, 'C', readonly=True)"
_ROUNDS = 4  # of refinement: more changed no result on photographs
_FINALISTS = 4  # proposals that are refined
_HOLD = 0.05  # weight of the proposed map in the least squares, as a share of the spread of the pairs


@njit(nogil=True)
def _ones(word):
    """Count the bits that are set."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(nogil=True)
def _run(words, first):
    """Return the end of the run of equal words that begins at `first`."""
    last = first + 1
    while last < len(words) and words[last] == words[first]:
        last += 1
    return last


@njit(nogil=True)
def _candidates(words, other_words):
    """Count the pairs of rows with equal words of two increasing lists."""
    i = j = count = 0
    while i < len(words) and j < len(other_words):
        if words[i] < other_words[j]:
            i += 1
        elif words[i] > other_words[j]:
            j += 1
        else:
            i_end, j_end = _run(words, i), _run(other_words, j)
            count += (i_end - i) * (j_end - j)
            i, j = i_end, j_end
    return count


@njit(nogil=True)
def _near(words, codes, other_words, other_codes, farthest, rows, other_rows, distances):
    """Collect the pairs of rows with equal words and a distance of at most `farthest`; returns their number."""
    i = j = count = 0
    while i < len(words) and j < len(other_words):
        if words[i] < other_words[j]:
            i += 1
        elif words[i] > other_words[j]:
            j += 1
        else:
            i_end, j_end = _run(words, i), _run(other_words, j)
            for one in range(i, i_end):
                for other in range(j, j_end):
                    distance = 0
                    for column in range(codes.shape[1]):
                        distance += _ones(codes[one, column] ^ other_codes[other, column])
                    if distance <= farthest:
                        rows[count], other_rows[count], distances[count] = one, other, distance
                        count += 1
            i, j = i_end, j_end
    return count


@kernel(f"int64({_U4}, {_CODES}, {_I4}, {_U4}, {_CODES}, {_I4}, int64, int32[::1], int32[::1], int32[::1])")
def pair(words, codes, features, other_words, other_codes, other_features, farthest, ones, others, distances):
    """Pair the features of two images one to one, nearest codes first; returns the number of pairs.

    words, codes, features  [n] uint32, increasing; [n, W] uint64; [n] int32, the number of the feature of each row: one
                            with several words has several rows
    other_words, ...        [m], likewise
    farthest                largest distance of two codes
    ones, others            [>= least number of features] int32, out: numbers of the features of each pair
    distances               likewise, out: increasing. Equal distances are in the order of the rows
    """
    room = _candidates(words, other_words)
    rows, other_rows, found = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.int32)
    count = _near(words, codes, other_words, other_codes, farthest, rows, other_rows, found)
    ends = np.zeros(farthest + 2, np.int64)
    for i in range(count):
        ends[found[i] + 1] += 1
    for distance in range(farthest + 1):
        ends[distance + 1] += ends[distance]
    order = np.empty(count, np.int64)
    for i in range(count):
        order[ends[found[i]]] = i
        ends[found[i]] += 1
    used, other_used = _flags(features), _flags(other_features)
    pairs = 0
    for i in order:
        one, other = features[rows[i]], other_features[other_rows[i]]
        if not used[one] and not other_used[other]:
            used[one] = other_used[other] = True
            ones[pairs], others[pairs], distances[pairs] = one, other, found[i]
            pairs += 1
    return pairs


@njit(nogil=True)
def _flags(features):
    """Return a flag for each number of a feature, all false."""
    most = -1
    for feature in features:
        most = max(most, feature)
    return np.zeros(most + 1, np.bool_)


@njit(nogil=True)
def _propose(one, other, turns):
    """Write the map that takes one feature (x, y, scale, angle) to another into a vector a, b, c, d, x, y."""
    scale = other[2] / one[2]
    angle = other[3] - one[3] if turns else np.float32(0.0)
    a, b = scale * math.cos(angle), scale * math.sin(angle)
    return a, -b, b, a, other[0] - a * one[0] + b * one[1], other[1] - b * one[0] - a * one[1]


@njit(nogil=True)
def _vote(places, other_places, weights, tolerances, affine, stretch, inside):
    """Mark the pairs that a map explains; returns the sum of their weights.

    A pair is explained if its place is mapped to within its tolerance, and its scales differ from the map's by at most
    a factor of `stretch`.
    """
    a, b, c, d, x, y = affine
    scale = math.sqrt(abs(a * d - b * c))
    least, most = scale / stretch, scale * stretch
    total = 0.0
    for i in range(len(weights)):
        right = a * places[i, 0] + b * places[i, 1] + x - other_places[i, 0]
        down = c * places[i, 0] + d * places[i, 1] + y - other_places[i, 1]
        ratio = other_places[i, 2] / places[i, 2]
        near = right * right + down * down <= tolerances[i] * tolerances[i]
        inside[i] = near and least <= ratio <= most
        if inside[i]:
            total += weights[i]
    return total


@njit(nogil=True)
def _solve(matrix, right):
    """Solve a symmetric positive definite system of 3 equations with 2 right sides by Cholesky's method."""
    low = np.zeros((3, 3))
    for i in range(3):
        for j in range(i + 1):
            rest = matrix[i, j]
            for k in range(j):
                rest -= low[i, k] * low[j, k]
            low[i, j] = math.sqrt(max(rest, 1e-12)) if i == j else rest / low[j, j]
    out = right.copy()
    for column in range(2):
        for i in range(3):
            for k in range(i):
                out[i, column] -= low[i, k] * out[k, column]
            out[i, column] /= low[i, i]
        for i in range(2, -1, -1):
            for k in range(i + 1, 3):
                out[i, column] -= low[k, i] * out[k, column]
            out[i, column] /= low[i, i]
    return out


@njit(nogil=True)
def _fit(places, other_places, weights, tolerances, inside, held):
    """Fit an affine map to the marked pairs by weighted least squares, held to the map `held`.

    A pair counts by its weight over the square of its tolerance. The hold is a share of the spread of the places, so it
    decides only where they leave a direction open: all on one line, or at one spot.
    """
    total = mean_x = mean_y = 0.0
    for i in range(len(weights)):
        if inside[i]:
            weight = weights[i] / (tolerances[i] * tolerances[i])
            total += weight
            mean_x += weight * places[i, 0]
            mean_y += weight * places[i, 1]
    mean_x, mean_y = mean_x / total, mean_y / total
    matrix, right = np.zeros((3, 3)), np.zeros((3, 2))
    for i in range(len(weights)):
        if inside[i]:
            weight = weights[i] / (tolerances[i] * tolerances[i])
            row = (places[i, 0] - mean_x, places[i, 1] - mean_y, 1.0)
            for j in range(3):
                for k in range(3):
                    matrix[j, k] += weight * row[j] * row[k]
                for k in range(2):
                    right[j, k] += weight * row[j] * other_places[i, k]
    hold = _HOLD * (matrix[0, 0] + matrix[1, 1]) + 1e-9 * total
    for j in range(2):
        matrix[j, j] += hold
        right[j, 0] += hold * held[j]
        right[j, 1] += hold * held[2 + j]
    found = _solve(matrix, right)
    a, b, c, d = found[0, 0], found[1, 0], found[0, 1], found[1, 1]
    return a, b, c, d, found[2, 0] - a * mean_x - b * mean_y, found[2, 1] - c * mean_x - d * mean_y


@njit(nogil=True)
def _plausible(affine, uneven):
    """Return whether a map neither mirrors nor collapses: its two stretches differ by at most a factor of `uneven`."""
    a, b, c, d = affine[0], affine[1], affine[2], affine[3]
    area, squares = a * d - b * c, a * a + b * b + c * c + d * d
    return area > 0.0 and squares <= area * (uneven + 1.0 / uneven)


@njit(nogil=True)
def _refined(places, other_places, weights, tolerances, affine, stretch, uneven, inside, tried):
    """Refine a map while the sum of its votes grows; returns the map and the sum, and marks its pairs in `inside`."""
    best = _vote(places, other_places, weights, tolerances, affine, stretch, inside)
    for _ in range(_ROUNDS):
        if best <= 0.0:
            break
        fitted = _fit(places, other_places, weights, tolerances, inside, affine)
        if not _plausible(fitted, uneven):
            break
        votes = _vote(places, other_places, weights, tolerances, fitted, stretch, tried)
        if votes < best:
            break
        grows = votes > best
        affine, best = fitted, votes
        inside[:] = tried
        if not grows:
            break
    return affine, best


@kernel(
    f"float64({_PLACES}, {_PLACES}, {_WEIGHTS}, {_WEIGHTS}, int64, boolean, float64, float64, float64[::1], "
    "boolean[::1])"
)
def verify(places, other_places, weights, tolerances, proposals, turns, stretch, uneven, out_map, out_inside):
    """Find the affine map that explains pairs of the greatest weight; returns that weight, 0 for no pairs.

    places, other_places  [n, 4] float32: x, y, scale > 0, angle of the two features of each pair, in pixels and radians
    weights               [n] float64 >= 0
    tolerances            [n] float64 > 0: how far from its place a feature may be mapped, in pixels of the other image
    proposals             number of pairs, from the first, whose maps are tried
    turns                 whether a pair proposes a rotation by the difference of its angles
    stretch               largest factor between the ratio of the scales of a pair and that of the map
    uneven                largest ratio of the two stretches of a map
    out_map               [6] float64, out: a, b, c, d, x, y, which maps (u, v) to (a u + b v + x, c u + d v + y)
    out_inside            [n] bool, out: which pairs the map explains
    """
    count = len(weights)
    out_map[:] = 0.0
    out_inside[:] = False
    inside, tried = np.empty(count, np.bool_), np.empty(count, np.bool_)
    firsts, votes = np.full(_FINALISTS, -1, np.int64), np.zeros(_FINALISTS)
    for i in range(min(proposals, count)):
        proposed = _propose(places[i], other_places[i], turns)
        vote = _vote(places, other_places, weights, tolerances, proposed, stretch, inside)
        place = _FINALISTS
        while place > 0 and vote > votes[place - 1]:
            place -= 1
        for k in range(_FINALISTS - 1, place, -1):
            firsts[k], votes[k] = firsts[k - 1], votes[k - 1]
        if place < _FINALISTS:
            firsts[place], votes[place] = i, vote
    best = 0.0
    for i in firsts:
        if i >= 0:
            proposed = _propose(places[i], other_places[i], turns)
            refined, vote = _refined(
                places, other_places, weights, tolerances, proposed, stretch, uneven, inside, tried
            )
            if vote > best:
                best = vote
                out_inside[:] = inside
                for k in range(6):
                    out_map[k] = refined[k]
    return best


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
