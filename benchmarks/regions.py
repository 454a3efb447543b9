"""What do regions gain? ASMK, R-ASMK and D2R-ASMK with grids, on one feature set, paired by query.

    python benchmarks/regions.py FEATURES gnd.json [--codebook how-efficientnet-lite0] [--levels 1,2,3] [--seed 0]

Every image is assigned to words once. `undivided` is ASMK whose scores are divided by no number of words, as those of
R-ASMK are not. A line has the mAP in percent of all positives (Medium), its difference from ASMK with the 95 %
bootstrap interval over the queries, and the number of postings. Indexes are in temporary folders.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine import FeatureSet, Index, Searcher, Signature
from asmk_engine.codebooks import Codebook
from asmk_engine.evaluation.metrics import average_precision, ranks_without
from asmk_engine.features import Features
from asmk_engine.inverted.regional import Regional, signatures_of
from asmk_engine.inverted.signatures import AssignedFeatures, assigned, make_signature
from asmk_engine.pipeline.codebook_training import opened_codebook
from asmk_engine.regions.options import MODES, RegionOptions
from asmk_engine.regions.proposals import region_boxes
from asmk_engine.storage.user_files import read_file

DRAWS = 2000
Truth = dict[str, Any]
Ways = dict[str, RegionOptions | None]
UNDIVIDED = "undivided"


def main() -> None:
    """Parse the arguments, index, search, and print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("ground_truth", type=Path)
    parser.add_argument("--codebook", default="how-efficientnet-lite0")
    parser.add_argument("--levels", default="1,2,3")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    truth = json_of(options.ground_truth)
    ways: Ways = {"asmk": None, UNDIVIDED: RegionOptions("aggregate", 1)}
    for levels in map(int, options.levels.split(",")):
        ways |= {f"{mode}, grid of {levels}": RegionOptions(mode, levels) for mode in MODES}
    with tempfile.TemporaryDirectory() as folder:
        book = opened_codebook(options.codebook)
        indexes, queries = indexed(FeatureSet.open(options.features), book, truth, ways, Path(folder))
        report({way: precisions(index, queries, truth) for way, index in indexes.items()}, indexes, options.seed)


def json_of(path: Path) -> Truth:
    """Return the ground truth in JSON with `imlist` and `queries`."""
    content: Truth = json.loads(read_file(path, "a ground truth", 1 << 30))
    return content


def indexed(
    features: FeatureSet, book: Codebook, truth: Truth, ways: Ways, folder: Path
) -> tuple[dict[str, Index], dict[str, Signature]]:
    """Return an index of each way, and the signatures of the queries."""
    indexes = {way: Index.create(folder / way, book, regions=regions) for way, regions in ways.items()}
    rows: dict[str, list[tuple[str, Regional]]] = {way: [] for way in ways}
    asked, queries = {query["query"] for query in truth["queries"]}, {}
    for name, image in features.images(truth["imlist"]):
        known = assigned(image, book, 1)
        if name in asked:
            queries[name] = Searcher(indexes["asmk"]).sign(image)
        for way, regions in ways.items():
            rows[way].append((name, entries(way, name, image, known, regions, book)))
    for way, index in indexes.items():
        index.add_signatures(rows.pop(way))
    return indexes, queries


def entries(
    way: str, name: str, image: Features, known: AssignedFeatures, regions: RegionOptions | None, book: Codebook
) -> Regional:
    """Return the signatures of an image."""
    if regions is None or way == UNDIVIDED:
        return [make_signature(known.projected, known.words, book)]
    return signatures_of(known, region_boxes(name, image, regions, None), book, regions.mode)


def precisions(index: Index, queries: dict[str, Signature], truth: Truth) -> np.ndarray:
    """Return the average precision of each query that has positives; the query itself is junk."""
    searcher, found = Searcher(index), []
    for query in truth["queries"]:
        ranked = [hit.name for hit in searcher.search(queries[query["query"]], top=None)]
        junk = {query["query"], *query["junk"]}
        positives = {*query["easy"], *query["hard"]} - junk
        places, taken_out = (
            [place for place, name in enumerate(ranked) if name in names] for names in (positives, junk)
        )
        if positives:
            found.append(average_precision(ranks_without(places, taken_out), len(positives)))
    return np.array(found)


def report(found: dict[str, np.ndarray], indexes: dict[str, Index], seed: int) -> None:
    """Print a line for each way."""
    count = len(found["asmk"])
    drawn = np.random.default_rng(seed).integers(0, count, (DRAWS, count))
    for way, values in found.items():
        difference = 100 * (values - found["asmk"])
        low, high = np.percentile(difference[drawn].mean(axis=1), [2.5, 97.5])
        print(
            f"{way:24} {100 * values.mean():6.2f} of {count}  {difference.mean():+.2f} [{low:+.2f}, {high:+.2f}]"
            f"  {indexes[way].postings} postings"
        )


if __name__ == "__main__":
    main()
