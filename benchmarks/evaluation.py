"""How long does it take to evaluate 70 queries among a million images, from a file of rankings and from a search?

    python benchmarks/evaluation.py --data DIR [--small] [--array-only]

The ground truth has the size of Revisited Oxford: 4993 images, 70 queries with 43 easy, 36 hard and 19 junk images
each. The array holds a random ranking of all images for each query; rankings by name are measured on a tenth of the
queries. The search uses a database of 4993 images joined with the shared synthetic index as distractors. The array
alone needs no index and little memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import synthetic
from timing import show

from asmk_engine.evaluation.bootstrap import bootstrap
from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.evaluation.protocol import Evaluator, evaluate
from asmk_engine.evaluation.ranks import evaluate_ranks
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher

DATABASE, QUERIES = 4993, 70
EASY, HARD, JUNK = 43, 36, 19
SEARCHED = 5  # queries of the search; the time is per query


def draw_truth(images: int, queries: int) -> GroundTruth:
    """Draw a ground truth: images, and random positives and junk for each query."""
    rng = np.random.default_rng(1)
    names = tuple(f"image_{number:06d}" for number in range(images))
    drawn = []
    for number in range(queries):
        chosen = [names[place] for place in rng.permutation(images)[: EASY + HARD + JUNK]]
        parts = [frozenset(part) for part in (chosen[:EASY], chosen[EASY : EASY + HARD], chosen[EASY + HARD :])]
        drawn.append(GroundTruthQuery(f"query_{number:02d}", None, *parts, in_database=False))
    return GroundTruth(names, tuple(drawn), frozenset(query.name for query in drawn))


def draw_ranks(images: int, queries: int) -> np.ndarray:
    """Draw a ranking of all images for each query, [images, queries] int32, in the published layout."""
    rng = np.random.default_rng(2)
    ranks = np.empty((images, queries), np.int32)
    for query in range(queries):
        ranks[:, query] = rng.permutation(images)
    return ranks


def seconds_of(task: Callable[[], object]) -> float:
    """Time one run of a task, in seconds."""
    begun = time.perf_counter()
    task()
    return time.perf_counter() - begun


def evaluate_names(ground_truth: GroundTruth, ranks: np.ndarray) -> float:
    """Estimate the seconds to evaluate all queries by names, from a tenth of them."""
    images, queries = len(ranks), len(ground_truth.queries)
    others = (f"distractor1:{number:07d}" for number in range(images - len(ground_truth.images)))
    names = np.array([*ground_truth.images, *others], dtype=object)
    some = {
        query.name: names[ranks[:, n]].tolist() for n, query in enumerate(ground_truth.queries[: max(1, queries // 10)])
    }
    return seconds_of(lambda: evaluate(ground_truth, some, allow_missing=True)) * queries / len(some)


def search_and_evaluate(ground_truth: GroundTruth, data: Path, images: int, words: int) -> float:
    """Measure the seconds per query to score its signature against all images and evaluate the whole ranking."""
    distractors = synthetic.open_index(data, images, words)
    with tempfile.TemporaryDirectory() as folder:
        database = Index.create(Path(folder) / "database", distractors.codebook)
        signed = synthetic.queries(len(ground_truth.images), synthetic.POSTINGS, words, seed=3)
        database.add_signatures(zip(ground_truth.images, signed, strict=True))
        searcher = Searcher(JointIndex([database], [distractors]))
        evaluator = Evaluator(ground_truth, searcher.image_numbers([*ground_truth.images, *ground_truth.ignored]))
        signatures = synthetic.queries(SEARCHED + 1, 4 * synthetic.POSTINGS, words)
        searcher.rank(signatures[-1])  # reads names and lists once
        begun = time.perf_counter()
        for query, signature in zip(ground_truth.queries, signatures[:SEARCHED], strict=False):
            evaluator.add_numbers(query.name, searcher.rank(signature).numbers)
        return (time.perf_counter() - begun) / SEARCHED


def main() -> None:
    """Parse the arguments, measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1_000_000, help="number of distractors")
    parser.add_argument("--small", action="store_true", help="20 000 images and 4096 words, for a trial in seconds")
    parser.add_argument("--array-only", action="store_true", help="skip the search, which needs the large index")
    arguments = parser.parse_args()
    images, words = (20_000, 4096) if arguments.small else (arguments.images, synthetic.WORDS)
    ground_truth = draw_truth(200 if arguments.small else DATABASE, QUERIES)
    ranks = draw_ranks(images + len(ground_truth.images), QUERIES)
    report = evaluate_ranks(ground_truth, ranks)  # warm-up
    found = list(report.per_query["medium"].values())
    result = {
        "images": len(ranks),
        "queries": QUERIES,
        "array_s": seconds_of(lambda: evaluate_ranks(ground_truth, ranks)),
        "names_s": evaluate_names(ground_truth, ranks),
        "interval_s": seconds_of(lambda: bootstrap(found)),
    }
    if not arguments.array_only:
        result["search_and_evaluate_s_per_query"] = search_and_evaluate(ground_truth, arguments.data, images, words)
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    show(
        result, "array in the layout of the published evaluation; all times except the last are of the evaluation only"
    )


if __name__ == "__main__":
    main()
