"""The features of one image, and the file they came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from asmk_engine.errors import InputError, MismatchError


@dataclass(frozen=True)
class Features:
    """The local features of one image.

    Parameters
    ----------
    descriptors : numpy.ndarray
        Shape [n, D], float16 or float32; raw, as the extractor made them.
    keypoints : numpy.ndarray
        Shape [n, 3], float32: x, y and scale in pixels of the upright original; the first pixel's centre is (0, 0).
    scores : numpy.ndarray
        Shape [n], float32, strongest first.
    image_size : tuple of int
        Width and height of the upright original in pixels.

    Notes
    -----
    `len(features)` is the number of descriptors.
    """

    descriptors: np.ndarray
    keypoints: np.ndarray
    scores: np.ndarray
    image_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.descriptors)

    def strongest(self, count: int) -> Features:
        """Return the strongest features.

        Parameters
        ----------
        count : int
            Maximum number of features.

        Returns
        -------
        Features
            The first `count` features, since they are sorted by score; all of them if there are fewer.
        """
        return replace(
            self,
            descriptors=self.descriptors[:count],
            keypoints=self.keypoints[:count],
            scores=self.scores[:count],
        )


@dataclass(frozen=True)
class Source:
    """The file of an image: size in bytes, modification time in ns, 64-bit fingerprint of the content."""

    size: int
    mtime: int
    fingerprint: int


def fingerprint_bytes(*chunks: bytes | memoryview) -> int:
    """Return the 64-bit BLAKE2b fingerprint of some bytes."""
    digest = hashlib.blake2b(digest_size=8)
    for chunk in chunks:
        digest.update(chunk)
    return int.from_bytes(digest.digest(), "little")


def check_name(name: str) -> str:
    """Return the image name. Raises InputError if it cannot be stored: empty, with a NUL, or not valid Unicode."""
    if not name or "\0" in name:
        raise InputError(f"image name {name!r}: a name must not be empty or contain a NUL character; rename the file")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"image name {name!r} is not valid Unicode; rename the file") from None
    return name


def check_features(name: str, features: Features, dim: int | None) -> None:
    """Raise InputError or MismatchError unless the arrays have consistent shapes, finite values and `dim` columns."""
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
    """Return the fingerprint of features without a file: that of their arrays."""
    arrays = (features.descriptors, features.keypoints, features.scores)
    return fingerprint_bytes(*(np.ascontiguousarray(array).tobytes() for array in arrays))
