"""The codebook, which maps raw descriptors to visual words."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from asmk_engine.codebooks.assign import nearest_words
from asmk_engine.codebooks.checks import check_codebook
from asmk_engine.codebooks.graph import (
    Graph,
    Navigator,
    arrays_of_graph,
    build_graph,
    check_graph,
    is_linked_for,
    stored_graph,
)
from asmk_engine.codebooks.kmeans import Round, Spread
from asmk_engine.codebooks.recall import GraphRecall, choose_beam, recall_from_json, spaced
from asmk_engine.codebooks.training import TRAINING_PER_WORD, TrainingOptions, learn_words
from asmk_engine.errors import DamagedError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.features import FeatureSource, ImageArrays, source_of_descriptors
from asmk_engine.iteration import Progress
from asmk_engine.recipes import Recipe
from asmk_engine.storage.folder import Folder
from asmk_engine.storage.hdf5 import open_hdf5
from asmk_engine.threads import forks_wait, thread_count

KIND = "asmk-engine codebook"
FORMAT = 1
GRAPH_MOST = 64  # most words per descriptor found through the graph; more are found by exact comparison
# OpenBLAS computes products up to this size in the calling thread. After a larger product its own threads keep spinning
# for some 20 ms, and would compete for the processors with the graph search that follows, which takes half as long. How
# many threads compute a larger product also changes last bits, and so codes of descriptors that are nearly their words.
SMALL_PRODUCT = 1 << 18
LEAST_ROWS = 8


@dataclass(frozen=True, eq=False)
class Codebook:
    """Mean, projection and centroids for the descriptors of one recipe.

    Parameters
    ----------
    mean : ndarray of shape (D0,), float32
        Subtracted from a raw descriptor.
    projection : ndarray of shape (D, D0), float32
        Applied after the mean is subtracted.
    centroids : ndarray of shape (K, D), float32
        The visual words.
    recipe : Recipe
        The extractor, options and weights of the descriptors it was trained on.
    training : dict, optional
        How it was trained, as JSON values; informative only.
    graph : Graph, optional
        The neighbour graph used for assignment; without one, descriptors are compared with all words.
    graph_recall : GraphRecall, optional
        How many of the nearest words the graph was measured to find; informative only. Without a graph, the
        measurement for which it was given up.
    """

    mean: np.ndarray
    projection: np.ndarray
    centroids: np.ndarray
    recipe: Recipe
    training: dict[str, Any] = field(default_factory=dict)
    graph: Graph | None = None
    graph_recall: GraphRecall | None = None

    def __post_init__(self) -> None:
        check_codebook(self.mean, self.projection, self.centroids, "codebook")
        if self.graph is not None:
            check_graph(self.graph, self.words, "codebook")

    @property
    def words(self) -> int:
        """Number of visual words, K."""
        return len(self.centroids)

    @property
    def dim(self) -> int:
        """Dimension of a projected descriptor, D, which is the number of bits of a code."""
        return self.centroids.shape[1]

    @property
    def input_dim(self) -> int:
        """Dimension of a raw descriptor, D0."""
        return len(self.mean)

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 of the recipe, all arrays and the kind of assignment, as 64 hexadecimal digits."""
        digest = hashlib.sha256(self.recipe.to_json().encode())
        if self.graph is not None:
            digest.update(" ".join([self.assignment, *map(str, self.graph.settings().values())]).encode())
        for array in self.arrays().values():
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def _keeps_dimensions(self) -> bool:
        """Whether the projection is the identity, as for features of networks: the product would change nothing."""
        return self.dim == self.input_dim and bool(np.array_equal(self.projection, np.eye(self.dim, dtype=np.float32)))

    @property
    def assignment(self) -> str:
        """Kind of assignment, `graph` or `exact`, used for both database images and queries."""
        return "exact" if self.graph is None else "graph"

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of the codebook, with those of the graph, by the names under which they are stored."""
        arrays = {"mean": self.mean, "projection": self.projection, "centroids": self.centroids}
        return arrays if self.graph is None else arrays | self.graph.arrays()

    def __str__(self) -> str:
        return f"{self.words} words, {self.dim}-D, {self.assignment} assignment, {self.fingerprint[:12]}"

    def project(self, descriptors: np.ndarray) -> np.ndarray:
        """Subtract the mean from raw descriptors and project them.

        Parameters
        ----------
        descriptors : ndarray of shape (n, D0)
            Raw descriptors of any floating-point type.

        Returns
        -------
        ndarray of shape (n, D), float32

        Raises
        ------
        MismatchError
            If the shape is not (n, D0).
        InputError
            If a value is NaN or infinite.
        """
        if descriptors.ndim != 2 or descriptors.shape[1] != self.input_dim:
            raise MismatchError(
                f"descriptors are {descriptors.shape}, the codebook expects [n, {self.input_dim}]; "
                f"it was trained on features of [{self.recipe}]"
            )
        if not np.isfinite(descriptors).all():
            raise InputError("a descriptor is NaN or infinite; every value must be finite")
        centred = descriptors.astype(np.float32) - self.mean
        if self._keeps_dimensions:
            return centred
        rows = SMALL_PRODUCT // self.projection.size
        if rows < LEAST_ROWS:
            with forks_wait():
                return centred @ self.projection.T
        projected = np.empty((len(centred), self.dim), np.float32)
        for begin in range(0, len(centred), rows):
            with forks_wait():
                np.matmul(centred[begin : begin + rows], self.projection.T, out=projected[begin : begin + rows])
        return projected

    def assign(
        self, descriptors: np.ndarray, k: int = 1, *, exact: bool = False, threads: int | None = None
    ) -> np.ndarray:
        """Assign every raw descriptor to its k nearest words.

        Parameters
        ----------
        descriptors : ndarray of shape (n, D0)
            Raw descriptors of any floating-point type.
        k : int, default 1
            Number of words per descriptor.
        exact : bool, default False
            Compare with all words even if the codebook has a graph.
        threads : int, optional
            Threads that compare descriptors with words, all available by default.

        Returns
        -------
        ndarray of shape (n, k), int32
            Word numbers, nearest first.

        Raises
        ------
        MismatchError
            If the shape is not (n, D0).
        InputError
            If a value is not finite, or `k` is not between 1 and the number of words.
        """
        return self.assign_projected(self.project(descriptors), k, exact=exact, threads=threads)

    def assign_projected(
        self, projected: np.ndarray, k: int = 1, *, exact: bool = False, threads: int | None = None
    ) -> np.ndarray:
        """Assign descriptors that are already projected to their k nearest words.

        Parameters
        ----------
        projected : ndarray of shape (n, D), float32
            Descriptors returned by `project`.
        k, exact, threads
            As for `assign`.

        Returns
        -------
        ndarray of shape (n, k), int32
            Word numbers, nearest first.
        """
        if not 1 <= k <= self.words:
            raise InputError(
                f"{k} assignments were requested; a codebook of {self.words} words supports 1 to {self.words}"
            )
        if exact or self._navigator is None or k > GRAPH_MOST:
            return nearest_words(projected, self.centroids, k, workers=threads)
        projected = np.ascontiguousarray(projected, np.float32)
        words = self._navigator.nearest(projected, k, workers=thread_count(threads))
        lost = np.flatnonzero(words[:, -1] < 0)  # too few words reached, in a damaged graph
        if len(lost):
            words[lost] = nearest_words(projected[lost], self.centroids, k, workers=threads)
        return words

    @functools.cached_property
    def _navigator(self) -> Navigator | None:
        return None if self.graph is None else Navigator(self.centroids, self.graph)

    def with_assignment(self, assignment: str, sample: np.ndarray | None = None) -> Codebook:
        """Return a codebook of the same words with another kind of assignment.

        With a sample, the recall of the graph is measured, and its beam is the smallest that finds the nearest word of
        99 % of the descriptors and 98 % of their five nearest words. Beams are tried up to the number of words / 128
        or 72, which takes about as long as comparing with all words. If none finds enough, `auto` compares with all
        words, and `graph` uses the largest; `graph_recall` has the measurement.

        Parameters
        ----------
        assignment : {"auto", "exact", "graph"}
            `graph` builds a new neighbour graph; `auto` does so from 16 384 words on.
        sample : ndarray of shape (n, D0), optional
            Raw descriptors that the words were not trained on, of which at most 10 000 are used. Without any, the graph
            keeps the default beam.

        Returns
        -------
        Codebook

        Raises
        ------
        InputError
            If the assignment is unknown, or a value of the sample is not finite.
        MismatchError
            If the shape of the sample is not (n, D0).
        """
        if not is_linked_for(assignment, self.words):
            return replace(self, graph=None, graph_recall=None)
        linked = replace(self, graph=build_graph(self.centroids), graph_recall=None)
        if linked.graph is None or sample is None or not len(sample):
            return linked
        graph, recall = choose_beam(self.centroids, linked.graph, linked.project(spaced(sample)))
        kept = graph if recall.is_enough or assignment == "graph" else None
        return replace(self, graph=kept, graph_recall=recall)

    @classmethod
    def train(
        cls,
        features: FeatureSource | ImageArrays,
        words: int | str = "auto",
        *,
        recipe: Recipe | str | None = None,
        seed: int = 0,
        rounds: int = 10,
        whitening: str = "auto",
        backend: str = "auto",
        assignment: str = "auto",
        training_per_word: int = TRAINING_PER_WORD,
        on_sample: Progress | None = None,
        on_round: Callable[[Round], None] | None = None,
        spread: Spread | None = None,
    ) -> Codebook:
        """Learn mean and PCA-whitening, then centroids by k-means, from a uniform sample of some features.

        Parameters
        ----------
        features : FeatureSource, ndarray, or iterable of ndarray or Features
            The features to sample, such as a `FeatureSet`; or one array of shape (n, D0) or (images, n, D0),
            or several, one for each image.
        words : int or "auto", default "auto"
            Number of words; `auto` is the largest power of two with 200 descriptors per word, at most 65 536.
        recipe : Recipe or str, optional
            Recipe of arrays, or a name for it. Only arrays of an equal recipe can be added to an index of the codebook.
        seed : int, default 0
            Seed of the sample and of k-means.
        rounds : int, default 10
            Rounds of k-means.
        whitening : {"auto", "pca", "none"}, default "auto"
            `none` is mean 0 and the identity; `auto` is `none` for descriptors already reduced by a network.
        backend : {"auto", "faiss", "torch", "graph"}, default "auto"
            Implementation of k-means; `auto` is `graph` from 16 384 words on, else `faiss` if installed, else `torch`.
        assignment : {"auto", "exact", "graph"}, default "auto"
            Kind of assignment; `auto` is `graph` from 16 384 words on, if that finds enough of the nearest words of
            descriptors held out from the sample (see `with_assignment`).
        training_per_word : int, default 80
            Descriptors in the sample per word.
        on_sample, on_round : callable, optional
            Receive progress of the sampling as (done, total) in images, and the `Round` after each round of k-means.
        spread : callable, optional
            Spreads the descriptors of k-means over other processes, which changes no bit: see `kmeans.Spread`.

        Returns
        -------
        Codebook

        Raises
        ------
        InputError
            If an option or an array is invalid, or there are too few descriptors for the number of words.
        DependencyError
            If the backend is not installed.

        Examples
        --------
        >>> import numpy as np
        >>> from asmk_engine import Codebook
        >>> descriptors = np.random.default_rng(0).normal(size=(400, 8))
        >>> Codebook.train(descriptors, words=2).words
        2
        """
        source = source_of_descriptors(features, recipe)
        options = TrainingOptions(words, seed, rounds, whitening, backend, training_per_word, assignment)
        learned = learn_words(source, options, on_sample, on_round, spread)
        arrays = learned.mean, learned.projection, learned.centroids
        return cls(*arrays, source.recipe, learned.training).with_assignment(assignment, learned.held_out)

    def rounded(self) -> Codebook:
        """Return the codebook with words of half precision, whose file takes half the space."""
        return replace(self, centroids=self.centroids.astype(np.float16).astype(np.float32))

    def save(self, path: Path | str, *, half: bool = False) -> None:
        """Write the codebook as one HDF5 file, atomically; an existing file is replaced.

        Parameters
        ----------
        path : path-like
            The file to write; missing parent folders are created.
        half : bool, default False
            Store the words in half precision, in which those of `rounded` are the same.
        """
        path = Path(path)
        folder = Folder(path.parent)
        folder.make()
        folder.write(path.name, [self._to_hdf5(half)])
        folder.sync()

    def _to_hdf5(self, half: bool) -> bytes:
        with h5py.File.in_memory() as file:
            file.attrs["kind"], file.attrs["format"] = KIND, FORMAT
            file.attrs["recipe"], file.attrs["training"] = self.recipe.to_json(), json.dumps(self.training)
            file.attrs["fingerprint"] = self.fingerprint
            file.attrs["assignment"] = self.assignment
            if self.graph is not None:
                file.attrs.update(self.graph.settings())
            if self.graph_recall is not None:
                file.attrs["graph_recall"] = self.graph_recall.to_json()
            for key, array in self.arrays().items():
                file[key] = array.astype(np.float16) if half and key == "centroids" else array
            file.flush()
            return bytes(file.id.get_file_image())

    @classmethod
    def open(cls, path: Path | str) -> Codebook:
        """Read a codebook file.

        Parameters
        ----------
        path : path-like
            A file written by `save`.

        Returns
        -------
        Codebook

        Raises
        ------
        NotFoundError
            If there is no such file.
        FormatError
            If the file is not a codebook, or of an unsupported format version.
        DamagedError
            If the file is truncated or altered.
        """
        path = Path(path)
        if not path.is_file():
            raise NotFoundError(
                f"{path}: no such codebook; make one with `asmk-engine build-codebook FEATURES -o {path}`"
            )
        try:
            with open_hdf5(path) as file:
                return cls._from_hdf5(file, path)
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise DamagedError(f"{path}: damaged codebook ({' '.join(str(error).split())[:120]})") from None

    @classmethod
    def _from_hdf5(cls, file: h5py.File, path: Path) -> Codebook:
        if file.attrs.get("kind") != KIND:
            raise FormatError(f"{path}: not a codebook; expected a file from `asmk-engine build-codebook`")
        if int(file.attrs["format"]) != FORMAT:
            raise FormatError(f"{path}: codebook format {file.attrs['format']}, this version reads {FORMAT}")
        links = arrays_of_graph(str(file.attrs.get("assignment", "exact")), path)
        keys = ["mean", "projection", "centroids", *links]
        if any(file[key].nbytes > path.stat().st_size for key in keys):
            raise ValueError("an array is declared larger than the file")
        arrays = {key: _widened(file[key][:]) for key in keys}
        mean, projection, centroids = (arrays[key] for key in ("mean", "projection", "centroids"))
        check_codebook(mean, projection, centroids, path)
        linked = [arrays[key] for key in links]
        graph = stored_graph(linked[0], linked[1], file.attrs, len(centroids), path) if linked else None
        recipe = Recipe.from_json(str(file.attrs["recipe"]), path)
        recall = recall_from_json(file.attrs.get("graph_recall"), path)
        codebook = cls(mean, projection, centroids, recipe, dict(json.loads(file.attrs["training"])), graph, recall)
        if codebook.fingerprint != file.attrs["fingerprint"]:
            raise DamagedError(f"{path}: its fingerprint does not match its content; the file was altered")
        return codebook


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float16 else array
