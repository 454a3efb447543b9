"""Does assignment through the graph change the accuracy? Compares its mAP with that of exact assignment.

    python benchmarks/graph_map.py FEATURES... --ground-truth gnd.json --work FOLDER [--words 16384] [--seeds 5]
        [--images PHOTOS]

For each feature set and each seed, one codebook is trained; the images are indexed and the queries answered twice with
it, through its graph, whose beam the codebook chooses by the recall it measures, and by comparing with all words. The
difference of a query is its average precision through the graph minus that with all words, averaged over the seeds;
the interval of the mean difference is a bootstrap over the queries (95 %, 10 000 samples). Every codebook and every
evaluation is kept in --work, so an interrupted run continues. Prints a table, and for each feature set a JSON line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asmk_engine.codebooks import Codebook
from asmk_engine.evaluation.bootstrap import bootstrap
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.evaluation.model import GroundTruth, GroundTruthQuery
from asmk_engine.evaluation.names import resolve
from asmk_engine.features import Features, FeatureSet
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.search.evaluation import evaluate_index
from asmk_engine.search.query_features import QuerySource
from asmk_engine.storage.folder import WriterLock
from asmk_engine.storage.stage_cache import Stage, StageCache
from asmk_engine.tradeoff.sources import features_key, ground_truth_key

VERSION = 1
CODEBOOK = "codebook.h5"
KINDS = ("exact", "graph")
COLUMNS = "{:<24}{:<8}{:>8}{:>8}{:>12}{:>20}{:>9}"

Precisions = Mapping[str, Mapping[str, float]]  # row of the report → query → average precision


class Comparison:
    """One feature set under one ground truth: its codebooks and evaluations, from the work folder where they exist."""

    def __init__(self, path: Path, ground_truth: GroundTruth, images: list[Path], options: argparse.Namespace) -> None:
        self.path, self._images, self._options = path, images, options
        self._set = FeatureSet.open(path)
        self._key = features_key(self._set)
        self._ground_truth = resolve(ground_truth, self._set.names).ground_truth
        self._cache = StageCache(options.work, VERSION)
        self._queries: dict[str, Features] = {}  # a region is extracted from its photograph: once, not for every index

    def seed(self, seed: int) -> tuple[dict[str, Any], dict[str, Precisions]]:
        """Return how the graph of this seed was measured, and the average precisions for each kind of assignment."""
        codebook = self._codebook(seed)
        found: dict[str, Precisions] = {}
        for kind in KINDS:
            found[kind] = self._evaluated(codebook, kind).numbers["per_query"]
            print(f"# {self.path.name}, seed {seed}: {kind} done", file=sys.stderr, flush=True)
        return codebook.numbers, found

    def _codebook(self, seed: int) -> Stage:
        options = {"words": self._options.words, "rounds": self._options.rounds, "seed": seed}

        def make(folder: Path) -> dict[str, Any]:
            codebook = Codebook.train(self._set, assignment="graph", **options)
            codebook.save(folder / CODEBOOK)
            graph, recall = codebook.graph, codebook.graph_recall
            return {
                "words": codebook.words,
                "beam": graph.beam if graph else None,
                "spread": graph.spread if graph else None,
                "recall_at_1": recall.recall_at_1 if recall else None,
                "recall_at_5": recall.recall_at_5 if recall else None,
                "enough": recall.is_enough if recall else None,
            }

        return self._cache.stage("codebook", {"features": self._key, **options}, make)

    def _evaluated(self, trained: Stage, kind: str) -> Stage:
        inputs = {"codebook": trained.key, "assignment": kind, "ground_truth": ground_truth_key(self._ground_truth)}

        def make(folder: Path) -> dict[str, Any]:
            codebook = Codebook.open(trained.path / CODEBOOK)
            index = Index.create(folder / "index", codebook if kind == "graph" else codebook.with_assignment(kind))
            index.add(self._set)
            source = QuerySource(index, features=self.path, images_roots=self._images)

            def features(query: GroundTruthQuery) -> Features:
                if query.name not in self._queries:
                    self._queries[query.name] = source.ground_truth_features(query.name, query.box)
                return self._queries[query.name]

            report = evaluate_index(self._ground_truth, Searcher(index), features)
            shutil.rmtree(folder / "index")
            return {"per_query": report.per_query}

        return self._cache.stage("evaluation", inputs, make)


def compare(seeds: Sequence[Mapping[str, Precisions]]) -> dict[str, dict[str, float]]:
    """Return for each row of the report the two mAPs, and the mean difference with its interval, in percent.

    seeds  for each seed the average precisions in [0, 1] of `exact` and `graph`, for the same queries
    """
    rows = {}
    for row, queries in seeds[0]["exact"].items():
        if not queries:
            continue
        means = {
            kind: {name: statistics.fmean(seed[kind][row][name] for seed in seeds) for name in queries}
            for kind in KINDS
        }
        difference = bootstrap([means["graph"][name] - means["exact"][name] for name in queries])
        rows[row] = {
            **{kind: 100 * statistics.fmean(means[kind].values()) for kind in KINDS},
            "difference": 100 * difference.mean,
            "low": 100 * difference.low,
            "high": 100 * difference.high,
            "queries": len(queries),
        }
    return rows


def print_table(name: str, measured: Sequence[Mapping[str, Any]], rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print a line for each row of the report, then the graph of each seed, then the same as one line of JSON."""
    print(COLUMNS.format("features", "mAP", "exact", "graph", "difference", "95 % interval", "queries"))
    for row, found in rows.items():
        interval = f"{found['low']:+.3f} to {found['high']:+.3f}"
        numbers = [f"{found[kind]:.2f}" for kind in KINDS]
        print(COLUMNS.format(name, row, *numbers, f"{found['difference']:+.3f}", interval, found["queries"]))
    for seed, graph in enumerate(measured):
        recall = "recall not measured"
        if graph["enough"] is not None:
            recall = f"recall@1 {graph['recall_at_1']:.4f}, recall@5 {graph['recall_at_5']:.4f}"
        low = ", too low: `auto` would compare with all words" if graph["enough"] is False else ""
        print(f"  seed {seed}: {graph['words']} words, beam {graph['beam']}, spread {graph['spread']}, {recall}{low}")
    print(json.dumps({"features": name, "seeds": len(measured), "rows": rows, "graphs": list(measured)}), flush=True)


def words_of(text: str) -> int | str:
    """Return a number of words, or `auto`."""
    return text if text == "auto" else int(text)


def main() -> None:
    """Parse the arguments, compare, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, nargs="+", help="feature sets of the images of the ground truth")
    parser.add_argument("--ground-truth", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of codebooks and evaluations; resumes there")
    parser.add_argument("--images", type=Path, action="append", default=[], help="photographs of queries with a region")
    parser.add_argument("--words", type=words_of, default="auto", help="number of words, or auto, as in build-codebook")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of k-means")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}; give 1 or more")
    ground_truth = read_ground_truth(options.ground_truth)
    options.work.mkdir(parents=True, exist_ok=True)
    with WriterLock(options.work):
        for path in options.features:
            comparison = Comparison(path, ground_truth, options.images, options)
            done = [comparison.seed(seed) for seed in range(options.seeds)]
            print_table(path.name, [graph for graph, _ in done], compare([found for _, found in done]))


if __name__ == "__main__":
    main()
