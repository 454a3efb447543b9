"""Labels beside the points of a figure, where they cover neither each other nor points, and lines only if they must.

Each label tries places around its point, nearest first, and takes the one that costs least: overlaps cost most, then
lines from labels to their points that cross something, then distance. All labels choose in turn a few times, since the
first ones cannot know where the others will be.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIRECTIONS, DISTANCES = 16, (9, 14, 20, 28, 38, 50, 64, 80, 98, 118)
ROUNDS = 4
MARGIN, MARKER = 1.5, 4.5  # points around a label; half the side of a marker
LINE_FROM = 16.0  # a label that is further away has a line to its point
ON_LABEL, ON_POINT, ON_LINE, OUTSIDE, CROSSING = 60.0, 40.0, 4.0, 400.0, 15.0  # costs, in points of distance
STEP = 6.0  # between two places of a line that count, in points
HALO = 2.2  # width of the ground around letters, which keeps them legible on a line
SIZE = 8.5
ALONG = np.linspace(0.15, 0.9, 8)


@dataclass(frozen=True)
class PointLabel:
    """A text for the point at x, y in the units of the axes."""

    text: str
    x: float
    y: float
    colour: str


def draw_labels(
    axes: Axes,
    labels: Sequence[PointLabel],
    points: Sequence[tuple[float, float]],
    lines: Sequence[Sequence[tuple[float, float]]] = (),
) -> None:
    """Write labels in free places near their points.

    points  all points of the axes, which labels should not cover
    lines   the corners of all lines

    The limits and scales of the axes must be final, and the figure laid out.
    """
    from matplotlib.patheffects import withStroke

    if not labels:
        return
    scale = 72 / axes.figure.dpi
    frame = np.array(axes.get_window_extent().extents) * scale
    own = axes.transData.transform([(one.x, one.y) for one in labels]) * scale
    marks = axes.transData.transform(list(points)) * scale
    corners = [axes.transData.transform(list(line)) * scale for line in lines if line]
    offsets = placed(own, _sizes(axes, labels) * scale, marks, frame, along_lines(corners))
    for one, offset in zip(labels, offsets.tolist(), strict=True):
        is_far = math.hypot(*offset) > LINE_FROM
        note = axes.annotate(
            one.text, (one.x, one.y), offset, textcoords="offset points", ha="center", va="center", fontsize=SIZE,
            color=one.colour, zorder=7, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": one.colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            if is_far else None,
        )  # fmt: skip
        note.set_in_layout(False)
        note.set_path_effects([withStroke(linewidth=HALO, foreground="white")])


def along_lines(lines: Sequence[np.ndarray]) -> np.ndarray:
    """Return places [m, 2] along lines, each given by its corners [n, 2], at most `STEP` from each other."""
    found = [np.empty((0, 2))]
    for corners in lines:
        for one, other in itertools.pairwise(corners):
            shares = np.linspace(0, 1, 2 + int(np.linalg.norm(other - one) / STEP))[:, None]
            found.append(one + shares * (other - one))
    return np.concatenate(found)


def _sizes(axes: Axes, labels: Sequence[PointLabel]) -> np.ndarray:
    """Return width and height [n, 2] of the texts in pixels."""
    sizes = []
    for one in labels:
        text = axes.text(0, 0, one.text, fontsize=SIZE)
        box = text.get_window_extent()
        sizes.append((box.width, box.height))
        text.remove()
    return np.array(sizes)


def placed(own: np.ndarray, sizes: np.ndarray, marks: np.ndarray, frame: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Choose the offset [n, 2] of the middle of each label from its point.

    own    [n, 2], the points of the labels
    sizes  [n, 2], width and height of each label
    marks  [m, 2], all points
    frame  [4], left, bottom, right and top of the axes
    lines  [l, 2], places along lines
    """
    halves = sizes / 2 + MARGIN
    candidates = [_candidates(half) for half in halves]
    offsets = np.array([each[0] for each in candidates])
    settled = np.zeros(len(own), bool)
    for _ in range(ROUNDS):
        for number, each in enumerate(candidates):
            others = settled & (np.arange(len(own)) != number)
            boxes = own[others] + offsets[others], halves[others]
            costs = _costs(own[number], each, halves[number], boxes, marks, frame, lines)
            offsets[number], settled[number] = each[int(np.argmin(costs))], True
    return offsets


def _candidates(half: np.ndarray) -> np.ndarray:
    """Return offsets [k, 2] of the middle of a label, whose edge is at each distance in each direction."""
    angles = np.arange(DIRECTIONS) * (2 * math.pi / DIRECTIONS)
    directions = np.stack([np.cos(angles), np.sin(angles)], 1)
    reach = 1 / np.maximum(np.abs(directions) / half, 1e-9).max(1)  # from the middle of the label to its edge
    return np.concatenate([directions * (reach + distance)[:, None] for distance in DISTANCES])


def _costs(
    point: np.ndarray,
    offsets: np.ndarray,
    half: np.ndarray,
    labels: tuple[np.ndarray, np.ndarray],
    marks: np.ndarray,
    frame: np.ndarray,
    lines: np.ndarray,
) -> np.ndarray:
    """Return the cost [k] of each offset, in points of distance.

    labels  the middles and half sizes of the other labels
    """
    middles = point + offsets
    others = marks[np.abs(marks - point).max(1) > MARKER]
    along = point + ALONG[None, :, None] * offsets[:, None]
    inside = np.array([*(middles - half - frame[:2]).T, *(frame[2:] - middles - half).T]).min(0)
    return (
        np.linalg.norm(offsets, axis=1)
        + ON_LABEL * _overlaps(middles, half, *labels)
        + ON_POINT * _overlaps(middles, half, marks, np.full((len(marks), 2), MARKER))
        + ON_LINE * _overlaps(middles, half, lines, np.zeros((len(lines), 2)))
        + np.where(inside < 0, OUTSIDE - inside, 0.0)
        + CROSSING * _crossed(along, *labels)
        + CROSSING * _crossed(along, others, np.full((len(others), 2), MARKER / 2))
    )


def _overlaps(middles: np.ndarray, half: np.ndarray, others: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """Return with how many boxes a box of half size `half` at each middle overlaps; the depth counts a little."""
    depth = half + halves - np.abs(middles[:, None] - others[None])
    shallow = depth.min(2, initial=np.inf) if depth.size else np.zeros((len(middles), 0))
    return np.where(shallow > 0, 1 + shallow / 20, 0.0).sum(1)


def _crossed(along: np.ndarray, others: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """Return through how many boxes each line goes; along is [k, s, 2], points of the lines."""
    within = (np.abs(along[:, :, None] - others[None, None]) < halves).all(3)
    return within.any(1).sum(1).astype(float)
