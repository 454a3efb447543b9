"""What does a learned re-ranker of mutual neighbours gain over the sum without weights, on things it has not seen?

    python benchmarks/set_reranking.py HALVES --kinds deep,rootsift --work DIR [--self-made 500] [--seeds 3]
        [--epochs 20] [--rate 2e-3] [--penalty 3] [--dim 16] [--layers 1]

HALVES is of `halves.py`, with a feature set HALVES/train/KIND.features and HALVES/test/KIND.features of each kind. The
first 50 images of each ranking are compared with the query. A network (`set_network.py`) sees the mutual neighbours of
a pair and what `--rerank-by both` found of it, and its number is added to the score of `both`. It is trained on all
kinds at once: on the queries of `train`, on every photograph of an instance there as a query, and with --self-made N on
N views of distractors of each kind, warped, recoloured and in part pasted into others. These need the photographs and
an extractor that can be opened; else a line says that they are left out. The methods are

    none         no re-ranking
    places       `--rerank 50`
    descriptors  `--rerank 50 --rerank-by descriptors`
    both         `--rerank 50 --rerank-by both`
    set          both, and what the network adds

Each has a line for each kind: mAP of `test`, Easy / Medium / Hard, means over the seeds, of which each has its own
codebooks and network; differences of Medium and Hard from no re-ranking with their 95 % bootstrap intervals over the
queries; then `set` against `both` likewise. The last line is JSON. With --epochs 0 `set` is `both`.

DIR keeps indexes, compared rankings and the results without weights, so a run that was stopped goes on; networks are
trained anew. `--small` is a trial in seconds on drawn features, without HALVES.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from halves import HALVES, instance
from reranking import ROWS, difference, means
from set_network import SetNetwork, SetTraining, added_by, parameter_count, train
from set_pairs import DISTRACTORS, IMAGES, RankedPairs, SearchedHalf

from asmk_engine.evaluation.bootstrap import Interval
from asmk_engine.evaluation.model import GroundTruth
from asmk_engine.evaluation.protocol import Evaluator
from asmk_engine.features import Features, FeatureWriter
from asmk_engine.indexes.searcher import RerankingSearcher
from asmk_engine.recipes import Recipe
from asmk_engine.search.evaluation import evaluate_index
from asmk_engine.verification.reranking import Reranking

WEIGHT_FREE = {"places": Reranking, "descriptors": Reranking.by_descriptors, "both": Reranking.by_both}
SMALL_WORDS, SMALL_EPOCHS = 16, 2
Found = dict[str, Any]


def main() -> None:
    """Parse the arguments, evaluate with every seed, and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("halves", type=Path, nargs="?")
    parser.add_argument("--kinds", default="deep,rootsift", help="names of feature sets")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps indexes and compared rankings")
    parser.add_argument("--self-made", type=int, default=0, help="views of distractors of each kind to train on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--words", type=int, default=4096)
    defaults = SetTraining()
    for name in ("epochs", "dim", "layers"):
        parser.add_argument(f"--{name}", type=int, default=None if name == "epochs" else getattr(defaults, name))
    for name in ("rate", "penalty"):
        parser.add_argument(f"--{name}", type=float, default=getattr(defaults, name))
    parser.add_argument("--small", action="store_true", help="a trial in seconds")
    options = parser.parse_args()
    if not (options.small or options.halves):
        parser.error("give HALVES, or --small")
    options.work.mkdir(parents=True, exist_ok=True)
    if options.small:
        options.words, options.halves = SMALL_WORDS, options.work / "drawn"
        draw_halves(options.halves, options.kinds.split(","))
    if options.epochs is None:
        options.epochs = SMALL_EPOCHS if options.small else defaults.epochs
    torch.set_num_threads(1)
    report(options, [evaluated_seed(options, seed) for seed in range(options.seeds)])


def training_of(options: argparse.Namespace) -> SetTraining:
    """Return how networks are made and trained."""
    return SetTraining(
        dim=options.dim, layers=options.layers, epochs=options.epochs, rate=options.rate, penalty=options.penalty
    )


def evaluated_seed(options: argparse.Namespace, seed: int) -> Found:
    """Return kind → method → mAP of each row and query, with the codebooks and the network of a seed."""
    kinds = options.kinds.split(",")
    train_halves, test_halves = (
        [SearchedHalf(options.halves / half, kind, seed, options.work, options.words) for kind in kinds]
        for half in HALVES
    )
    rankings = taught(train_halves, options.self_made) if options.epochs else []
    network = train(rankings, training_of(options), seed)
    return {half.kind: evaluated(half, network) for half in test_halves}


def taught(halves: Iterable[SearchedHalf], self_made: int) -> list[RankedPairs]:
    """Return the rankings that a network is trained on."""
    found = []
    for half in halves:
        found += half.pairs("queries", half.queries())
        found += half.pairs("whole", half.whole_images())
        found += half.pairs("self-made", half.self_made(self_made) if self_made else [])
    return found


def evaluated(half: SearchedHalf, network: SetNetwork) -> Found:
    """Return method → mAP of each row and query."""
    found = weight_free(half)
    rankings = half.pairs("queries", half.queries())
    found["set"] = {"queries": evaluated_rankings(half.ground_truth, network, rankings)}
    print(f"seed {half.seed}, {half.kind}: {'; '.join(f'{name} {means([found[name]])}' for name in found)}", flush=True)
    return {**found, "parameters": parameter_count(network)}


def weight_free(half: SearchedHalf) -> Found:
    """Evaluate the methods that learn nothing, by the searchers of the package, or read what was kept."""
    path = half.work / f"{half.title}.json"
    if path.exists():
        kept: Found = json.loads(path.read_text())
        return kept
    found: Found = {}
    for name in ("none", *WEIGHT_FREE):
        searcher: Any = half.searcher
        if name in WEIGHT_FREE:
            searcher = RerankingSearcher(searcher, WEIGHT_FREE[name](IMAGES))
        measured = evaluate_index(half.ground_truth, searcher, half.asked).per_query
        found[name] = {"queries": {row: measured[row] for row in ROWS}}
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(found))
    unfinished.replace(path)
    return found


def evaluated_rankings(ground_truth: GroundTruth, network: SetNetwork, rankings: Iterable[RankedPairs]) -> Found:
    """Return the mAP of each row and query of rankings to which a network adds its numbers."""
    evaluator = Evaluator(ground_truth)
    for one in rankings:
        evaluator.add(one.query, one.ranking(added_by(network, one)))
    measured = evaluator.report().per_query
    return {row: measured[row] for row in ROWS}


def report(options: argparse.Namespace, seeds: list[Found]) -> None:
    """Print a line for each kind and method, and the same as JSON."""
    result: Found = {}
    for kind in options.kinds.split(","):
        of_kind: Found = {"parameters": seeds[0][kind]["parameters"]}
        for method in ("none", *WEIGHT_FREE, "set"):
            found = [seed[kind][method] for seed in seeds]
            of_kind[method] = [100 * mean_of(found, row) for row in ROWS]
            print(f"{kind:<10} {method:<12} {means(found)}  {told(against(seeds, kind, method, 'none'))}".rstrip())
        compared = against(seeds, kind, "set", "both")
        print(f"{kind:<10} set against both  {told(compared)}")
        of_kind["set_against_both"] = {row: [one.mean, one.low, one.high] for row, one in compared.items()}
        result[kind] = of_kind
    print(json.dumps(result))


def mean_of(found: list[Found], row: str) -> float:
    """Return the mAP of a row, mean over the queries and seeds."""
    return float(np.mean([list(one["queries"][row].values()) for one in found]))


def against(seeds: list[Found], kind: str, method: str, other: str) -> dict[str, Interval]:
    """Return how much better a method is than another, Medium and Hard; nothing for one and itself."""
    if method == other:
        return {}
    found, base = ([seed[kind][name] for seed in seeds] for name in (method, other))
    return {row: difference(found, base, row) for row in ROWS[1:]}


def told(differences: dict[str, Interval]) -> str:
    """Return differences as text."""
    return "  ".join(f"{one.mean:+.1f} [{one.low:+.1f}, {one.high:+.1f}]" for one in differences.values())


def draw_halves(folder: Path, kinds: Iterable[str]) -> None:
    """Write two halves of drawn features: four instances of four images each, and distractors."""
    for seed, half in enumerate(HALVES):
        names = [f"instance-{number}/{view}.jpg" for number in range(4) for view in range(4)]
        names += [f"{DISTRACTORS}/{number}.jpg" for number in range(16)]
        for place, kind in enumerate(kinds):
            path = folder / half / f"{kind}.features"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_drawn(path, names, seed + 2 * place)
        asked = [
            {"query": f"{one}/0.jpg", "bbox": None, "easy": [f"{one}/1.jpg"], "hard": [f"{one}/2.jpg", f"{one}/3.jpg"],
             "junk": []}
            for one in (f"instance-{number}" for number in range(4))
        ]  # fmt: skip
        (folder / half / "gnd.json").write_text(json.dumps({"imlist": names, "queries": asked}))


def write_drawn(path: Path, names: list[str], seed: int) -> None:
    """Write the features of images that show the points of their instance, moved and turned, among others."""
    draws = np.random.default_rng(seed)
    points = {one: (draws.normal(size=(20, 8)), draws.uniform(50, 350, (20, 2))) for one in map(instance, names)}
    with FeatureWriter(path, Recipe("drawn", {"seed": seed}), 8) as writer:
        for name in names:
            descriptors, places = draws.normal(size=(30, 8)), draws.uniform(0, 400, (30, 2))
            if instance(name) != DISTRACTORS:
                angle, scale = draws.normal(0, 0.2), draws.uniform(0.7, 1.2)
                turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
                descriptors[:14] = points[instance(name)][0][:14] + draws.normal(0, 0.5, (14, 8))
                places[:14] = points[instance(name)][1][:14] @ turn + draws.normal(0, 1, (14, 2))
            keypoints = np.column_stack([places, np.full(30, 8.0)])
            writer.add(name, Features.from_descriptors(descriptors, keypoints, draws.random(30), (400, 400)))


if __name__ == "__main__":
    main()
