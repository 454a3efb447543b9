"""The published training set SfM-120k, from its pickle `retrieval-SfM-120k.pkl`.

Under `train` and `val`, the pickle has the names of images `cids`, their 3D model numbers `cluster`, and anchors and
positives `qidxs`, `pidxs` as indices into `cids`. Source: Radenović, Tolias and Chum, PAMI 2018, and their code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.errors import DamagedError, FormatError, InputError
from asmk_engine.images.listing import ImageFile, shown
from asmk_engine.storage.pickles.unpickle import read_plain_pickle
from asmk_engine.training.instances import Instances, check_present


def read_sfm120k(path: Path, images: Path | None, split: str = "train") -> Instances:
    """Read the images, 3D models and pairs of a split of SfM-120k; no code in the pickle is run.

    images  the folder `ims` of the published archive, or its parent folder

    Raises FormatError for another kind of pickle, DamagedError for lists that contradict each other, InputError without
    `images`, NotFoundError for missing images.
    """
    if images is None:
        raise InputError(f"{shown(path)}: the folder of its photographs is not known; give it, `ims`, with --images")
    content = read_plain_pickle(path)
    part = content.get(split) if isinstance(content, dict) else None
    if not isinstance(part, dict) or not {"cids", "cluster", "qidxs", "pidxs"} <= part.keys():
        raise FormatError(
            f"{shown(path)}: has no {split} with cids, cluster, qidxs and pidxs; expected the pickle of SfM-120k"
        )
    root = images / "ims" if (images / "ims").is_dir() else images
    files = [ImageFile(name, root / image_place(name)) for name in _names(part["cids"], path)]
    clusters = _numbers(part["cluster"], "cluster", len(files), None, path)
    anchors = _numbers(part["qidxs"], "qidxs", None, len(files), path)
    pairs = np.stack([anchors, _numbers(part["pidxs"], "pidxs", len(anchors), len(files), path)], 1)
    if (clusters[pairs[:, 0]] != clusters[pairs[:, 1]]).any() or (pairs[:, 0] == pairs[:, 1]).any():
        raise DamagedError(
            f"{shown(path)}: a pair of {split} is not two different images of one model; fetch the file again"
        )
    check_present(files, root)
    names, found = np.unique(clusters, return_inverse=True)
    numbers = found.astype(np.int64)
    return Instances(tuple(files), numbers, numbers, pairs, tuple(map(str, names.tolist())))


def image_place(name: str) -> str:
    """Return the path of an image below `ims`: three folders from the last six characters of its name, last first."""
    return f"{name[-2:]}/{name[-4:-2]}/{name[-6:-4]}/{name}"


def _names(value: Any, path: Path) -> list[str]:
    names = list(value) if isinstance(value, list | tuple | np.ndarray) else []
    if not names or not all(isinstance(name, str) and len(name) >= 6 and "/" not in name for name in names):
        raise DamagedError(
            f"{shown(path)}: cids is not a list of names of at least six characters; fetch the file again"
        )
    return [str(name) for name in names]


def _numbers(value: Any, key: str, count: int | None, below: int | None, path: Path) -> np.ndarray:
    try:
        numbers = np.asarray(value)
    except ValueError:
        numbers = np.empty(0)
    sound = numbers.ndim == 1 and numbers.dtype.kind in "iu" and (count is None or len(numbers) == count)
    if not sound or (below is not None and ((numbers < 0) | (numbers >= below)).any()):
        expected = f"{count or 'some'} whole numbers{f' below {below}' if below else ''}"
        raise DamagedError(f"{shown(path)}: {key} is {numbers.dtype} {numbers.shape}; expected {expected}")
    return numbers.astype(np.int64)
