"""What does re-ranking gain? Feature sets indexed with several codebooks, evaluated with and without it.

    python benchmarks/reranking.py FEATURES [FEATURES] --ground-truth gnd.json [--words 4096] [--seeds 3] [--images 50]
        [--codebook FILE] [--weights 1/80,0.5]

One feature set gives an ASMK index, two give a fused index (`--kind-weights 2,1`). For each row of the protocol: mAP
without and with re-ranking, means over the seeds of k-means, their difference, and its 95 % bootstrap interval over the
queries, each with the mean over the seeds. The last line has milliseconds of the processor for a query, and bytes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine import Codebook, FeatureSet, FusedIndex, FusedSearcher, Index, Searcher
from asmk_engine.evaluation.bootstrap import bootstrap
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.evaluation.names import resolve
from asmk_engine.evaluation.protocol import Report
from asmk_engine.indexes.searcher import RerankingSearcher
from asmk_engine.search.evaluation import evaluate_index
from asmk_engine.search.query_features import query_source
from asmk_engine.verification.reranking import Reranking


def main() -> None:
    """Parse the arguments, evaluate with every seed, and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, nargs="+")
    parser.add_argument("--ground-truth", type=Path, required=True)
    parser.add_argument("--words", type=int, default=4096)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--codebook", type=Path, nargs="*", default=[], help="for the first seed of each feature set")
    parser.add_argument("--weights", default="1/80,1/2", help="of an inlier and of places")
    parser.add_argument("--kind-weights", default="2,1")
    options = parser.parse_args()
    inlier, places = (float(Fraction(text)) for text in options.weights.split(","))
    reranking = Reranking(options.images, inlier, places)
    reports: list[tuple[Report, Report]] = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            index = indexed(options, seed, Path(folder))
            before, after, times = measured(index, options, reranking)
            reports.append((before, after))
            size = sum(entry.bytes for entry in index.snapshot.manifest.files()) / index.images
            took = f"{times[0]:.1f} and {times[1]:.1f} ms"
            print(f"seed {seed}: {rows(before)}, {rows(after)}; {took}, {size:.0f} bytes with codebooks", flush=True)
    show(reports)


def indexed(options: argparse.Namespace, seed: int, folder: Path) -> Any:
    """Index the feature sets with codebooks of this seed."""
    sets = [FeatureSet.open(path) for path in options.features]
    given = options.codebook if seed == 0 else []
    codebooks = [
        Codebook.open(given[place]) if place < len(given)
        else Codebook.train(one, options.words, seed=seed, rounds=6, training_per_word=60)
        for place, one in enumerate(sets)
    ]  # fmt: skip
    if len(sets) == 1:
        index: Any = Index.create(folder / "i.index", codebooks[0])
        index.add(sets[0])
        return index
    names = [f"kind{place}" for place in range(len(sets))]
    weights = [float(weight) for weight in options.kind_weights.split(",")]
    fused = FusedIndex.create(folder / "i.index", dict(zip(names, codebooks, strict=True)), weights)
    fused.add(dict(zip(names, sets, strict=True)))
    return fused


def measured(index: Any, options: argparse.Namespace, reranking: Reranking) -> tuple[Report, Report, list[float]]:
    """Evaluate without and with re-ranking; also returns the milliseconds of a query, features given, one thread."""
    plain: Any = (FusedSearcher if isinstance(index, FusedIndex) else Searcher)(index, threads=1)
    ground_truth = resolve(read_ground_truth(options.ground_truth), index.names).ground_truth
    source, features, times = query_source(index), {}, []
    for query in ground_truth.queries:
        features[query.name] = source.ground_truth_features(query.name, query.box)
    found = []
    for searcher in (plain, RerankingSearcher(plain, reranking)):
        found.append(evaluate_index(ground_truth, searcher, lambda query: features[query.name]))
        begin = time.process_time()
        for query in list(features.values())[:20]:  # the geometry that they need is in memory by now
            searcher.rank(query)
        times.append(1e3 * (time.process_time() - begin) / min(20, len(features)))
    return found[0], found[1], times


def rows(report: Report) -> str:
    """Return the mAP of all rows in percent."""
    return " / ".join(f"{100 * scores.mean_average_precision:.1f}" for scores in report.scores.values())


def show(reports: list[tuple[Report, Report]]) -> None:
    """Print the means over the seeds, and the differences with their intervals."""
    for row in reports[0][0].per_query:
        means = [100 * np.mean([pair[k].scores[row].mean_average_precision for pair in reports]) for k in (0, 1)]
        names = reports[0][0].per_query[row]
        gains = [
            np.mean([100 * (two.per_query[row][n] - one.per_query[row][n]) for one, two in reports]) for n in names
        ]
        found = bootstrap(gains)
        print(f"  {row:<7} {means[0]:6.2f} {means[1]:6.2f}  {found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]")


if __name__ == "__main__":
    main()
