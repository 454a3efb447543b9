"""Lloyd's k-means for large vocabularies: exact with faiss or torch, approximate with a neighbour graph of the words.

Rounds with the graph follow the idea of Wang et al. (Fast approximate k-means via cluster closures, CVPR 2012): a
descriptor that has a word is compared only with the words around it.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from asmk_engine import threads
from asmk_engine.codebooks.graph import Graph, Navigator, build_graph
from asmk_engine.errors import DependencyError, InputError
from asmk_engine.kernels.cluster import add_by_word, order_by_word
from asmk_engine.kernels.refine import refine

Nearest = Callable[[np.ndarray, np.ndarray, int | None], tuple[np.ndarray, np.ndarray]]
"""Returns words [n] int32 and squared distances [n] float32 for descriptors [n, D], centroids [K, D] and threads."""
EXACT_BACKENDS = ("faiss", "torch")
BACKENDS = (*EXACT_BACKENDS, "graph")
# Number of words from which `auto` uses the graph, for a distortion 1 % higher after ten rounds: 5 times as fast at
# 8192, about 12 times at 65 536. With fewer words, exact comparison takes minutes at most.
GRAPH_FROM = 16_384
WALKED_ROUNDS = 2  # first rounds, in which most descriptors change their word: searched from the graph's entry points
WALK_BEAM = 16  # beam of these searches: a wider one finds nearer words, which later rounds find anyway
SECOND = 16  # neighbours of each neighbour that a descriptor is compared with in later rounds
WALK_ROWS = 1 << 16  # descriptors searched at a time, whose 8-bit copies take 8 MiB at 128 dimensions
TASK_ROWS = 1 << 14
TORCH_ROWS = 1 << 14
TORCH_PRODUCTS = 1 << 26
FAISS_PARTS = 4  # for each thread
FAISS_ROWS = 1 << 12  # descriptors that faiss compares at a time, in one product of matrices


@dataclass(frozen=True)
class Round:
    """The outcome of one round of k-means.

    number      of the round, from 1
    rounds      number of rounds
    distortion  mean squared distance of a descriptor to its centroid
    reseeded    number of empty words that were re-seeded
    """

    number: int
    rounds: int
    distortion: float
    reseeded: int


def choose_backend(backend: str = "auto", words: int = 1) -> str:
    """Resolve `auto` to `graph` from 16 384 words on, else to `faiss` if it is installed, else to `torch`.

    Raises InputError if the name is unknown and DependencyError if the backend is not installed.
    """
    if backend == "auto":
        if words >= GRAPH_FROM:
            return "graph"
        return "faiss" if is_installed("faiss") else "torch"
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r} is unknown; choose auto, {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}")
    if backend in EXACT_BACKENDS and not is_installed(backend):
        raise DependencyError(f"{backend} is not installed; `pip install 'asmk-engine[cpu]'`, or use --backend graph")
    return backend


def is_installed(package: str) -> bool:
    """Whether a package is there; a single module of its name, as the drop-in for `asmk` has one for faiss, is none."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.submodule_search_locations is not None


def exact_nearest(descriptors: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest centroid of every descriptor by comparing all of them.

    descriptors  [n, D] float32
    centroids    [K, D] float32
    returns      words [n] int32 and squared distances [n] float32
    """
    return _EXACT[choose_backend("auto")](descriptors, centroids, None)


@dataclass(frozen=True)
class Targets:
    """What the descriptors are compared with in a round.

    centroids  [K, D] float32
    backend    `faiss`, `torch` or `graph`
    graph      of the centroids, for that backend
    walks      whether descriptors walk through the graph, rather than being compared with the words around their own
    """

    centroids: np.ndarray
    backend: str
    graph: Graph | None = None
    walks: bool = False


class DescriptorRows(Protocol):
    """The descriptors of k-means, in this process or spread over others, with the words of the last round."""

    def __len__(self) -> int:
        """Return the number of descriptors."""
        ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return copies of some descriptors, [k, D] float32."""
        ...

    def assign(self, targets: Targets) -> np.ndarray:
        """Give each descriptor a word; returns the squared distances, [n] float32."""
        ...

    def sums(self, words: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of descriptors of each word, [K] int64, and their sum in their order, [K, D] float64."""
        ...


Spread = Callable[[np.ndarray, str, int], DescriptorRows]
"""Spreads descriptors [n, D] float32 for a backend and a number of words."""


class LocalRows:
    """The descriptors of k-means in this process.

    descriptors  [n, D] float32
    workers      threads
    """

    def __init__(self, descriptors: np.ndarray, workers: int) -> None:
        self._descriptors, self._workers = descriptors, workers
        self._words = np.empty(0, np.int32)

    def __len__(self) -> int:
        return len(self._descriptors)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return copies of some descriptors, [k, D] float32."""
        return self._descriptors[rows]

    def assign(self, targets: Targets) -> np.ndarray:
        """Give each descriptor a word; returns the squared distances, [n] float32."""
        self._words, distances = assign_rows(self._descriptors, targets, self._words, self._workers)
        return distances

    def sums(self, words: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of descriptors of each word, [K] int64, and their sum in their order, [K, D] float64."""
        sums = np.zeros((words, self._descriptors.shape[1]))
        return add_rows(self._descriptors, self._words, (0, words), sums, self._workers), sums


def assign_rows(
    descriptors: np.ndarray, targets: Targets, words: np.ndarray, workers: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the words [n] int32 of descriptors and the squared distances [n] float32.

    words  of the previous round, which the first rounds do not need
    Parts of the descriptors give the same, one by one, as all of them, if they end where `part_ends` says.
    """
    if targets.graph is None:
        return _EXACT[targets.backend](descriptors, targets.centroids, workers)
    if targets.walks:
        words = _walk(descriptors, Navigator(targets.centroids, targets.graph), workers)
    return _refine(descriptors, words, targets.centroids, targets.graph, workers)


def add_rows(
    descriptors: np.ndarray, assigned: np.ndarray, words: tuple[int, int], sums: np.ndarray, workers: int
) -> np.ndarray:
    """Add descriptors to the sums of the words from `words[0]` to `words[1]` (exclusive), in their order.

    sums     [K, D] float64, added to: parts of the descriptors one after the other give the same bits as all of them
    returns  the number of descriptors of each word, [K] int64
    """
    starts = np.empty(len(sums) + 1, np.int64)
    order = order_by_word(assigned, starts)

    def add(task: tuple[int, int]) -> None:
        add_by_word(descriptors, order, starts, max(task[0], words[0]), min(task[1], words[1]), sums)

    threads.run(add, _tasks(starts), workers)
    return np.diff(starts)


def part_ends(rows: int, least: int, backend: str, words: int) -> list[int]:
    """Return where parts of at least `least` descriptors end that are assigned as all of them together would be.

    faiss and torch multiply matrices of a fixed number of rows, and the last bits of a product may depend on that
    number; so a part has a multiple of it, and the last part what remains as well.
    """
    block = {"faiss": FAISS_ROWS, "torch": _torch_rows(words)}.get(backend, 1)
    size = -(-least // block) * block
    return [*range(size, rows - size + 1, size), rows]


def kmeans(
    descriptors: np.ndarray,
    words: int,
    *,
    rounds: int,
    seed: int,
    backend: str = "auto",
    on_round: Callable[[Round], None] | None = None,
    workers: int | None = None,
    spread: Spread | None = None,
) -> tuple[np.ndarray, list[Round]]:
    """Cluster descriptors around `words` centroids; the same input, seed and backend give the same centroids.

    The initial centroids are distinct rows drawn at random. An empty word is re-seeded with a descriptor drawn with
    probability proportional to its squared distance, so that it moves to where the error is large.

    descriptors  [n, D] float32, n >= words
    on_round     receives the `Round` after each round
    workers      threads of the compiled kernels, all available by default; the result does not depend on them
    spread       spreads the descriptors over other processes, which changes no bit of the result
    returns      centroids [words, D] float32, and one `Round` per round
    """
    rng = np.random.default_rng(seed)
    count = threads.thread_count(workers)
    backend = choose_backend(backend, words)
    rows: DescriptorRows = spread(descriptors, backend, words) if spread else LocalRows(descriptors, count)
    centroids = rows.take(np.sort(rng.choice(len(rows), words, replace=False)))
    graph: Graph | None = None
    history: list[Round] = []
    for number in range(1, rounds + 1):
        if backend == "graph":  # rebuilt in every round, from the graph of the previous one
            graph = build_graph(centroids, start=graph, workers=count)
        distances = rows.assign(Targets(centroids, backend, graph, number <= WALKED_ROUNDS))
        centroids, reseeded = _update(rows, distances, words, rng)
        history.append(Round(number, rounds, float(distances.mean(dtype=np.float64)), reseeded))
        if on_round:
            on_round(history[-1])
    return centroids, history


def _update(
    rows: DescriptorRows, distances: np.ndarray, words: int, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    counts, sums = rows.sums(words)
    empty = np.flatnonzero(counts == 0)
    updated = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    if len(empty):
        updated[empty] = rows.take(_far_rows(distances, len(empty), rng))
    return updated, len(empty)


def _tasks(starts: np.ndarray) -> list[tuple[int, int]]:
    """Divide the words into ranges of similar numbers of descriptors; a word is never split."""
    words, total = len(starts) - 1, int(starts[-1])
    cuts = np.searchsorted(starts, np.arange(TASK_ROWS, total, TASK_ROWS))
    ends = [0, *np.unique(cuts[(cuts > 0) & (cuts < words)]).tolist(), words]
    return list(itertools.pairwise(ends))


def _walk(descriptors: np.ndarray, navigator: Navigator, workers: int) -> np.ndarray:
    """Return the nearest words that a walk through the graph finds, [n] int32."""
    words = np.empty(len(descriptors), np.int32)
    for begin in range(0, len(descriptors), WALK_ROWS):
        rows = slice(begin, begin + WALK_ROWS)
        words[rows] = navigator.nearest(descriptors[rows], 1, beam=WALK_BEAM, workers=workers)[:, 0]
    return words


def _refine(
    descriptors: np.ndarray, words: np.ndarray, centroids: np.ndarray, graph: Graph, workers: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each descriptor the nearest of the words around its own, and the squared distance."""
    starts = np.empty(len(centroids) + 1, np.int64)
    order = order_by_word(words, starts)
    found, distances = np.empty(len(descriptors), np.int32), np.empty(len(descriptors), np.float32)

    def work(task: tuple[int, int]) -> None:
        refine(descriptors, order, starts, *task, centroids, graph.neighbours, SECOND, found, distances)

    threads.run(work, _tasks(starts), workers)
    return found, distances


def _far_rows(distances: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw distinct rows with probability proportional to their squared distance (Gumbel-top-k sampling)."""
    with np.errstate(divide="ignore"):
        keys = np.log(distances.astype(np.float64)) + rng.gumbel(size=len(distances))
    return np.sort(np.argpartition(-keys, count - 1)[:count])


def _nearest_faiss(
    descriptors: np.ndarray, centroids: np.ndarray, workers: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Compare in parts, each with one thread of faiss: the last bits of its products depend on its threads."""
    import faiss

    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    count = threads.thread_count(workers)
    ends = [0, *part_ends(len(descriptors), -(-len(descriptors) // (FAISS_PARTS * count)), "faiss", len(centroids))]
    words, distances = np.empty(len(descriptors), np.int32), np.empty(len(descriptors), np.float32)

    def search(part: tuple[int, int]) -> None:
        before, rows = faiss.omp_get_max_threads(), slice(*part)
        faiss.omp_set_num_threads(1)  # of this thread of ours
        try:
            squared, found = index.search(descriptors[rows], 1)
        finally:
            faiss.omp_set_num_threads(before)
        words[rows], distances[rows] = found[:, 0], np.maximum(squared[:, 0], 0.0)

    threads.run(lambda part: threads.call_library(lambda: search(part)), itertools.pairwise(ends), count)
    return words, distances


def _nearest_torch(
    descriptors: np.ndarray, centroids: np.ndarray, workers: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    import torch

    words = np.empty(len(descriptors), np.int32)
    distances = np.empty(len(descriptors), np.float32)
    rows = _torch_rows(len(centroids))

    def compare() -> None:
        targets = torch.from_numpy(centroids).T.contiguous()
        norms = (targets * targets).sum(0)
        for begin in range(0, len(descriptors), rows):
            block = torch.from_numpy(descriptors[begin : begin + rows])
            values, columns = torch.addmm(norms, block, targets, alpha=-2.0).min(dim=1)
            words[begin : begin + rows] = columns.numpy()
            distances[begin : begin + rows] = (values + (block * block).sum(1)).clamp_(min=0.0).numpy()

    threads.call_library(compare)
    return words, distances


def _torch_rows(words: int) -> int:
    """Return the number of descriptors that torch compares at a time."""
    return max(1, min(TORCH_ROWS, TORCH_PRODUCTS // words))


_EXACT: dict[str, Nearest] = {"faiss": _nearest_faiss, "torch": _nearest_torch}
