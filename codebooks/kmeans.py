"""Lloyd's k-means at the size of a visual vocabulary, through faiss when it is installed and else through torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from asmk_engine.errors import DependencyError, InputError
from asmk_engine.kernels.cluster import add_by_word

Nearest = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
BACKENDS = ("faiss", "torch")
TORCH_ROWS = 1 << 14


@dataclass(frozen=True)
class Round:
    """What one round of k-means did: its number from 1, of how many, the mean squared distance, words re-seeded."""

    number: int
    rounds: int
    distortion: float
    reseeded: int


def choose_backend(backend: str = "auto") -> str:
    """`faiss` when it is installed, else `torch`; an explicit name is checked."""
    if backend == "auto":
        return "faiss" if importlib.util.find_spec("faiss") else "torch"
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r} is unknown; choose auto, {' or '.join(BACKENDS)}")
    if not importlib.util.find_spec(backend):
        raise DependencyError(f"{backend} is not installed; `pip install 'asmk-engine[cpu]'`, or use --backend auto")
    return backend


def kmeans(
    descriptors: np.ndarray,
    words: int,
    *,
    rounds: int,
    seed: int,
    backend: str = "auto",
    on_round: Callable[[Round], None] | None = None,
) -> tuple[np.ndarray, list[Round]]:
    """Cluster descriptors around `words` centroids; the same input, seed and backend give the same centroids.

    The first centroids are distinct rows drawn at random. A word that is left empty is re-seeded with a descriptor
    drawn with probability proportional to its squared distance, so that it lands where the error is.

    descriptors  [n, D] float32, n >= words
    returns      centroids [words, D] float32, and one `Round` per round
    """
    rng = np.random.default_rng(seed)
    nearest = {"faiss": _nearest_faiss, "torch": _nearest_torch}[choose_backend(backend)]
    centroids = descriptors[np.sort(rng.choice(len(descriptors), words, replace=False))].copy()
    history: list[Round] = []
    for number in range(1, rounds + 1):
        assigned, distances = nearest(descriptors, centroids)
        centroids, reseeded = _update(descriptors, assigned, distances, centroids, rng)
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
) -> tuple[np.ndarray, int]:
    sums = np.zeros(centroids.shape)
    counts = np.zeros(len(centroids), np.int64)
    add_by_word(descriptors, assigned, sums, counts)
    empty = np.flatnonzero(counts == 0)
    updated = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    if len(empty):
        updated[empty] = descriptors[_far_rows(distances, len(empty), rng)]
    return updated, len(empty)


def _far_rows(distances: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Distinct rows, drawn with probability proportional to their squared distance (the Gumbel-top-k draw)."""
    with np.errstate(divide="ignore"):
        keys = np.log(distances.astype(np.float64)) + rng.gumbel(size=len(distances))
    return np.sort(np.argpartition(-keys, count - 1)[:count])


def _nearest_faiss(descriptors: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import faiss

    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    distances, words = index.search(descriptors, 1)
    return words[:, 0].astype(np.int32), np.maximum(distances[:, 0], 0.0)


def _nearest_torch(descriptors: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import torch

    targets = torch.from_numpy(centroids).T.contiguous()
    norms = (targets * targets).sum(0)
    words = np.empty(len(descriptors), np.int32)
    distances = np.empty(len(descriptors), np.float32)
    rows = max(1, min(TORCH_ROWS, (1 << 26) // len(centroids)))
    for begin in range(0, len(descriptors), rows):
        block = torch.from_numpy(descriptors[begin : begin + rows])
        values, columns = torch.addmm(norms, block, targets, alpha=-2.0).min(dim=1)
        words[begin : begin + rows] = columns.numpy()
        distances[begin : begin + rows] = (values + (block * block).sum(1)).clamp_(min=0.0).numpy()
    return words, distances
