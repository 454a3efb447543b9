"""How long does it take to train a codebook at full size, and how close are its rounds to exact k-means?

    python benchmarks/codebook.py --features FEATURESET --data DIR [--words 65536] [--descriptors 5242880] [--small]

`seconds` includes whitening, all rounds of k-means and the graph for assignment, but not reading the descriptors. The
time of exact rounds is estimated in the same run, by comparing some descriptors with all words. The ratio of
distortions, of `graph` to exact k-means, is measured with fewer words and descriptors: same sample, seed and rounds.

If the feature set has too few descriptors, copies with a little noise are added; `copies` is their number. Without
--features, all are drawn at random around many centres. The codebook is kept in --data.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
from timing import show

from asmk_engine.codebooks import Codebook, Round
from asmk_engine.codebooks.kmeans import choose_backend, exact_nearest, kmeans
from asmk_engine.codebooks.sample import sample_descriptors
from asmk_engine.codebooks.whitening import learn_whitening
from asmk_engine.features import FeatureSet
from asmk_engine.recipes import Recipe
from asmk_engine.threads import available_threads

DIM = 128
NOISE = 0.1  # of a copy, in standard deviations of each component
WHITENING_SAMPLE = 1_000_000
BLOCK = 1 << 16
YARDSTICK_PRODUCTS = 1 << 28  # distances of the exact comparison that is timed


def read(features: Path | None, count: int, words: int) -> tuple[np.ndarray, int]:
    """Return raw descriptors [count, D] float32, and the number of noisy copies among them."""
    rng = np.random.default_rng(0)
    descriptors = np.empty((count, DIM), np.float32)
    if features is None:
        centres = rng.normal(size=(2 * words, DIM)).astype(np.float32)
        for begin in range(0, count, BLOCK):
            block = descriptors[begin : begin + BLOCK]
            block[:] = rng.standard_normal(block.shape, np.float32)
            block += centres[rng.integers(0, len(centres), len(block))]
        return descriptors, 0
    real = sample_descriptors(FeatureSet.open(features), count, rng)
    if len(real) == count:
        return real, 0
    descriptors[: len(real)] = real
    spread = NOISE * real[::100].std(axis=0)
    for begin in range(len(real), count, BLOCK):
        block = descriptors[begin : begin + BLOCK]
        block[:] = rng.standard_normal(block.shape, np.float32) * spread
        block += real[rng.integers(0, len(real), len(block))]
    return descriptors, count - len(real)


def whiten(descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Learn mean and projection, and project the descriptors in place."""
    mean, projection = learn_whitening(descriptors[:: max(1, len(descriptors) // WHITENING_SAMPLE)])
    for begin in range(0, len(descriptors), BLOCK):
        block = slice(begin, begin + BLOCK)
        descriptors[block] = (descriptors[block] - mean) @ projection.T
    return mean, projection


def train(descriptors: np.ndarray, words: int, rounds: int, backend: str) -> tuple[np.ndarray, list[float], float]:
    """Run k-means; return centroids, the seconds of each round, and the last distortion."""
    times = [time.perf_counter()]

    def on_round(done: Round) -> None:
        times.append(time.perf_counter())
        note = f"{times[-1] - times[-2]:.1f} s, distortion {done.distortion:.4f}, {done.reseeded} re-seeded"
        print(f"  {backend} round {done.number}/{rounds}: {note}", file=sys.stderr, flush=True)

    centroids, history = kmeans(descriptors, words, rounds=rounds, seed=0, backend=backend, on_round=on_round)
    return centroids, np.diff(times).tolist(), history[-1].distortion


def exact_seconds(descriptors: np.ndarray, centroids: np.ndarray) -> float:
    """Measure the seconds of comparing one descriptor with all words."""
    some = np.ascontiguousarray(descriptors[: max(1, YARDSTICK_PRODUCTS // len(centroids))])
    begun = time.perf_counter()
    exact_nearest(some, centroids)
    return (time.perf_counter() - begun) / len(some)


def compare(descriptors: np.ndarray, words: int, rounds: int) -> dict[str, float]:
    """Compare k-means through the graph with exact k-means: same descriptors, seed and rounds."""
    sample = np.ascontiguousarray(descriptors)
    _, near_times, near = train(sample, words, rounds, "graph")
    _, exact_times, exact = train(sample, words, rounds, choose_backend("auto", 1))
    return {
        "distortion_ratio": near / exact,
        "compared_words": words,
        "compared_descriptors": len(sample),
        "compared_graph_seconds": sum(near_times),
        "compared_exact_seconds": sum(exact_times),
    }


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Train once at full size, then compare at a smaller one."""
    begun, words, rounds = time.perf_counter(), arguments.words, arguments.rounds
    descriptors, copies = read(arguments.features, arguments.descriptors, words)
    ready, processor = time.perf_counter(), time.process_time()
    mean, projection = whiten(descriptors)
    centroids, times, distortion = train(descriptors, words, rounds, "graph")
    codebook = Codebook(mean, projection, centroids, Recipe("benchmark")).with_assignment("graph")
    ended, processor = time.perf_counter(), time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    arguments.data.mkdir(parents=True, exist_ok=True)
    codebook.save(arguments.data / f"codebook-{words}.codebook.h5")
    result = {
        "descriptors": len(descriptors),
        "words": words,
        "rounds": rounds,
        "seconds": ended - ready,
        "processor_seconds": processor,
        "seconds_per_round": float(np.median(times)),
        "first_round_seconds": times[0],
        "exact_seconds_estimated": exact_seconds(descriptors, centroids) * len(descriptors) * rounds,
        "read_seconds": ready - begun,
        "peak_mb": peak,
        "distortion": distortion,
        "threads": available_threads(),
    }
    if copies:
        result["copies"] = copies
    some = descriptors[:: max(1, len(descriptors) // arguments.compared_descriptors)]
    return result | compare(some[: arguments.compared_descriptors], arguments.compared_words, rounds)


def main() -> None:
    """Parse the arguments, measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, help="a feature set; without it descriptors are drawn at random")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--words", type=int, default=65_536)
    parser.add_argument("--descriptors", type=int, default=80 * 65_536)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--compared-words", type=int, default=8192)
    parser.add_argument("--compared-descriptors", type=int, default=1_000_000)
    parser.add_argument("--small", action="store_true", help="2048 words, for a trial in seconds")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.words, arguments.descriptors, arguments.rounds = 2048, 40_960, 3
        arguments.compared_words, arguments.compared_descriptors = 512, 10_240
    result = measure(arguments)
    result["speedup"] = result["exact_seconds_estimated"] / result["seconds"]
    show(result, "k-means through a graph of words; exact rounds are estimated from a part of the descriptors")


if __name__ == "__main__":
    main()
