"""The codebook of the drop-in replacement: centroids without centring or projection of descriptors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine import codebooks
from asmk_engine.compat.checks import check_descriptors, check_words
from asmk_engine.compat.index import FaissL2Index, SearchIndex
from asmk_engine.compat.parameters import parse_size, positive
from asmk_engine.compat.state_checks import read_centroids
from asmk_engine.compat.states import codebook_state
from asmk_engine.errors import InputError
from asmk_engine.recipes import Recipe


class Codebook:
    """Centroids, and assignment of descriptors to them.

    index_factory  clusters descriptors and makes the index of the centroids; `FaissL2Index` if None
    size           number of words to train, a number or text such as `64k`
    """

    def __init__(self, index_factory: FaissL2Index | None = None, *, size: int | str) -> None:
        self.index_factory = index_factory or FaissL2Index()
        self.params = {"size": parse_size(size)}
        self.search_index: SearchIndex | None = None
        self._engine: codebooks.Codebook | None = None

    @property
    def centroids(self) -> np.ndarray | None:
        """The visual words [K, D] float32, or None before training."""
        return None if self._engine is None else self._engine.centroids

    @centroids.setter
    def centroids(self, centroids: np.ndarray) -> None:
        plain = check_descriptors(centroids)
        self._engine = plain_codebook(plain, Recipe("asmk", {"dim": plain.shape[1]}))
        self.search_index = None

    @property
    def engine(self) -> codebooks.Codebook:
        """The codebook as one of asmk-engine; raises InputError before training."""
        if self._engine is None:
            raise InputError("the codebook is not trained; call train_codebook first")
        return self._engine

    @property
    def size(self) -> int:
        """Number of words, or of words to train."""
        return self.params["size"] if self._engine is None else self._engine.words

    def train(self, des: np.ndarray) -> None:
        """Cluster descriptors [n, D] into `size` words."""
        self.centroids = self.index_factory.cluster(des, self.params["size"])

    def index(self) -> None:
        """Make the index of the centroids; `quantize` calls this if necessary."""
        self.search_index = self.index_factory.create_index(self.engine.centroids)

    def quantize(self, des: np.ndarray, *columns: Any, multiple_assignment: int = 1) -> tuple[Any, ...]:
        """Return descriptors [n, D], their nearest words [n, multiple_assignment] int32, and `columns` unchanged."""
        engine = self.engine
        count = positive(multiple_assignment, "multiple_assignment")
        if count > engine.words:
            raise InputError(f"multiple_assignment is {count}; the codebook has {engine.words} words")
        descriptors = check_descriptors(des, engine.dim)
        if self.search_index is None:
            self.index()
        return descriptors, self._nearest(descriptors, count), *columns

    def _nearest(self, descriptors: np.ndarray, count: int) -> np.ndarray:
        if not len(descriptors) or self.search_index is None:
            return np.empty((0, count), np.int32)
        return check_words(self.search_index.search(descriptors, count)[1], len(descriptors), self.engine.words)

    def state_dict(self) -> dict[str, Any]:
        """Return the codebook as plain values and arrays."""
        return codebook_state(self.engine.centroids)

    @classmethod
    def initialize_from_state(
        cls, state: Mapping[str, Any], index_factory: FaissL2Index | None = None, *, where: object = "state"
    ) -> Codebook:
        """Make a codebook from a state; raises FormatError or DamagedError, naming `where`, for an invalid state."""
        centroids = read_centroids(state, where)
        codebook = cls(index_factory, size=len(centroids))
        codebook.centroids = centroids
        return codebook

    def save(self, path: Path | str) -> None:
        """Write the codebook as an HDF5 file of asmk-engine, atomically."""
        self.engine.save(path)


def plain_codebook(centroids: np.ndarray, recipe: Recipe) -> codebooks.Codebook:
    """Make a codebook of asmk-engine that neither centres nor projects; centroids [K, D] float32, finite."""
    dim = centroids.shape[1]
    return codebooks.Codebook(np.zeros(dim, np.float32), np.eye(dim, dtype=np.float32), centroids, recipe)


def warn_about_size(codebook: Codebook, wanted: int, path: object) -> None:
    """Warn if the size of a stored codebook differs from the parameters; the stored one is used."""
    if codebook.size != wanted:
        warnings.warn(
            f"{path}: a codebook of {codebook.size} words, the parameters say {wanted}; using the file", stacklevel=3
        )
