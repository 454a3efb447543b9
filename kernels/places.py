"""How many places of an image features are at, so that several of one spot count once."""

import math

import numpy as np

from asmk_engine.kernels import kernel

_PLACES = "Array(float32, 2, 'C', readonly=True)"
_WEIGHTS = "Array(float64, 1, 'C', readonly=True)"


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
