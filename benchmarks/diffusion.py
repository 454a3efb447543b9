"""What do diffusion and augmentation gain or lose? Evaluates an index with and without them, query by query.

    python benchmarks/diffusion.py INDEX --ground-truth gnd.json [--options 5,0.6,4 3,0.8,3] [--augmentation 3,0.35 5,1]
        [--rerank 50]

Options are neighbours, alpha and power of diffusion, or neighbours and power of augmentation; several are tried one
after the other, all after re-ranking with --rerank. For each row of the protocol: mAP without and with them, their
difference, its 95 % bootstrap interval over the queries, and how many queries are better or worse; then the
milliseconds of a query, from its features to all images, with one thread. A query that is indexed is no neighbour of
any image in augmentation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asmk_engine import FusedSearcher, GlobalSearcher, Searcher, open_index
from asmk_engine.diffusion import (
    AugmentingSearcher,
    Diffusion,
    DiffusionSearcher,
    NeighbourAugmentation,
    build_neighbours,
)
from asmk_engine.evaluation.bootstrap import bootstrap
from asmk_engine.evaluation.ground_truth import read_ground_truth
from asmk_engine.evaluation.names import resolve
from asmk_engine.evaluation.protocol import Report
from asmk_engine.flat import GlobalIndex
from asmk_engine.fused.index import FusedIndex
from asmk_engine.indexes.searcher import RerankingSearcher
from asmk_engine.search.evaluation import evaluate_index
from asmk_engine.search.query_features import query_source


def main() -> None:
    """Parse the arguments, build the table, evaluate, and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--ground-truth", type=Path, required=True)
    parser.add_argument("--options", type=diffusion, nargs="*", default=[Diffusion()])
    parser.add_argument("--augmentation", type=augmentation, nargs="*", default=[NeighbourAugmentation()])
    parser.add_argument("--rerank", type=int, metavar="K", help="verify the first K images, with and without")
    options = parser.parse_args()
    index: Any = open_index(options.index)
    begin = time.perf_counter()
    table = build_neighbours(index, threads=1)
    print(f"{index.images} images, table of {table.file.size} bytes, built in {time.perf_counter() - begin:.1f} s")
    kinds: Any = {FusedIndex: FusedSearcher, GlobalIndex: GlobalSearcher}
    plain = kinds.get(type(index), Searcher)(index, threads=1)
    source, features = query_source(index), {}
    ground_truth = resolve(read_ground_truth(options.ground_truth), index.names).ground_truth
    for query in ground_truth.queries:
        features[query.name] = source.ground_truth_features(query.name, query.box)

    def measured(searcher: Any) -> Report:
        ranker = RerankingSearcher(searcher, options.rerank) if options.rerank else searcher
        return evaluate_index(ground_truth, ranker, lambda query: features[query.name])

    before, queries = measured(plain), [*features.values()]
    print(f"without: {timed(plain.rank, queries):.1f} ms per query")
    for how in (*options.options, *options.augmentation):
        searcher = DiffusionSearcher(plain, how) if isinstance(how, Diffusion) else AugmentingSearcher(plain, how)
        after = measured(searcher)
        print(f"{how}: {timed(searcher.rank, queries):.1f} ms per query")
        show(before, after)


def diffusion(text: str) -> Diffusion:
    """Read neighbours, alpha and power, such as 5,0.6,4."""
    neighbours, alpha, power = text.split(",")
    return Diffusion(int(neighbours), float(alpha), float(power))


def augmentation(text: str) -> NeighbourAugmentation:
    """Read neighbours and power, such as 3,0.35."""
    neighbours, power = text.split(",")
    return NeighbourAugmentation(int(neighbours), float(power))


def show(before: Report, after: Report) -> None:
    """Print a line for each row of the protocol."""
    for row, found in after.per_query.items():
        changes = [100 * (value - before.per_query[row][name]) for name, value in found.items()]
        interval = bootstrap(changes)
        means = [100 * report.scores[row].mean_average_precision for report in (before, after)]
        better, worse = (sum(sign * change > 1e-9 for change in changes) for sign in (1, -1))
        print(
            f"  {row:<7} {means[0]:6.2f} {means[1]:6.2f}  {interval.mean:+6.2f} [{interval.low:+.2f}, "
            f"{interval.high:+.2f}]  {better} better, {worse} worse of {len(changes)}"
        )


def timed(rank: Callable[[Any], object], queries: list[Any]) -> float:
    """Return the mean milliseconds of a query, of the processor, so that other work does not count."""
    begin = time.process_time()
    for query in queries:
        rank(query)
    return 1000 * (time.process_time() - begin) / len(queries)


if __name__ == "__main__":
    main()
