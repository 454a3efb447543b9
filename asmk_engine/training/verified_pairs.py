"""Pairs of images that were verified to show the same thing, as `asmk-engine pairs` writes them.

One pair a line: the names of two images, and perhaps more columns, which are not read. Names are those of the training
data; an extension may be left out, as in the lists of Google Landmarks v2.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from asmk_engine.errors import FormatError, NotFoundError
from asmk_engine.escape import list_names
from asmk_engine.images.listing import shown
from asmk_engine.storage.user_files import read_file
from asmk_engine.training.instances import Instances

MOST_BYTES = 2**31


def with_verified_pairs(data: Instances, path: Path) -> Instances:
    """Return the data with the pairs of a file as the only positives, each in both orders.

    Images that pairs connect, over others too, are never negatives of each other. Raises FormatError for a line without
    two names or a file without pairs, and NotFoundError for images that the data do not have.
    """
    numbers = _numbers(data)
    pairs, missing = [], []
    text = read_file(path, "a list of pairs", MOST_BYTES).decode(errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 2:
            raise FormatError(f"{shown(path)}: line {number} is {line[:80]!r}; expected the names of two images")
        missing += [name for name in words[:2] if name not in numbers]
        pairs.append([numbers.get(name, 0) for name in words[:2]])
    if missing:
        raise NotFoundError(
            f"{shown(path)}: {len(missing)} names are not in the training data: {list_names(missing)}; write the pairs "
            "with the names below the data folder"
        )
    if not pairs:
        raise FormatError(f"{shown(path)}: contains no pairs; expected the names of two images on each line")
    found = np.unique(np.sort(np.array(pairs, np.int64), axis=1), axis=0)
    found = found[found[:, 0] != found[:, 1]]
    return dataclasses.replace(data, pairs=np.concatenate([found, found[:, ::-1]]), groups=_joined(data.groups, found))


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
