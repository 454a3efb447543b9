"""The codec: what every global descriptor goes through before it is stored, and every query before it is compared.

A descriptor is brought to unit length, projected where there is a projection (PCA, with or without whitening), brought
to unit length again, and stored in single or half precision or as the numbers of the nearest centroids of its
sub-spaces (product quantisation: Jegou, Douze and Schmid, PAMI 2011). A query is never quantised.
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

CENTROIDS = 256  # of a sub-space: a code is one byte
SUB_SPACES = (1, 8)
PRECISIONS = {"single": np.float32, "half": np.float16, "product": np.uint8}
MOST_DIMENSIONS = 1 << 16


@dataclass(frozen=True)
class CodecOptions:
    """How global descriptors are made smaller.

    pca        dimensions that are kept, or None for all without a projection
    whiten     bring the kept dimensions to equal variance; goes with `pca`
    pq         dimensions of a sub-space, 8 or 1, that becomes one byte; None for no quantisation
    half       store in half precision; does not go with `pq`
    seed       of the sample of training vectors and of the clustering
    """

    pca: int | None = None
    whiten: bool = False
    pq: int | None = None
    half: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pca is not None and self.pca < 1:
            raise InputError(f"pca is {self.pca}; give how many dimensions are kept, 1 or more")
        if self.whiten and self.pca is None:
            raise InputError("whiten without pca: give how many dimensions are kept, or leave whiten out")
        if self.pq not in (None, *SUB_SPACES):
            raise InputError(f"pq is {self.pq}; a sub-space has 8 dimensions, or 1")
        if self.half and self.pq is not None:
            raise InputError("half precision and pq are both asked for; a quantised vector has bytes only: choose one")

    @property
    def precision(self) -> str:
        """`single`, `half` or `product`."""
        return "product" if self.pq is not None else "half" if self.half else "single"

    @property
    def is_trained(self) -> bool:
        """Whether a sample of descriptors is needed."""
        return self.pca is not None or self.pq is not None


@dataclass(frozen=True, eq=False)
class Codec:
    """What the descriptors of one recipe go through.

    recipe      what made them
    input_dim   their dimensions, D0
    precision   `single`, `half` or `product`
    mean        [D0] float32 and projection [D, D0] float32, or None for none
    centroids   [M, 256, S] float32 of M sub-spaces of S dimensions, M S = D; of `product` only
    training    how it was trained: JSON values, for people
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
        """Dimensions of a projected descriptor, D."""
        return self.input_dim if self.projection is None else len(self.projection)

    @property
    def width(self) -> int:
        """Numbers that are stored of an image: D, or as many as there are sub-spaces."""
        return self.dim if self.centroids is None else len(self.centroids)

    @property
    def dtype(self) -> np.dtype:
        """Of the numbers that are stored."""
        return np.dtype(PRECISIONS[self.precision])

    @property
    def augmentation(self) -> dict[str, Any] | None:
        """How the vectors were blended with their neighbours, or None where they were not."""
        found = self.training.get("augmentation")
        return found if isinstance(found, dict) else None

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays there are, by name."""
        named = {"mean": self.mean, "projection": self.projection, "centroids": self.centroids}
        return {name: array for name, array in named.items() if array is not None}

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of everything that shapes a stored vector."""
        digest = hashlib.sha256(f"{self.recipe.to_json()} {self.input_dim} {self.precision}".encode())
        for name, array in self.arrays().items():
            digest.update(f" {name} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
        digest.update(json.dumps(self.augmentation, sort_keys=True).encode())
        return digest.hexdigest()

    def apply(self, descriptors: np.ndarray) -> np.ndarray:
        """Raw descriptors [n, D0] as vectors [n, D] float32 of length 1; one of zeros stays zero.

        Each is worked on by itself, so that what stands beside it changes no bit. Raises MismatchError for another
        dimension and InputError for a value that is not finite.
        """
        if descriptors.ndim != 2 or descriptors.shape[1] != self.input_dim:
            raise MismatchError(
                f"descriptors are {descriptors.shape}, the codec takes [n, {self.input_dim}]; "
                "extract with the extractor of the index, or make another index"
            )
        if not np.isfinite(descriptors).all():
            raise InputError("a descriptor holds a value that is NaN or infinite; extract the image again")
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
        """Vectors [n, D] float32 as they are stored, [n, width] of `dtype`."""
        if self.centroids is None:
            return vectors.astype(self.dtype)
        codes = np.empty((len(vectors), self.width), np.uint8)
        encode_products(np.ascontiguousarray(vectors, np.float32), self.centroids, codes)
        return codes

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """What is stored, [n, width], as vectors [n, D] float32: exactly, or the centroids of quantised ones."""
        if self.centroids is not None:
            return self.centroids[np.arange(self.width), stored].reshape(len(stored), self.dim)
        return widened(stored)


def widened(stored: np.ndarray) -> np.ndarray:
    """Vectors in half or single precision as contiguous float32, exactly."""
    if stored.dtype != np.float16:
        return np.ascontiguousarray(stored, np.float32)
    values = np.empty(stored.shape, np.float32)
    halves = np.ascontiguousarray(stored).reshape(-1).view(np.uint16)
    widen(halves, values.reshape(-1).view(np.uint32), values.reshape(-1))
    return values


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [n, D] float32 brought to length 1, a zero vector left as it is."""
    norms = np.empty(len(vectors))
    for row, vector in enumerate(vectors):
        dots(vector[None], vector, norms[row : row + 1])
    norms = np.sqrt(norms)[:, None]
    return np.divide(vectors, norms, out=np.zeros(vectors.shape, np.float32), where=norms > 0, casting="same_kind")


def check_codec(codec: Codec, where: object) -> None:
    """Raise MismatchError, naming `where`, when the arrays of a codec do not fit each other or its dimensions."""
    for problem in _problems(codec):
        raise MismatchError(f"{where}: {problem}; train it on descriptors of the recipe it is for")


def _problems(codec: Codec) -> list[str]:
    found = []
    if codec.precision not in PRECISIONS or (codec.precision == "product") != (codec.centroids is not None):
        found.append(f"the precision is {codec.precision!r}, which does not go with its arrays")
    if not 1 <= codec.input_dim <= MOST_DIMENSIONS:
        found.append(f"it takes {codec.input_dim} dimensions, where 1 to {MOST_DIMENSIONS} were expected")
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
        found.append("an array is not of finite float32 numbers")
    return found
