"""How long does a query take from its features to the best hundred images?

    python benchmarks/query.py --data DIR [--small] [--features 1000]

A query has 1000 descriptors around 440 words, like the indexed images: centroids drawn by popularity, with noise. Each
descriptor is assigned to five words.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import synthetic
from timing import percentile, show

from asmk_engine.features import Features
from asmk_engine.inverted.search import Searcher


def draw_features(centroids: np.ndarray, chances: np.ndarray, count: int, rng: np.random.Generator) -> Features:
    """Draw descriptors near as many centroids, chosen by popularity, as an indexed image has words."""
    present = rng.choice(len(centroids), min(synthetic.POSTINGS, len(centroids) // 4), replace=False, p=chances)
    words = rng.choice(present, count)
    descriptors = centroids[words] + rng.normal(scale=0.5, size=(count, centroids.shape[1]))
    keypoints, scores = np.zeros((count, 3), np.float32), np.ones(count, np.float32)
    return Features(descriptors.astype(np.float32), keypoints, scores, (1024, 768))


def main() -> None:
    """Parse the arguments, measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--small", action="store_true", help="20 000 images and 4096 words, for a trial in seconds")
    arguments = parser.parse_args()
    images, words = (20_000, 4096) if arguments.small else (arguments.images, synthetic.WORDS)
    index = synthetic.open_index(arguments.data, images, words)
    searcher = Searcher(index)
    chances = synthetic.popularity(words)
    rng = np.random.default_rng(7)
    queries = [
        draw_features(index.codebook.centroids, chances / chances.sum(), arguments.features, rng)
        for _ in range(arguments.queries + 2)
    ]
    first = timed(searcher, queries[0])
    index.preload()
    timed(searcher, queries[1])
    seconds = np.array([timed(searcher, features) for features in queries[2:]])
    begun = time.perf_counter()
    searcher.search(queries[2:], 100)
    batch = time.perf_counter() - begun
    whole = (1000 * seconds.sum(axis=1)).tolist()
    show(
        {
            "images": images,
            "median_ms": statistics.median(whole),
            "p95_ms": percentile(whole, 95),
            "signing_median_ms": 1000 * float(np.median(seconds[:, 0])),
            "scoring_median_ms": 1000 * float(np.median(seconds[:, 1])),
            "first_ms": 1000 * sum(first),
            "batch_ms_per_query": 1000 * batch / arguments.queries,
            "query_words": len(searcher.sign(queries[-1])),
        },
        f"{index.codebook.assignment} assignment, all threads, index preloaded after the first query",
    )


def timed(searcher: Searcher, features: Features) -> tuple[float, float]:
    """Measure the seconds of a query, for its signature and for scoring."""
    begun = time.perf_counter()
    signature = searcher.sign(features)
    signed = time.perf_counter()
    searcher.search(signature, 100)
    return signed - begun, time.perf_counter() - signed


if __name__ == "__main__":
    main()
