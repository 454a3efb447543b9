"""The grid of R-MAC: overlapping squares at several sizes, of a map of features or of an image."""

from __future__ import annotations

from fractions import Fraction

from asmk_engine.images.boxes import Box, Size

LEVELS = 3  # number of levels of regions
OVERLAP = Fraction(2, 5)  # desired overlap of neighbouring regions
STEPS = range(2, 8)  # candidate numbers of regions along the longer side

Region = tuple[int, int, int]
"""First row, first column, and side of a square of locations."""


def regions(height: int, width: int, levels: int = LEVELS) -> list[Region]:
    """Return the squares of R-MAC in a map, without the whole map: levels 1 to `levels`, row by row; squares may
    repeat.

    At level l a side is floor(2 · shorter / (l + 1)) locations; there are l squares along the shorter side, and more
    along the longer one, evenly spaced, with an overlap as close to 40 % as possible; of two equally good numbers, the
    smaller is used. Positions are floors of exact fractions.

    Source: Tolias, Sicre and Jégou, ICLR 2016, §3.2, as in the code of the GeM family.
    """
    shorter = min(height, width)
    more_rows, more_columns = _more_along(height, width), _more_along(width, height)
    found: list[Region] = []
    for level in range(1, levels + 1):
        side = 2 * shorter // (level + 1)
        if side:
            rows, columns = _starts(height, side, level + more_rows), _starts(width, side, level + more_columns)
            found += [(row, column, side) for row in rows for column in columns]
    return found


def _more_along(this: int, other: int) -> int:
    """Return the number of squares along this side minus the level: 0 unless it is the longer side."""
    if this <= other:
        return 0
    overlaps = [1 - Fraction(this - other, other * (steps - 1)) for steps in STEPS]
    distances = [abs(overlap - OVERLAP) for overlap in overlaps]
    return distances.index(min(distances)) + 1


def _starts(length: int, side: int, count: int) -> list[int]:
    return [0] if count == 1 else [number * (length - side) // (count - 1) for number in range(count)]


def grid_boxes(size: Size, levels: int) -> list[Box]:
    """Return the squares of R-MAC in an image of this width and height as boxes, each once; see `regions`."""
    width, height = size
    squares = dict.fromkeys(regions(height, width, levels))
    return [(float(x), float(y), float(x + side), float(y + side)) for y, x, side in squares]
