"""The codec, which transforms and compresses global descriptors, and transforms queries.

A descriptor is L2-normalised, projected if there is a projection (PCA, with or without whitening), L2-normalised
again, and stored in single or half precision or as the numbers of the nearest centroids of its sub-spaces (product
quantisation: Jegou, Douze and Schmid, PAMI 2011). A query is never quantised.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asmk_engine.errors import InputError, MismatchError
from asmk_engine.kernels.vectors import dots, encode_products, widen
from asmk_engine.recipes import Recipe
from asmk_engine.threads import available_threads, run

CENTROIDS = 256  # per sub-space: a code is one byte
SUB_SPACES = (1, 8)
PRECISIONS = {"single": np.float32, "half": np.float16, "product": np.uint8}
MOST_DIMENSIONS = 1 << 16


@dataclass(frozen=True)
class CodecOptions:
    """Options of the compression of global descriptors.

    pca     number of dimensions to keep, or None for no projection
    whiten  scale the kept dimensions to equal variance; requires `pca`
    pq      dimension of a sub-space, 8 or 1, that is quantised to one byte; None for no quantisation
    half    store in half precision; excludes `pq`
    seed    seed of the training sample and of the clustering
    """

    pca: int | None = None
    whiten: bool = False
    pq: int | None = None
    half: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pca is not None and self.pca < 1:
            raise InputError(f"pca is {self.pca}; give the number of dimensions to keep, 1 or more")
        if self.whiten and self.pca is None:
            raise InputError("whiten without pca: give the number of dimensions to keep, or leave whiten out")
        if self.pq not in (None, *SUB_SPACES):
            raise InputError(f"pq is {self.pq}; a sub-space has 8 dimensions, or 1")
        if self.half and self.pq is not None:
            raise InputError("half precision and pq exclude each other: quantised vectors are bytes; choose one")

    @property
    def precision(self) -> str:
        """The stored form, `single`, `half` or `product`."""
        return "product" if self.pq is not None else "half" if self.half else "single"

    @property
    def is_trained(self) -> bool:
        """Whether the codec has to be trained on a sample of descriptors."""
        return self.pca is not None or self.pq is not None


@dataclass(frozen=True, eq=False)
class Codec:
    """The transform and the stored form of the descriptors of one recipe.

    recipe      recipe of the descriptors
    input_dim   their dimension, D0
    precision   `single`, `half` or `product`
    mean        [D0] float32, or None for no projection
    projection  [D, D0] float32, or None
    centroids   [M, 256, S] float32 for M sub-spaces of S dimensions, M S = D; only for `product`
    training    how it was trained, as JSON values; informative, except for `augmentation`
    """

    recipe: Recipe
    input_dim: int
    precision: str = "single"
    mean: np.ndarray | None = None
    projection: np.ndarray | None = None
    centroids: np.ndarray | None = None
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_codec(self, "codec")

    @property
    def dim(self) -> int:
        """Dimension of a projected descriptor, D."""
        return self.input_dim if self.projection is None else len(self.projection)

    @property
    def width(self) -> int:
        """Number of values stored per image: D, or the number of sub-spaces."""
        return self.dim if self.centroids is None else len(self.centroids)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the stored values."""
        return np.dtype(PRECISIONS[self.precision])

    @property
    def augmentation(self) -> dict[str, Any] | None:
        """The options of database-side augmentation, or None if the vectors are not augmented."""
        found = self.training.get("augmentation")
        return found if isinstance(found, dict) else None

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that are not None, by name."""
        named = {"mean": self.mean, "projection": self.projection, "centroids": self.centroids}
        return {name: array for name, array in named.items() if array is not None}

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of everything that determines a stored vector."""
        digest = hashlib.sha256(f"{self.recipe.to_json()} {self.input_dim} {self.precision}".encode())
        for name, array in self.arrays().items():
            digest.update(f" {name} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
        digest.update(json.dumps(self.augmentation, sort_keys=True).encode())
        return digest.hexdigest()

    def apply(self, descriptors: np.ndarray) -> np.ndarray:
        """Transform raw descriptors [n, D0] to vectors [n, D] float32 of length 1; zero vectors stay zero.

        Each is transformed separately, so that the result does not depend on the others to the last bit. Raises
        MismatchError for another dimension and InputError for a value that is not finite.
        """
        if descriptors.ndim != 2 or descriptors.shape[1] != self.input_dim:
            raise MismatchError(
                f"descriptors are {descriptors.shape}, the codec expects [n, {self.input_dim}]; "
                "extract with the extractor of the index, or make another index"
            )
        if not np.isfinite(descriptors).all():
            raise InputError("a descriptor has a value that is NaN or infinite; extract the image again")
        vectors = _unit(np.ascontiguousarray(descriptors, np.float32))
        if self.projection is None or self.mean is None:
            return vectors
        projected = np.array(run(self._projected, vectors, available_threads()), np.float32)
        return _unit(projected.reshape(len(vectors), self.dim))

    def _projected(self, vector: np.ndarray) -> np.ndarray:
        out = np.zeros(self.dim)
        if vector.any():
            dots(self.projection, vector - self.mean, out)
        return out

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Convert vectors [n, D] float32 to their stored form, [n, width] of `dtype`."""
        if self.centroids is None:
            return vectors.astype(self.dtype)
        codes = np.empty((len(vectors), self.width), np.uint8)
        encode_products(np.ascontiguousarray(vectors, np.float32), self.centroids, codes)
        return codes

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """Convert the stored form [n, width] to vectors [n, D] float32: exact, or centroids if quantised."""
        if self.centroids is not None:
            return self.centroids[np.arange(self.width), stored].reshape(len(stored), self.dim)
        return widened(stored)


def widened(stored: np.ndarray) -> np.ndarray:
    """Convert vectors in half or single precision to contiguous float32, exactly."""
    if stored.dtype != np.float16:
        return np.ascontiguousarray(stored, np.float32)
    values = np.empty(stored.shape, np.float32)
    halves = np.ascontiguousarray(stored).reshape(-1).view(np.uint16)
    widen(halves, values.reshape(-1).view(np.uint32), values.reshape(-1))
    return values


def _unit(vectors: np.ndarray) -> np.ndarray:
    """L2-normalise vectors [n, D] float32; zero vectors stay zero."""
    norms = np.empty(len(vectors))
    for row, vector in enumerate(vectors):
        dots(vector[None], vector, norms[row : row + 1])
    norms = np.sqrt(norms)[:, None]
    return np.divide(vectors, norms, out=np.zeros(vectors.shape, np.float32), where=norms > 0, casting="same_kind")


def check_codec(codec: Codec, where: object) -> None:
    """Raise MismatchError, naming `where`, if the arrays of a codec do not match each other or its dimensions."""
    for problem in _problems(codec):
        raise MismatchError(f"{where}: {problem}; train it on descriptors of its recipe")


def _problems(codec: Codec) -> list[str]:
    found = []
    if codec.precision not in PRECISIONS or (codec.precision == "product") != (codec.centroids is not None):
        found.append(f"the precision is {codec.precision!r}, which does not match its arrays")
    if not 1 <= codec.input_dim <= MOST_DIMENSIONS:
        found.append(f"its input dimension is {codec.input_dim}, expected 1 to {MOST_DIMENSIONS}")
    if (codec.mean is None) != (codec.projection is None):
        found.append("it has a mean without a projection, or a projection without a mean")
    if codec.mean is not None and codec.mean.shape != (codec.input_dim,):
        found.append(f"its PCA was trained on {len(codec.mean)} dimensions, the descriptors have {codec.input_dim}")
    if codec.projection is not None and (codec.projection.ndim != 2 or codec.projection.shape[1] != codec.input_dim):
        found.append(f"its projection is {codec.projection.shape}, expected [D, {codec.input_dim}]")
    if codec.centroids is not None and not found:
        shape = codec.centroids.shape
        if len(shape) != 3 or shape[1] != CENTROIDS or shape[0] * shape[2] != codec.dim:
            found.append(
                f"its product quantiser has centroids {shape}, expected [M, {CENTROIDS}, S] with M S = {codec.dim}"
            )
    if any(array.dtype != np.float32 or not np.isfinite(array).all() for array in codec.arrays().values()):
        found.append("an array is not finite float32")
    return found
