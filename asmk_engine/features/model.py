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
        Shape [n, 3] or [n, 4], float32: x, y and scale in pixels of the upright original, where the first pixel's
        centre is (0, 0); and, of features that have one, the angle in radians from the x axis towards the y axis.
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

    @classmethod
    def from_descriptors(
        cls,
        descriptors: np.ndarray,
        keypoints: np.ndarray | None = None,
        scores: np.ndarray | None = None,
        image_size: tuple[int, int] = (0, 0),
    ) -> Features:
        """Make features of arrays; float16 and float32 arrays are not copied.

        Parameters
        ----------
        descriptors : numpy.ndarray
            Shape [n, D], float16, float32 or float64, which becomes float32.
        keypoints : numpy.ndarray, optional
            Shape [n, 2], [n, 3] or [n, 4]: x, y and scale in pixels, angle in radians; the scale is 0 if missing. All
            0 by default, without angles.
        scores : numpy.ndarray, optional
            Shape [n]; the features are sorted by them, strongest first, equal ones in the given order. All 1 by
            default.
        image_size : tuple of int, default (0, 0)
            Width and height of the image in pixels; (0, 0) if unknown.

        Returns
        -------
        Features

        Raises
        ------
        InputError
            If an array has another shape, is not of floating-point numbers, or holds a NaN or an infinity.

        Examples
        --------
        >>> import numpy as np
        >>> from asmk_engine import Features
        >>> len(Features.from_descriptors(np.eye(4)))
        4
        """
        matrix = float_matrix(descriptors, "descriptors")
        count = len(matrix)
        points = np.zeros((count, 3), np.float32)
        if keypoints is not None:
            given = float_matrix(keypoints, "keypoints")
            if given.shape not in ((count, 2), (count, 3), (count, 4)):
                raise InputError(f"keypoints are {given.shape}; expected ({count}, 2), ({count}, 3) or ({count}, 4)")
            points = np.zeros((count, max(3, given.shape[1])), np.float32)
            points[:, : given.shape[1]] = given
        if scores is None:
            return cls(matrix, points, np.ones(count, np.float32), image_size)
        strengths = _floats(scores, "scores").astype(np.float32)
        if strengths.shape != (count,):
            raise InputError(f"scores are {strengths.shape}; expected ({count},)")
        order = np.argsort(-strengths, kind="stable")
        return cls(matrix[order], points[order], strengths[order], image_size)

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


def float_matrix(given: object, what: str) -> np.ndarray:
    """Return a matrix [n, D] of finite float16 or float32 numbers; float64 becomes float32, others are not copied.

    Raises InputError, which calls the matrix `what`, for anything else.
    """
    array = _floats(given, what)
    if array.ndim != 2 or not array.shape[1]:
        raise InputError(f"{what}: found {array.dtype} {array.shape}; expected a matrix [n, D]")
    return array


def _floats(given: object, what: str) -> np.ndarray:
    """Return an array of finite float16 or float32 numbers; raises InputError as `float_matrix`."""
    try:
        array = np.asarray(given)
    except Exception as error:  # an object may refuse in any way, such as a tensor on a GPU
        raise InputError(f"{what}: no array can be made of it ({' '.join(str(error).split())[:150]})") from None
    if array.dtype.kind != "f":
        raise InputError(f"{what}: found {array.dtype} {array.shape}; expected float16, float32 or float64")
    if array.dtype not in (np.float16, np.float32):
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(f"{what}: a value is NaN, infinite, or too large for float32; every value must be finite")
    return array


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
    if features.keypoints.shape not in ((count, 3), (count, 4)) or features.scores.shape != (count,):
        raise InputError(
            f"{name}: {count} descriptors, but keypoints {features.keypoints.shape} and scores "
            f"{features.scores.shape}; expected ({count}, 3) or ({count}, 4), and ({count},)"
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
