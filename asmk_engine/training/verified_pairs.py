"""Training data whose positives are images that were verified to show the same thing; see `verified_files`.

Names are those of the training data; an extension may be left out, as in the lists of Google Landmarks v2.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from asmk_engine.errors import NotFoundError
from asmk_engine.images.listing import shown
from asmk_engine.training.instances import NONE, Instances
from asmk_engine.training.verified_files import VerifiedFile, read_verified


def with_verified_pairs(data: Instances, path: Path) -> Instances:
    """Return the data with verified matches as the only positives: pairs in both orders, or groups as instances.

    Images that they connect, over others too, are never negatives of each other. Raises what `read_verified` raises,
    and NotFoundError for images that the data do not have.
    """
    verified = read_verified(path)
    pairs = _resolved(verified, data)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    groups = _joined(data.groups, pairs)
    if not verified.joins:
        return dataclasses.replace(data, pairs=np.concatenate([pairs, pairs[:, ::-1]]), groups=groups)
    instances = np.full(len(data), NONE)
    grouped, place = np.unique(pairs, return_inverse=True)
    instances[grouped] = _joined(np.arange(len(grouped)), place.reshape(-1, 2))
    names = tuple(str(number + 1) for number in range(int(instances.max(initial=NONE)) + 1))
    return dataclasses.replace(data, instances=instances, pairs=None, groups=groups, names=names)


def _resolved(verified: VerifiedFile, data: Instances) -> np.ndarray:
    """Return the numbers [n, 2] of the images of each link, the smaller first, each link once."""
    numbers = _numbers(data)
    missing = [(line, name) for line, *names in verified.links for name in names if name not in numbers]
    if missing:
        line, name = missing[0]
        where = f"line {line}: " if line else ""
        others = len({name for _, name in missing}) - 1
        raise NotFoundError(
            f"{shown(verified.path)}: {where}{name!r} is not in the training data"
            f"{f', nor are {others} other names' if others else ''}; give the data folder whose images have these names"
        )
    pairs = np.array([[numbers[one], numbers[other]] for _, one, other in verified.links], np.int64)
    found: np.ndarray = np.unique(np.sort(pairs, axis=1), axis=0)
    return found


def _numbers(data: Instances) -> dict[str, int]:
    """Return the numbers of the images by their names, and by their names without extension where these are unique."""
    whole = {image.name: number for number, image in enumerate(data.images)}
    stems: dict[str, list[int]] = {}
    for name, number in whole.items():
        stems.setdefault(str(PurePosixPath(name).with_suffix("")), []).append(number)
    return {stem: numbers[0] for stem, numbers in stems.items() if len(numbers) == 1} | whole


def _joined(groups: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the groups [n], numbered from 0, of which those that pairs connect are one."""
    _, known = np.unique(groups, return_inverse=True)
    left, right = known[pairs[:, 0]], known[pairs[:, 1]]
    count = int(known.max(initial=-1)) + 1
    graph = coo_matrix((np.ones(len(pairs), np.int8), (left, right)), shape=(count, count))
    joint: np.ndarray = connected_components(graph, directed=False)[1]
    return joint[known].astype(np.int64)
