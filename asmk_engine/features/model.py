"""The features of one image, and where they came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from asmk_engine.errors import InputError, MismatchError


@dataclass(frozen=True)
class Features:
    """The local features of one image.

    descriptors  [n, D] float16 or float32, raw, as the extractor made them
    keypoints    [n, 3] float32: x, y and scale in pixels of the upright original; the centre of the first pixel is 0, 0
    scores    [n] float32, strongest first
    image_size   (width, height) of the upright original in pixels
    """

    descriptors: np.ndarray
    keypoints: np.ndarray
    scores: np.ndarray
    image_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.descriptors)

    def strongest(self, count: int) -> Features:
        """The first `count` features."""
        return replace(
            self,
            descriptors=self.descriptors[:count],
            keypoints=self.keypoints[:count],
            scores=self.scores[:count],
        )


@dataclass(frozen=True)
class Source:
    """The file an image was read from: size in bytes, modification time in ns, 64-bit fingerprint of the content."""

    size: int
    mtime: int
    fingerprint: int


def fingerprint_bytes(*chunks: bytes | memoryview) -> int:
    """A 64-bit BLAKE2b fingerprint of some bytes."""
    digest = hashlib.blake2b(digest_size=8)
    for chunk in chunks:
        digest.update(chunk)
    return int.from_bytes(digest.digest(), "little")


def check_name(name: str) -> str:
    """The image name itself, or InputError when it cannot be stored: empty, with a NUL, or not valid Unicode."""
    if not name or "\0" in name:
        raise InputError(f"image name {name!r}: a name must not be empty or hold a NUL character; rename the file")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"image name {name!r} is not valid Unicode; rename the file") from None
    return name


def check_features(name: str, features: Features, dim: int | None) -> None:
    """Raise InputError or MismatchError unless the arrays agree with each other, are finite and have `dim` columns."""
    descriptors, count = features.descriptors, len(features.descriptors)
    if descriptors.ndim != 2 or descriptors.dtype not in (np.float16, np.float32):
        found = f"{descriptors.dtype} {descriptors.shape}"
        raise InputError(f"{name}: descriptors are {found}; expected [n, D] float16 or float32")
    if features.keypoints.shape != (count, 3) or features.scores.shape != (count,):
        raise InputError(
            f"{name}: {count} descriptors, but keypoints {features.keypoints.shape} and scores "
            f"{features.scores.shape}; expected ({count}, 3) and ({count},)"
        )
    if dim is not None and descriptors.shape[1] != dim:
        raise MismatchError(f"{name}: descriptors have {descriptors.shape[1]} dimensions, the feature set {dim}")
    if not (np.isfinite(descriptors).all() and np.isfinite(features.keypoints).all()):
        raise InputError(f"{name}: a descriptor or keypoint is NaN or infinite; every value must be finite")
    if not np.isfinite(features.scores).all():
        raise InputError(f"{name}: a score is NaN or infinite; every value must be finite")


def fingerprint_features(features: Features) -> int:
    """The fingerprint of features that came from no file: that of their arrays."""
    arrays = (features.descriptors, features.keypoints, features.scores)
    return fingerprint_bytes(*(np.ascontiguousarray(array).tobytes() for array in arrays))
