"""Hard negatives: the most similar photographs of other groups, at most one of each.

Source: the code of Radenović et al. (PAMI 2018), which HOW trains with (Tolias et al., ECCV 2020, §5.2).
"""

from __future__ import annotations

import numpy as np

from asmk_engine.errors import InputError

BATCH_SIZE = 256  # anchors whose similarities are in memory at a time


def mine(
    anchors: np.ndarray,
    anchor_groups: np.ndarray,
    pool: np.ndarray,
    pool_groups: np.ndarray,
    count: int,
    skip: int = 0,
) -> np.ndarray:
    """Places in the pool of the negatives of each anchor, [n, count] int64, the most similar first.

    anchors, pool                [n, D] and [m, D] float32 vectors that are compared by their inner product
    anchor_groups, pool_groups   [n] and [m] integers
    skip                         so many groups that are nearest to an anchor are passed over
    From the most similar photograph down, one of the anchor's group or of a group that was met before is left out;
    equally similar ones are in the order of the pool. InputError when there are not enough groups.
    """
    found = np.empty((len(anchors), count), np.int64)
    for begin in range(0, len(anchors), BATCH_SIZE):
        rows = slice(begin, begin + BATCH_SIZE)
        orders = np.argsort(-(anchors[rows] @ pool.T), axis=1, kind="stable")
        for place, order in enumerate(orders, start=begin):
            found[place] = _walk(order, pool_groups, int(anchor_groups[place]), count, skip)
    return found


def _walk(order: np.ndarray, groups: np.ndarray, own: int, count: int, skip: int) -> np.ndarray:
    others = order[groups[order] != own]
    firsts = np.sort(np.unique(groups[others], return_index=True)[1])[skip : skip + count]
    if len(firsts) < count:
        raise InputError(
            f"{len(firsts) + skip} other instances in the pool, {count} negatives and {skip} passed over are asked "
            "for; give more instances, a --background of photographs, a larger --pool, or fewer --negatives"
        )
    return others[firsts]
