"""Lloyd's k-means for large vocabularies: exact with faiss or torch, approximate with a neighbour graph of the words.

Rounds with the graph follow the idea of Wang et al. (Fast approximate k-means via cluster closures, CVPR 2012): a
descriptor that has a word is compared only with the words around it.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from asmk_engine import threads
from asmk_engine.codebooks.graph import Graph, Navigator, build_graph
from asmk_engine.errors import DependencyError, InputError
from asmk_engine.kernels.cluster import add_by_word, order_by_word
from asmk_engine.kernels.refine import refine

Nearest = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
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
    return _EXACT[choose_backend("auto")](descriptors, centroids)


def kmeans(
    descriptors: np.ndarray,
    words: int,
    *,
    rounds: int,
    seed: int,
    backend: str = "auto",
    on_round: Callable[[Round], None] | None = None,
    workers: int | None = None,
) -> tuple[np.ndarray, list[Round]]:
    """Cluster descriptors around `words` centroids; the same input, seed and backend give the same centroids.

    The initial centroids are distinct rows drawn at random. An empty word is re-seeded with a descriptor drawn with
    probability proportional to its squared distance, so that it moves to where the error is large.

    descriptors  [n, D] float32, n >= words
    on_round     receives the `Round` after each round
    workers      threads of the compiled kernels, all available by default; the result does not depend on them
    returns      centroids [words, D] float32, and one `Round` per round
    """
    rng = np.random.default_rng(seed)
    count = threads.thread_count(workers)
    backend = choose_backend(backend, words)
    nearest = _NearestInGraph(count) if backend == "graph" else _EXACT[backend]
    centroids = descriptors[np.sort(rng.choice(len(descriptors), words, replace=False))].copy()
    history: list[Round] = []
    for number in range(1, rounds + 1):
        assigned, distances = nearest(descriptors, centroids)
        centroids, reseeded = _update(descriptors, assigned, distances, centroids, rng, count)
        history.append(Round(number, rounds, float(distances.mean(dtype=np.float64)), reseeded))
        if on_round:
            on_round(history[-1])
    return centroids, history


def _update(
    descriptors: np.ndarray,
    assigned: np.ndarray,
    distances: np.ndarray,
    centroids: np.ndarray,
    rng: np.random.Generator,
    workers: int,
) -> tuple[np.ndarray, int]:
    starts = np.empty(len(centroids) + 1, np.int64)
    order = order_by_word(assigned, starts)
    counts = np.diff(starts)
    sums = np.zeros(centroids.shape)

    def add(task: tuple[int, int]) -> None:
        add_by_word(descriptors, order, starts, *task, sums)

    threads.run(add, _tasks(starts), workers)
    empty = np.flatnonzero(counts == 0)
    updated = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    if len(empty):
        updated[empty] = descriptors[_far_rows(distances, len(empty), rng)]
    return updated, len(empty)


def _tasks(starts: np.ndarray) -> list[tuple[int, int]]:
    """Divide the words into ranges of similar numbers of descriptors; a word is never split."""
    words, total = len(starts) - 1, int(starts[-1])
    cuts = np.searchsorted(starts, np.arange(TASK_ROWS, total, TASK_ROWS))
    ends = [0, *np.unique(cuts[(cuts > 0) & (cuts < words)]).tolist(), words]
    return list(itertools.pairwise(ends))


class _NearestInGraph:
    """Approximate nearest words through a graph that is rebuilt in every round from the graph of the previous one."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._rounds = 0
        self._graph: Graph | None = None
        self._words = np.empty(0, np.int32)

    def __call__(self, descriptors: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self._graph = graph = build_graph(centroids, start=self._graph, workers=self._workers)
        if self._rounds < WALKED_ROUNDS:
            self._words = self._walk(descriptors, Navigator(centroids, graph))
        self._rounds += 1
        self._words, distances = self._refine(descriptors, centroids, graph)
        return self._words, distances

    def _walk(self, descriptors: np.ndarray, navigator: Navigator) -> np.ndarray:
        words = np.empty(len(descriptors), np.int32)
        for begin in range(0, len(descriptors), WALK_ROWS):
            rows = slice(begin, begin + WALK_ROWS)
            words[rows] = navigator.nearest(descriptors[rows], 1, beam=WALK_BEAM, workers=self._workers)[:, 0]
        return words

    def _refine(self, descriptors: np.ndarray, centroids: np.ndarray, graph: Graph) -> tuple[np.ndarray, np.ndarray]:
        starts = np.empty(len(centroids) + 1, np.int64)
        order = order_by_word(self._words, starts)
        words, distances = np.empty(len(descriptors), np.int32), np.empty(len(descriptors), np.float32)

        def work(task: tuple[int, int]) -> None:
            refine(descriptors, order, starts, *task, centroids, graph.neighbours, SECOND, words, distances)

        threads.run(work, _tasks(starts), self._workers)
        return words, distances


def _far_rows(distances: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw distinct rows with probability proportional to their squared distance (Gumbel-top-k sampling)."""
    with np.errstate(divide="ignore"):
        keys = np.log(distances.astype(np.float64)) + rng.gumbel(size=len(distances))
    return np.sort(np.argpartition(-keys, count - 1)[:count])


def _nearest_faiss(descriptors: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import faiss

    def search() -> tuple[np.ndarray, np.ndarray]:
        index = faiss.IndexFlatL2(centroids.shape[1])
        index.add(centroids)
        distances, words = index.search(descriptors, 1)
        return words[:, 0].astype(np.int32), np.maximum(distances[:, 0], 0.0)

    return threads.call_library(search)


def _nearest_torch(descriptors: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import torch

    words = np.empty(len(descriptors), np.int32)
    distances = np.empty(len(descriptors), np.float32)
    rows = max(1, min(TORCH_ROWS, (1 << 26) // len(centroids)))

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


_EXACT: dict[str, Nearest] = {"faiss": _nearest_faiss, "torch": _nearest_torch}
