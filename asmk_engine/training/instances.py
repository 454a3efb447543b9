"""Which photographs show the same thing: the data of a training, in one form whatever it was read from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asmk_engine.errors import NotFoundError
from asmk_engine.escape import list_names
from asmk_engine.images.listing import ImageFile, shown

NONE = -1


@dataclass(frozen=True)
class Instances:
    """Photographs, and what each of them shows.

    images     photographs
    instances  [n] int64: number of the instance, or -1 where a photograph shows none of them
    groups     [n] int64: photographs of one group are never negatives of each other. An instance lies in one group;
               a photograph without an instance is a group of its own
    pairs      [m, 2] int64: anchors and positives that are given; None where any two of an instance are a pair
    """

    images: tuple[ImageFile, ...]
    instances: np.ndarray
    groups: np.ndarray
    pairs: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def count(self) -> int:
        """How many instances there are."""
        return len(np.unique(self.instances[self.instances != NONE]))

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change with the names, the labels and the pairs."""
        digest = hashlib.sha256("\0".join(image.name for image in self.images).encode())
        for array in (self.instances, self.groups, self.pairs):
            digest.update(b"none" if array is None else np.ascontiguousarray(array, np.int64).tobytes())
        return digest.hexdigest()

    def members(self) -> dict[int, np.ndarray]:
        """Instance → numbers of its photographs, increasing."""
        order = np.argsort(self.instances, kind="stable")
        labels, begins = np.unique(self.instances[order], return_index=True)
        parts = np.split(order, begins[1:])
        return {int(label): part for label, part in zip(labels, parts, strict=True) if label != NONE}


def make_instances(
    images: Iterable[ImageFile], labels: Iterable[str], groups: Iterable[str], pairs: np.ndarray | None = None
) -> Instances:
    """Instances from names of what each photograph shows, empty for nothing, and of its group, empty for its own.

    Numbers are given in the order in which names first appear.
    """
    files = tuple(images)
    instances, grouped = np.full(len(files), NONE), np.empty(len(files), np.int64)
    known: dict[str, int] = {}
    clusters: dict[tuple[str, str | int], int] = {}
    for place, (label, group) in enumerate(zip(labels, groups, strict=True)):
        if label:
            instances[place] = known.setdefault(label, len(known))
        cluster = ("group", group) if group else ("instance", label) if label else ("image", place)
        grouped[place] = clusters.setdefault(cluster, len(clusters))
    return Instances(files, instances, grouped, pairs)


def check_present(files: Sequence[ImageFile], root: Path) -> None:
    """NotFoundError that names the first photographs that are not there."""
    missing = [image.name for image in files if not image.path.is_file()]
    if missing:
        raise NotFoundError(
            f"{len(missing)} of {len(files)} photographs are not in {shown(root)}: {list_names(missing)}; "
            "give their folder with --images"
        )
