"""How much faster is word assignment through the graph than comparing all words, and what is its recall?

    python benchmarks/assignment.py --features FEATURESET --data DIR [--words 65536] [--small]

The codebook is trained on one half of the images, with whitening and some rounds of k-means through the graph, and kept
in --data. The queries come from the other half, as do the descriptors, others than the queries, on which the codebook
measures its recall and chooses its beam. Without --features, both are drawn at random around a few thousand centres.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from timing import alternate, medians, show

from asmk_engine.codebooks import Codebook
from asmk_engine.codebooks.graph import BEAM, SPREAD
from asmk_engine.codebooks.kmeans import kmeans
from asmk_engine.codebooks.recall import HELD_OUT, recalls
from asmk_engine.codebooks.whitening import learn_whitening
from asmk_engine.features import FeatureSet
from asmk_engine.recipes import Recipe
from asmk_engine.threads import available_threads

VERSION = 4
ROUNDS = 8
DESCRIPTORS = 1000  # of one query, as of one image
QUERIES = 4
WORDS_EACH = 5
DIM = 128
PAUSE = 0.1  # the threads of OpenBLAS keep spinning for a while after a large product


def halves(features: FeatureSet | None, words: int) -> tuple[np.ndarray, np.ndarray]:
    """Return descriptors of every second image, and shuffled descriptors of some of the others."""
    rng = np.random.default_rng(0)
    if features is None:
        centres, count = rng.normal(size=(words // 2, DIM)), 10 * words + QUERIES * DESCRIPTORS + HELD_OUT
        drawn = centres[rng.integers(0, len(centres), count)] + 0.7 * rng.normal(size=(count, DIM))
        return drawn[: 10 * words].astype(np.float32), drawn[10 * words :].astype(np.float32)
    names = features.names
    train, others = names[::2], names[1::2]
    queries = sorted(rng.choice(others, min(200, len(others)), replace=False).tolist())
    first, second = (
        np.concatenate([image.descriptors.astype(np.float32) for _, image in features.images(part)])
        for part in (train, queries)
    )
    return first, rng.permutation(second)


def make_codebook(descriptors: np.ndarray, words: int, reduced: bool) -> Codebook:
    """Train a codebook to measure assignment with; descriptors that a network reduced are not whitened."""
    mean, projection = np.zeros(DIM, np.float32), np.eye(DIM, dtype=np.float32)
    if not reduced:
        mean, projection = learn_whitening(descriptors)
    white = (descriptors - mean) @ projection.T
    centroids, _ = kmeans(white, words, rounds=ROUNDS, seed=1, backend="graph")
    return Codebook(mean, projection, centroids, Recipe("benchmark"))


def prepare(data: Path, features: Path | None, words: int) -> tuple[Codebook, np.ndarray, float]:
    """Return the codebook with its graph, the projected queries, and the seconds to build and measure the graph."""
    name = f"assignment-v{VERSION}-{features.name if features else 'drawn'}-{words}"
    book, others = data / f"{name}.codebook.h5", data / f"{name}.others.npy"
    if not (book.exists() and others.exists()):
        data.mkdir(parents=True, exist_ok=True)
        photos = FeatureSet.open(features) if features else None
        first, second = halves(photos, words)
        codebook = make_codebook(first, words, photos is not None and photos.recipe.is_reduced)
        np.save(others, second[: QUERIES * DESCRIPTORS + HELD_OUT])
        codebook.save(book)
    codebook, raw = Codebook.open(book), np.load(others)
    begun = time.perf_counter()
    linked = codebook.with_assignment("graph", raw[QUERIES * DESCRIPTORS :])
    return linked, codebook.project(raw[: QUERIES * DESCRIPTORS]), time.perf_counter() - begun


def recall_of(codebook: Codebook, queries: np.ndarray) -> tuple[float, float]:
    """Return recall@1 and recall@5 of the queries, against a comparison with all words."""
    exact = codebook.assign_projected(queries, WORDS_EACH, exact=True)
    return recalls(exact, codebook.assign_projected(queries, WORDS_EACH))


def main() -> None:
    """Parse the arguments, measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, help="a feature set; without it descriptors are drawn at random")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--words", type=int, default=65_536)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--small", action="store_true", help="2048 words, for a trial in seconds")
    arguments = parser.parse_args()
    words = 2048 if arguments.small else arguments.words
    codebook, queries, build_seconds = prepare(arguments.data, arguments.features, words)
    one = queries[:DESCRIPTORS]
    seconds = alternate(
        {
            "exact": lambda: codebook.assign_projected(one, WORDS_EACH, exact=True),
            "pause": lambda: time.sleep(PAUSE),
            "graph": lambda: codebook.assign_projected(one, WORDS_EACH),
            "graph_one_thread": lambda: codebook.assign_projected(one, WORDS_EACH, threads=1),
        },
        3 if arguments.small else arguments.rounds,
    )
    median = medians(seconds)
    first, all_words = recall_of(codebook, queries)
    usual = replace(codebook, graph=replace(codebook.graph, beam=BEAM, spread=SPREAD))
    usual_first, usual_all = recall_of(usual, queries)
    measured = codebook.graph_recall
    result = {
        "exact_ms": median["exact"] * 1e3,
        "graph_ms": median["graph"] * 1e3,
        "speedup": median["exact"] / median["graph"],
        "recall_at_1": first,
        f"recall_at_{WORDS_EACH}": all_words,
        "beam": codebook.graph.beam,
        "spread": codebook.graph.spread,
        "measured_recall_at_1": measured.recall_at_1,
        f"measured_recall_at_{WORDS_EACH}": measured.recall_at_5,
        "usual_beam": BEAM,
        "usual_recall_at_1": usual_first,
        f"usual_recall_at_{WORDS_EACH}": usual_all,
        "graph_one_thread_ms": median["graph_one_thread"] * 1e3,
        "best_exact_ms": min(seconds["exact"]) * 1e3,
        "best_graph_ms": min(seconds["graph"]) * 1e3,
        "threads": available_threads(),
        "words": words,
        "descriptors": len(one),
        "queries_for_recall": len(queries),
        "graph_build_s": build_seconds,
        "graph_mb": sum(array.nbytes for array in codebook.graph.arrays().values()) / 1e6,
    }
    enough = "enough" if measured.is_enough else "too little: `auto` would compare with all words"
    note = f"{WORDS_EACH} words for each of {len(one)} descriptors; medians of alternating rounds"
    show(result, f"the graph finds {enough}; {note}")


if __name__ == "__main__":
    main()
