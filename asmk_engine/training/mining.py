"""Hard negative mining: the most similar images of other groups, at most one from each.

Source: the code of Radenović et al. (PAMI 2018), which HOW uses (Tolias et al., ECCV 2020, §5.2).
"""

from __future__ import annotations

import numpy as np

from asmk_engine.errors import InputError

BATCH_SIZE = 256  # number of anchors whose similarities are in memory at a time


def mine(
    anchors: np.ndarray,
    anchor_groups: np.ndarray,
    pool: np.ndarray,
    pool_groups: np.ndarray,
    count: int,
    skip: int = 0,
) -> np.ndarray:
    """Return the pool positions of each anchor's negatives, [n, count] int64, by decreasing similarity.

    anchors, pool               [n, D] and [m, D] float32 vectors, compared by their inner product
    anchor_groups, pool_groups  [n] and [m] integers
    count                       number of negatives per anchor
    skip                        number of groups nearest to an anchor that are skipped

    Images of the anchor's group, and all but the most similar image of every other group, are left out; ties are in the
    order of the pool. Raises InputError if there are not enough groups.
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
            f"{len(firsts) + skip} other instances in the pool, expected {count} negatives and {skip} to skip; "
            "give more instances, a --background of photographs, a larger --pool, or fewer --negatives"
        )
    return others[firsts]
