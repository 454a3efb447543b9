"""Training data: images and the instance that each of them shows, independent of the layout they are read from."""

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
    """Images and the instance that each of them shows.

    images     the images
    instances  [n] int64: number of the instance, or -1 for an image without one
    groups     [n] int64: images of one group are never negatives of each other. An instance is in one group; an image
               without an instance is a separate group
    pairs      [m, 2] int64: given anchors and positives; None if any two images of an instance are a pair
    names      names of the instances, by number
    """

    images: tuple[ImageFile, ...]
    instances: np.ndarray
    groups: np.ndarray
    pairs: np.ndarray | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def count(self) -> int:
        """Number of instances."""
        return len(np.unique(self.instances[self.instances != NONE]))

    @property
    def fingerprint(self) -> str:
        """The sha256 of names, labels and pairs, 64 hexadecimal digits."""
        digest = hashlib.sha256("\0".join(image.name for image in self.images).encode())
        for array in (self.instances, self.groups, self.pairs):
            digest.update(b"none" if array is None else np.ascontiguousarray(array, np.int64).tobytes())
        return digest.hexdigest()

    def members(self) -> dict[int, np.ndarray]:
        """Return the image numbers of each instance, in increasing order."""
        order = np.argsort(self.instances, kind="stable")
        labels, begins = np.unique(self.instances[order], return_index=True)
        parts = np.split(order, begins[1:])
        return {int(label): part for label, part in zip(labels, parts, strict=True) if label != NONE}


def make_instances(
    images: Iterable[ImageFile], labels: Iterable[str], groups: Iterable[str], pairs: np.ndarray | None = None
) -> Instances:
    """Create instances from the names of each image's instance, empty for none, and group, empty for a separate one.

    Numbers are assigned in the order in which names first appear.
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
    return Instances(files, instances, grouped, pairs, tuple(known))


def check_present(files: Sequence[ImageFile], root: Path) -> None:
    """Raise NotFoundError, which names the first missing images, if any image does not exist."""
    missing = [image.name for image in files if not image.path.is_file()]
    if missing:
        raise NotFoundError(
            f"{len(missing)} of {len(files)} photographs are not in {shown(root)}: {list_names(missing)}; "
            "give their folder with --images"
        )
