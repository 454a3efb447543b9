"""The calibration of an index: what the evidence of its verified answers means, in the file `calibration.json`.

No manifest names it. It stays when images are added, deleted or merged, since what two images have in common does not
depend on the others; it knows how many images there were, so that `is_outgrown` can tell when to learn it again.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

from asmk_engine.errors import DamagedError, FormatError, MismatchError, NotFoundError
from asmk_engine.indexes.manifest import Manifest
from asmk_engine.storage.folder import Folder, WriterLock, decode_manifest, encode_manifest
from asmk_engine.verification.verdict import CONSTANTS, MOST, Calibration

NAME = "calibration.json"
KIND = "asmk-engine calibration"
FORMAT = 1
OUTGROWN = 1.5
"""A calibration is outgrown when the number of images has grown or shrunk by more than this factor."""


@dataclass(frozen=True)
class StoredCalibration:
    """A calibration, and what it was learned from.

    calibration  what evidence means
    commit       the commit of the index then
    indexed      the number of its images then
    """

    calibration: Calibration
    commit: int
    indexed: int

    def is_outgrown(self, images: int) -> bool:
        """Return whether an index with so many images has changed so much that it should be calibrated again."""
        fewer, more = sorted((max(1, self.indexed), max(1, images)))
        return more > OUTGROWN * fewer


def write_calibration(folder: Folder, manifest: Manifest, stored: StoredCalibration) -> None:
    """Store the calibration of an index, in place of an earlier one. Raises StorageError."""
    content: dict[str, Any] = {"kind": KIND, "format": FORMAT, "identity": manifest.identity}
    content |= {"commit": stored.commit, "indexed": stored.indexed, **asdict(stored.calibration)}
    with WriterLock(folder.path):
        folder.write(NAME, [encode_manifest(content)], "the calibration")
        folder.sync()


def read_calibration(folder: Folder, manifest: Manifest) -> StoredCalibration | None:
    """Read the calibration of an index; None if it has none.

    Raises DamagedError if the file is damaged, MismatchError if it is of another index, and FormatError for a newer
    format.
    """
    path = folder.path / NAME
    cure = f"learn it again with `asmk-engine calibrate {folder.path}`"
    try:
        content = decode_manifest(bytes(folder.map(NAME)), path)
    except NotFoundError:
        return None
    except (DamagedError, FormatError):
        raise DamagedError(f"{path}: the calibration is damaged; {cure}") from None
    if content.get("kind") != KIND or content.get("format") != FORMAT:
        raise FormatError(f"{path}: not a calibration that this version reads; update asmk-engine, or {cure}")
    if content.get("identity") != manifest.identity:
        raise MismatchError(f"{path}: the calibration of another index; {cure}")
    try:
        return _parsed(content)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise DamagedError(f"{path}: the calibration is damaged; {cure}") from None


def _parsed(content: dict[str, Any]) -> StoredCalibration:
    """Return what a file holds; raises KeyError, TypeError or ValueError for what makes no sense."""
    numbers = {key: content[key] for key in ("commit", "indexed", "images", "answers")}
    if any(type(value) is not int or value < 0 for value in numbers.values()):
        raise ValueError("found a negative count")
    evidences, probabilities = (tuple(map(float, content[key])) for key in ("evidences", "probabilities"))
    match, maybe = float(content["match"]), float(content["maybe"])
    if not 0 < maybe <= match < math.inf or not _increase(evidences, math.inf) or not _increase(probabilities, MOST):
        raise ValueError("found numbers out of order")
    if not 0 < len(evidences) == len(probabilities) or content["features"] not in CONSTANTS:
        raise ValueError("found parts that do not fit together")
    calibration = Calibration(
        match, maybe, evidences, probabilities, content["is_learned"] is True, content["features"], numbers["images"],
        numbers["answers"],
    )  # fmt: skip
    return StoredCalibration(calibration, numbers["commit"], numbers["indexed"])


def _increase(values: tuple[float, ...], most: float) -> bool:
    """Return whether numbers are finite, from 0 to `most`, and do not decrease."""
    is_ordered = all(one <= other for one, other in itertools.pairwise(values))
    return is_ordered and all(0 <= value <= most and math.isfinite(value) for value in values)
