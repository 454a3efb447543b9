"""Which classes of the data a training uses: without those of a list, and without those of too few images."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from asmk_engine.errors import InputError
from asmk_engine.escape import list_names
from asmk_engine.images.listing import shown
from asmk_engine.storage.user_files import read_file
from asmk_engine.training.instances import NONE, Instances

MAX_BYTES = 2**32
HEADERS = ("landmark_id", "class", "instance", "label")


def read_class_list(path: Path) -> list[str]:
    """Read the names of classes, one a line; of a CSV such as `train_clean.csv`, its first column.

    Raises InputError for a file without names, and what `read_file` raises.
    """
    lines = read_file(path, "a list of classes", MAX_BYTES).decode("utf-8-sig", errors="replace").splitlines()
    names = [line.partition(",")[0].strip().strip('"') for line in lines]
    found = [name for place, name in enumerate(names) if name and not (place == 0 and name.lower() in HEADERS)]
    if not found:
        raise InputError(f"{shown(path)}: names no class; write the name of a class on each line")
    return found


def without_classes(data: Instances, excluded: Collection[str], where: object) -> Instances:
    """Return the data without the images of the excluded classes.

    where  names the list in errors

    Raises InputError if none of them is a class of the data, because the list is then of other data.
    """
    numbers = {name: number for number, name in enumerate(data.names)}
    known = [numbers[name] for name in excluded if name in numbers]
    if not known:
        raise InputError(
            f"{shown(where)}: none of its {len(excluded)} classes, such as {list_names(list(excluded)[:1])}, is among "
            f"the {data.count} of the data; give the names that the data use"
        )
    return _kept(data, ~np.isin(data.instances, known))


def with_images(data: Instances, least: int) -> Instances:
    """Return the data without the classes of fewer than `least` images; images without a class stay.

    Raises InputError if fewer than two classes are left.
    """
    counts = np.bincount(data.instances[data.instances != NONE], minlength=len(data.names))
    able = np.flatnonzero(counts >= least)
    found = _kept(data, np.isin(data.instances, able) | (data.instances == NONE))
    if found.count < 2:
        raise InputError(
            f"{found.count} of {data.count} classes have {least} images or more, expected at least two classes; give "
            "more data, or a lower --least-images"
        )
    return found


def _kept(data: Instances, kept: np.ndarray) -> Instances:
    places = np.cumsum(kept) - 1
    pairs = data.pairs if data.pairs is None else places[data.pairs[kept[data.pairs].all(1)]]
    images = tuple(image for image, stays in zip(data.images, kept.tolist(), strict=True) if stays)
    return replace(data, images=images, instances=data.instances[kept], groups=data.groups[kept], pairs=pairs)
