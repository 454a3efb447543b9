"""What does re-ranking gain? Feature sets indexed with several codebooks, and searched in every way there is.

    python benchmarks/reranking.py FEATURES [FEATURES] --ground-truth gnd.json [--words 4096] [--seeds 3] [--images 50]
        [--codebook FILE] [--weights 1/80,1/2] [--methods none,places,...] [--cache FILE]

One feature set gives an ASMK index, two give a fused index (`--kind-weights 2,1`). The methods are

    none         no re-ranking
    places       `--rerank 50`
    descriptors  `--rerank 50 --rerank-by descriptors`
    both         `--rerank 50 --rerank-by both`
    join1        `--rerank 50 --join 1`; join2 with 2
    diffusion    `--diffusion`, and diffusion+places with `--rerank 50` on top
    augmentation `--augmentation 3`

Each has a line: mAP of each row of the protocol, means over the seeds of k-means; differences of Medium and Hard from
no re-ranking with their 95 % bootstrap intervals over the queries, each with the mean over the seeds; milliseconds of
the processor for a query whose features are given; bytes an image: the index, and what the method reads besides.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine import Codebook, FeatureSet, FusedIndex, FusedSearcher, Index, Searcher
from asmk_engine.diffusion import AugmentingSearcher, DiffusionSearcher, build_neighbours
from asmk_engine.evaluation.bootstrap import Interval, bootstrap
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.evaluation.names import resolve
from asmk_engine.indexes.searcher import RerankingSearcher
from asmk_engine.search.evaluation import evaluate_index
from asmk_engine.search.query_features import query_source
from asmk_engine.verification.reranking import Reranking

METHODS = ("none", "places", "descriptors", "both", "join1", "diffusion", "diffusion+places", "augmentation")
ROWS = ("easy", "medium", "hard")
TIMED = 10  # queries
STORED_PLACE_BYTES = 12  # x, y and scale of a feature in a feature set
PLACE_BYTES = 7  # of a feature in an index made with --geometry, beside its code
Found = dict[str, Any]


def main() -> None:
    """Parse the arguments, evaluate with every seed, and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, nargs="+")
    parser.add_argument("--ground-truth", type=Path, required=True)
    parser.add_argument("--words", type=int, default=4096)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--codebook", type=Path, nargs="*", default=[], help="for the first seed of each feature set")
    parser.add_argument("--weights", default="1/80,1/2", help="of an inlier and of places")
    parser.add_argument("--kind-weights", default="2,1")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--cache", type=Path, help="a file that keeps what was measured")
    options = parser.parse_args()
    cache: Found = json.loads(options.cache.read_text()) if options.cache and options.cache.exists() else {}
    for seed in range(options.seeds):
        measured: Found = cache.setdefault(str(seed), {})
        wanted = [name for name in options.methods.split(",") if name not in measured]
        if wanted:
            with tempfile.TemporaryDirectory() as folder:
                measured.update(evaluated(indexed(options, seed, Path(folder)), wanted, options))
        if options.cache:
            options.cache.write_text(json.dumps(cache))
        print(f"seed {seed}: {'; '.join(f'{name} {means([measured[name]])}' for name in measured)}", flush=True)
    for name in options.methods.split(","):
        print(line(name, [cache[str(seed)] for seed in range(options.seeds)]))


def indexed(options: argparse.Namespace, seed: int, folder: Path) -> Any:
    """Index the feature sets with codebooks of this seed."""
    sets = [FeatureSet.open(path) for path in options.features]
    given = options.codebook if seed == 0 else []
    codebooks = [
        Codebook.open(given[place]) if place < len(given)
        else Codebook.train(one, options.words, seed=seed, rounds=6, training_per_word=60, assignment="exact")
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


def searcher_of(method: str, index: Any, options: argparse.Namespace) -> Any:
    """Return what searches by a method, with one thread."""
    plain: Any = (FusedSearcher if isinstance(index, FusedIndex) else Searcher)(index, threads=1)
    if method.startswith("diffusion"):
        build_neighbours(index)
        plain = DiffusionSearcher(plain)
    if method == "augmentation":
        build_neighbours(index)
        return AugmentingSearcher(plain)
    inlier, places = (float(Fraction(text)) for text in options.weights.split(","))
    by_places = {"places": 0, "diffusion+places": 0, "join1": 1, "join2": 2}
    if method in by_places:
        return RerankingSearcher(plain, Reranking(options.images, inlier, places, expansions=by_places[method]))
    read = {"descriptors": Reranking.by_descriptors, "both": Reranking.by_both}
    return RerankingSearcher(plain, read[method](options.images)) if method in read else plain


def evaluated(index: Any, methods: list[str], options: argparse.Namespace) -> Found:
    """Search by each method; returns mAP of each query and row, milliseconds of a query, and bytes."""
    ground_truth = resolve(read_ground_truth(options.ground_truth), index.names).ground_truth
    source = query_source(index)
    features = {query.name: source.ground_truth_features(query.name, query.box) for query in ground_truth.queries}
    size = sum(entry.bytes for entry in index.snapshot.manifest.files()) / index.images
    found = {}
    for method in methods:
        searcher = searcher_of(method, index, options)
        report = evaluate_index(ground_truth, searcher, lambda query: features[query.name])
        begin = time.process_time()
        for query in list(features.values())[:TIMED]:  # what they need is in memory by now, if there is room
            searcher.rank(query)
        found[method] = {
            "queries": {row: report.per_query[row] for row in ROWS},
            "ms": 1e3 * (time.process_time() - begin) / min(TIMED, len(features)),
            "bytes": size,
            "besides": bytes_besides(method, index, options),
        }
    return found


def bytes_besides(method: str, index: Any, options: argparse.Namespace) -> float:
    """Return the bytes of an image that a method reads besides the index: geometry, descriptors or neighbours."""
    sets = [FeatureSet.open(path) for path in options.features]
    each = [sum(len(one.read(name)) for name in one.names[::10]) / len(one.names[::10]) for one in sets]
    table = 8.0 * min(50, index.images - 1) if method.startswith(("diffusion", "augmentation")) else 0.0
    if method in ("descriptors", "both"):
        return sum(
            count * (2 * one.dim + (STORED_PLACE_BYTES if method == "both" else 0))
            for count, one in zip(each, sets, strict=True)
        )
    placed = sum(count * (one.dim / 8 + PLACE_BYTES) for count, one in zip(each, sets, strict=True))
    return table + (0.0 if method in ("none", "diffusion", "augmentation") else placed)


def means(found: list[Found]) -> str:
    """Return the mAP of all rows in percent, means over the queries and seeds."""
    return " / ".join(f"{100 * np.mean([list(one['queries'][row].values()) for one in found]):.1f}" for row in ROWS)


def line(method: str, seeds: list[Found]) -> str:
    """Return the line of a method."""
    found = [seed[method] for seed in seeds]
    gains = "  ".join(gain(found, [seed["none"] for seed in seeds], row) for row in ROWS[1:])
    spent, size, besides = (np.mean([one[key] for one in found]) for key in ("ms", "bytes", "besides"))
    return f"{method:<17} {means(found)}  {gains}  {spent:.0f} ms  {size:.0f} + {besides:.0f} bytes"


def gain(found: list[Found], plain: list[Found], row: str) -> str:
    """Return the difference of a row from no re-ranking, and its interval."""
    interval = difference(found, plain, row)
    return f"{interval.mean:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]"


def difference(found: list[Found], plain: list[Found], row: str) -> Interval:
    """Return the difference of a row in percent, paired by query, each the mean over the seeds, and its interval."""
    pairs = [(one["queries"][row], two["queries"][row]) for one, two in zip(found, plain, strict=True)]
    return bootstrap([float(np.mean([100 * (one[name] - two[name]) for one, two in pairs])) for name in pairs[0][1]])


if __name__ == "__main__":
    main()
