"""The ground truth of a validation and its photographs, which are located before the first epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.evaluation.model import GroundTruth
from asmk_engine.evaluation.names import match_names, resolve
from asmk_engine.images.listing import ImageFile, find_images, shown


class ValidationImages:
    """A ground truth and its photographs.

    ground_truth  path of a ground truth, see `read_ground_truth`
    images        folder of all images, including those of the queries; whatever their extension, as SfM-120k has none

    Raises NotFoundError for missing images, InputError for a ground truth without positives, and what
    `read_ground_truth` raises.
    """

    def __init__(self, ground_truth: Path, images: Path) -> None:
        files = {image.name: image for image in find_images(images, every_file=True).images}
        self.ground_truth = resolve(read_ground_truth(ground_truth), files).ground_truth
        check_positives(self.ground_truth, ground_truth)
        self.queries = _photographs(self.ground_truth, files, images)
        self.database = [files[name] for name in self.ground_truth.images]
        self._paths = {name: image.path for name, image in self.queries.items()}
        self._paths |= {image.name: image.path for image in self.database}

    def path(self, name: str) -> Path:
        """Return the photograph of an image or a query."""
        return self._paths[name]

    def shared(self, trained: Iterable[ImageFile]) -> int:
        """Return the number of images and queries of the validation that are also in the training data."""
        ours = {path.resolve() for path in self._paths.values()}
        return len(ours & {image.path.resolve() for image in trained})


def check_positives(ground_truth: GroundTruth, path: Path) -> None:
    """Raise InputError if no query has a positive image; `path` names the ground truth."""
    if not any((query.easy | query.hard) - {query.name} for query in ground_truth.queries):
        raise InputError(f"{shown(path)}: no query has a positive image; give another ground truth")


def digest_of(ground_truth: GroundTruth) -> str:
    """Return the sha256 of the images, queries and labels, 64 hexadecimal digits."""
    queries = [
        (one.name, one.box, sorted(one.easy), sorted(one.hard), sorted(one.junk)) for one in ground_truth.queries
    ]
    return hashlib.sha256(repr((ground_truth.images, queries)).encode()).hexdigest()


def _photographs(ground_truth: GroundTruth, files: dict[str, ImageFile], folder: Path) -> dict[str, ImageFile]:
    """Return the image file of each query; raises NotFoundError if one is missing."""
    names = [query.name for query in ground_truth.queries]
    found = match_names(names, files)
    missing = [name for name in names if name not in found]
    if missing:
        raise NotFoundError(
            f"{shown(folder)}: {len(missing)} photographs of queries are missing, such as {missing[0]!r}; "
            "give the folder of all photographs with --validate-images"
        )
    return {name: files[match] for name, match in found.items()}
