"""What does learned re-ranking gain? One ranking, whose first images every re-ranker puts in order anew.

    python benchmarks/learned_reranking.py HALF --local F --whole G --photos PHOTOS [--base local|whole] [--images 50]
        [--rrt A.safetensors,B.safetensors] [--cvnet C.safetensors] [--side 384] [--cache FILE]

HALF has a ground truth, `gnd.json` of `benchmarks/halves.py`; F and G are feature sets of local features and of global
descriptors of its photographs. The base ranking is by ASMK over F or by inner products of G. With several networks of a
kind, each is one seed of training; seed i also has codebook i. The methods are

    none         no re-ranking
    places       `--rerank 50`
    descriptors  `--rerank 50 --rerank-by descriptors`
    both         `--rerank 50 --rerank-by both`
    gv           `--reranker gv`
    rrt          `--reranker rrt`: the logit alone decides
    cvnet        `--reranker cvnet`: half of its score is added to that of the search, which CVNet takes for a cosine
    rrt+, cvnet+ the score of the search, divided by the second one, and a tenth of the logit, or the score of cvnet

Each has a line: mAP of each row of the protocol, means over the seeds; differences of Medium and Hard from no
re-ranking with their 95 % bootstrap intervals over the queries; milliseconds of the processor for a pair, its
features or photographs at hand; bytes of an image that the method reads besides the index. `--plot FILE` draws mAP
(Medium) against milliseconds, with the bytes as the area of the marks.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from reranking import PLACE_BYTES, ROWS, STORED_PLACE_BYTES, gain, means

from asmk_engine import Codebook, FeatureSet, GlobalIndex, GlobalSearcher, Index, Searcher
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.evaluation.model import GroundTruth
from asmk_engine.evaluation.names import resolve
from asmk_engine.flat.codec import CodecOptions
from asmk_engine.flat.codec_training import train_codec
from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.indexes.answers import Hit
from asmk_engine.indexes.searcher import RerankingSearcher
from asmk_engine.networks.reranking.transformer_pairs import PairTransformer
from asmk_engine.reranking.affine_ransac_scorer import AffineRansacScorer, by_inliers
from asmk_engine.reranking.cvnet import CvnetScorer, CvnetScoring
from asmk_engine.reranking.described import Kinds, PairImages
from asmk_engine.reranking.evaluation import evaluate_reranked
from asmk_engine.reranking.ranking import PairReranker, PairReranking
from asmk_engine.reranking.transformer_scorer import TransformerScorer, by_logits
from asmk_engine.search.evaluation import evaluate_index
from asmk_engine.search.query_features import query_source
from asmk_engine.verification.reranking import Reranking

KINDS = Kinds(0, 1)
WEIGHT_FREE = {"places": Reranking, "descriptors": Reranking.by_descriptors, "both": Reranking.by_both}
TIMED = 5  # queries
SUM_WEIGHTS = {"rrt+": 0.1, "cvnet+": 1.0}
Found = dict[str, Any]


@dataclass
class Bench:
    """One seed: the base ranking and where the re-rankers find features and photographs."""

    options: argparse.Namespace
    seed: int
    folder: Path

    @cached_property
    def index(self) -> Any:
        """The ASMK index of the local features, with the codebook of this seed."""
        found = FeatureSet.open(self.options.local)
        codebook = Codebook.train(
            found, self.options.words, seed=self.seed, rounds=6, training_per_word=60, assignment="exact"
        )
        index = Index.create(self.folder / "local.index", codebook)
        index.add(found)
        return index

    @cached_property
    def whole(self) -> Any:
        """The index of the global descriptors."""
        found = FeatureSet.open(self.options.whole)
        index = GlobalIndex.create(self.folder / "whole.index", train_codec(found, CodecOptions()))
        index.add(found)
        return index

    @cached_property
    def ground_truth(self) -> GroundTruth:
        """The queries, with the names of the index."""
        return resolve(read_ground_truth(self.options.half / "gnd.json"), self.index.names).ground_truth

    @cached_property
    def queries(self) -> dict[str, FusedFeatures]:
        """Local features and global descriptor of each query, of its region."""
        local, whole = query_source(self.index), query_source(self.whole)
        return {
            query.name: FusedFeatures(
                (local.ground_truth_features(query.name, query.box), whole.ground_truth_features(query.name, query.box))
            )
            for query in self.ground_truth.queries
        }

    @cached_property
    def images(self) -> PairImages:
        """Features of the images that are compared, kept in memory."""
        local, whole = FeatureSet.open(self.options.local), FeatureSet.open(self.options.whole)
        kept: dict[str, FusedFeatures] = {}

        def named(name: str, box: Any) -> FusedFeatures:
            if name not in kept:
                kept[name] = FusedFeatures((local.read(name), whole.read(name)))
            return kept[name]

        return PairImages(lambda name, box: self.queries[name], named)

    def searcher(self) -> Any:
        """Return what makes the base ranking, with one thread."""
        by_local = self.options.base == "local"
        return Searcher(self.index, threads=1) if by_local else GlobalSearcher(self.whole, threads=1)

    def asked(self, name: str) -> Any:
        """Return the features of a query for the base ranking."""
        return self.queries[name].parts[0 if self.options.base == "local" else 1]


def main() -> None:
    """Parse the arguments, evaluate with every seed, and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("half", type=Path)
    parser.add_argument("--local", type=Path, required=True)
    parser.add_argument("--whole", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--base", choices=("local", "whole"), default="local")
    parser.add_argument("--words", type=int, default=4096)
    parser.add_argument("--images", type=int, default=50)
    for name in ("rrt", "cvnet"):
        parser.add_argument(f"--{name}", default="", help="network files, one for each seed, with commas")
    parser.add_argument("--side", type=int, default=384, help="longer side of photographs for cvnet")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, help="a file that keeps what was measured")
    parser.add_argument("--plot", type=Path, help="a picture of the table: PNG, SVG or PDF")
    options = parser.parse_args()
    cache: Found = json.loads(options.cache.read_text()) if options.cache and options.cache.exists() else {}
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            evaluate_seed(Bench(options, seed, Path(folder)), cache.setdefault(str(seed), {}))
        if options.cache:
            options.cache.write_text(json.dumps(cache))
    for name in cache["0"]:
        if all(name in measured for measured in cache.values()):
            print(line(name, list(cache.values())))
    if options.plot:
        draw(options.plot, list(cache.values()), options.images)


def evaluate_seed(bench: Bench, measured: Found) -> None:
    """Measure what is not measured yet, method by method."""
    for name, rerank in methods(bench).items():
        if name not in measured:
            measured[name] = evaluated(bench, name, rerank())
            print(f"seed {bench.seed}: {name} {means([measured[name]])}", flush=True)


def methods(bench: Bench) -> dict[str, Callable[[], Any]]:
    """Return what makes the searcher or the re-ranker of each method of this seed."""
    options, images = bench.options, bench.options.images
    found: dict[str, Callable[[], Any]] = {"none": bench.searcher}
    if options.base == "local":
        for name, rule in WEIGHT_FREE.items():
            found[name] = lambda rule=rule: RerankingSearcher(bench.searcher(), rule(images))
    found["gv"] = lambda: PairReranker(AffineRansacScorer(bench.images, KINDS, threads=1), by_inliers(images))
    if network := network_of(options.rrt, bench.seed):
        found["rrt"] = lambda: PairReranker(transformer_scorer(bench, network), by_logits(images))
        found["rrt+"] = lambda: PairReranker(transformer_scorer(bench, network), summed("rrt+", images))
    if compared := network_of(options.cvnet, bench.seed):
        found["cvnet"] = lambda: PairReranker(cvnet_scorer(bench, compared), PairReranking(images))
        found["cvnet+"] = lambda: PairReranker(cvnet_scorer(bench, compared), summed("cvnet+", images))
    return found


def summed(name: str, images: int) -> PairReranking:
    """Return the rule of a method that adds both scores."""
    return PairReranking(images, SUM_WEIGHTS[name])


@dataclass(frozen=True)
class ByBest:
    """A searcher whose scores are divided by the second, the best one beside that of the query itself."""

    searcher: Any

    def search(self, query: Any, top: int | None) -> list[Hit]:
        """Return the hits with their new scores."""
        hits = self.searcher.search(query, top)
        best = hits[1].score if len(hits) > 1 else 1.0  # the query is indexed too
        return [replace(hit, score=hit.score / best) for hit in hits]


def network_of(names: str, seed: int) -> str:
    """Return the file of a seed; empty if there is none."""
    files = names.split(",")
    return files[seed] if seed < len(files) else ""


def transformer_scorer(bench: Bench, network: str) -> TransformerScorer:
    """Return the scorer of a transformer; scales are those of a stride of 16 pixels, as `train-rrt` takes them."""
    return TransformerScorer(PairTransformer(network, "cpu"), bench.images, KINDS)


def cvnet_scorer(bench: Bench, network: str) -> CvnetScorer:
    """Return the scorer of a network that keeps the levels of all photographs in 8 bits."""
    scoring = CvnetScoring(Path(network), bench.options.side, bench.folder / "levels")
    return CvnetScorer(scoring, lambda name: bench.options.photos / name)


def evaluated(bench: Bench, name: str, made: Any) -> Found:
    """Search with a searcher, or re-rank by a re-ranker; returns mAP of each query and row, and what a pair costs."""
    spent: list[float] = []
    if isinstance(made, PairReranker):
        searcher = ByBest(bench.searcher()) if name in SUM_WEIGHTS else bench.searcher()
        report = evaluate_reranked(bench.ground_truth, searcher, lambda query: bench.asked(query.name), reranker=made)
        spent = [pair_seconds(bench, made, query) for query in bench.ground_truth.queries[:TIMED]]
    else:
        report = evaluate_index(bench.ground_truth, made, lambda query: bench.asked(query.name))
        spent = [search_seconds(bench, made, query.name) for query in bench.ground_truth.queries[:TIMED]]
    return {
        "queries": {row: report.per_query[row] for row in ROWS},
        "ms": 1e3 * float(np.median(spent)),
        "bytes": bytes_of(bench, name),
    }


def pair_seconds(bench: Bench, reranker: PairReranker, query: Any) -> float:
    """Return the seconds of the processor that a pair takes."""
    hits = bench.searcher().search(bench.asked(query.name), bench.options.images)
    begin = time.process_time()
    reranker.rerank(query.name, query.box, hits)
    return (time.process_time() - begin) / len(hits)


def search_seconds(bench: Bench, searcher: Any, query: str) -> float:
    """Return the seconds of the processor that a search takes beyond the base, for each image that is compared."""
    begin = time.process_time()
    searcher.search(bench.asked(query), bench.options.images)
    middle = time.process_time()
    bench.searcher().search(bench.asked(query), bench.options.images)
    return max(0.0, 2 * middle - begin - time.process_time()) / bench.options.images


def bytes_of(bench: Bench, name: str) -> float:
    """Return the bytes of an image that a method reads besides the index of the base."""
    local, whole = FeatureSet.open(bench.options.local), FeatureSet.open(bench.options.whole)
    features = float(np.mean([len(local.read(one)) for one in local.names[::10]]))
    if name == "places":
        return features * (local.dim / 8 + PLACE_BYTES)
    if name.startswith("cvnet"):
        files = [one.stat().st_size for one in (bench.folder / "levels").rglob("*") if one.is_file()]
        return float(np.mean(files)) if files else 0.0
    each = {
        "descriptors": 2 * local.dim,
        "both": 2 * local.dim + STORED_PLACE_BYTES,
        "gv": 2 * local.dim + STORED_PLACE_BYTES,
        "rrt": 2 * local.dim + 4,
        "rrt+": 2 * local.dim + 4,
    }
    return features * each.get(name, 0) + (4 * whole.dim if name.startswith("rrt") else 0)


def line(name: str, seeds: list[Found]) -> str:
    """Return the line of a method."""
    found = [seed[name] for seed in seeds]
    gains = "  ".join(gain(found, [seed["none"] for seed in seeds], row) for row in ROWS[1:])
    spent, size = (np.mean([one[key] for one in found]) for key in ("ms", "bytes"))
    return f"{name:<12} {means(found)}  {gains}  {spent:.2f} ms a pair  {size:.0f} bytes"


def draw(path: Path, seeds: list[Found], images: int) -> None:
    """Draw mAP (Medium) against the milliseconds of a query, with bytes as areas."""
    from matplotlib.figure import Figure

    figure = Figure((7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    points = sorted((point(name, seeds, images) for name in seeds[0]), key=lambda one: -one[2])
    for place, (name, spent, mean, reach, size) in enumerate(points):
        below = any(abs(math.log10(spent / one[1])) < 0.2 and one[2] - mean < 4 for one in points[:place])
        axes.errorbar(spent, mean, [[reach[0]], [reach[1]]], color="#57606a", linewidth=1, zorder=1)
        axes.scatter(spent, mean, 20 + size / 1000, zorder=2)
        offset, side = ((-12, -10), "right") if below else ((10, 6), "left")
        axes.annotate(name, (spent, mean), offset, textcoords="offset points", ha=side)
    axes.margins(x=0.1, y=0.08)
    axes.set_xscale("log")
    axes.set_xlabel(f"milliseconds of one processor to rank {images} images anew")
    axes.set_ylabel("mAP, Medium, of the unseen half")
    axes.grid(alpha=0.3)
    axes.set_title("Means and range of the seeds; area: bytes of an image that are read", fontsize=10)
    figure.savefig(path, dpi=150)


def point(name: str, seeds: list[Found], images: int) -> tuple[str, float, float, tuple[float, float], float]:
    """Return a method, its milliseconds, its mean mAP, how far the seeds are below and above it, and its bytes."""
    found = [seed[name] for seed in seeds]
    each = [100 * float(np.mean(list(one["queries"]["medium"].values()))) for one in found]
    mean = float(np.mean(each))
    reach = max(0.0, mean - min(each)), max(0.0, max(each) - mean)
    spent, size = (float(np.mean([one[key] for one in found])) for key in ("ms", "bytes"))
    return name, max(images * spent, 0.5), mean, reach, size


if __name__ == "__main__":
    main()
