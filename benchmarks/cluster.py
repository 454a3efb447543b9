"""What do actors add to the time of a query, on this machine?

    python benchmarks/cluster.py --data DIR [--images 1000000] [--actors 1,2,4,8] [--queries 40] [--small]

The same index is searched in this process and in shards, one actor of a local Ray cluster for each, with the same
threads in all: the processors of this machine. The queries are signatures, so that no descriptor is assigned to words.
They are asked one by one, in turns, and the median counts. The shards are kept in DIR. The last line is that of the
most actors.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import ray
import synthetic
from timing import alternate, show

from asmk_engine.cluster.ray_hosts import RayHosts
from asmk_engine.cluster.search_options import HostingOptions
from asmk_engine.cluster.searching import open_on_cluster
from asmk_engine.inverted.search import Searcher
from asmk_engine.sharding.hosted_index import HostedIndex
from asmk_engine.sharding.layout import shard_index
from asmk_engine.sharding.manifest import is_sharded
from asmk_engine.sharding.search import ShardedSearcher

TOP = 100
QUERY_WORDS = 3281
"""Those of a photograph of 1000 descriptors, each assigned to five words, as in query.py."""


def sharded(path: Path, shards: int) -> Path:
    """Return the folder of the index in so many shards, made if it is not there."""
    home = path.with_suffix(f".{shards}.shards")
    if not is_sharded(home):
        shard_index(path, home, shards)
    return home


def measured(searcher: Searcher, index: HostedIndex, queries: list[Any]) -> dict[str, Any]:
    """Return the medians of single queries in both, and whether all answers are equal."""
    scattered = ShardedSearcher(index)
    equal = scattered.search(queries, TOP) == searcher.search(queries, TOP)
    local, apart = [], []
    for query in queries:
        tasks = {"local": partial(searcher.search, query, TOP), "sharded": partial(scattered.search, query, TOP)}
        seconds = alternate(tasks, 3)
        local.append(statistics.median(seconds["local"]))
        apart.append(statistics.median(seconds["sharded"]))
    pair = 1000 * statistics.median(local), 1000 * statistics.median(apart)
    return {
        "images": index.images,
        "shards": len(index.snapshot.pinned),
        "local_ms": pair[0],
        "sharded_ms": pair[1],
        "overhead_ms": pair[1] - pair[0],
        "equal": equal,
    }


def main() -> None:
    """Parse the arguments, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--actors", default="1,2,4,8")
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--small", action="store_true", help="20 000 images and 4096 words, for a trial")
    arguments = parser.parse_args()
    images, words = (20_000, 4096) if arguments.small else (arguments.images, synthetic.WORDS)
    index = synthetic.open_index(arguments.data, images, words)
    index.preload()
    queries: list[Any] = list(synthetic.queries(arguments.queries, min(QUERY_WORDS, words // 4), words))
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    quiet: Any = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.CRITICAL}
    ray.init("local", object_store_memory=200_000_000, **quiet)  # never a cluster that happens to run here
    for shards in map(int, arguments.actors.split(",")):
        hosted = open_on_cluster(sharded(index.path, shards), options=HostingOptions(deadline=600))
        show(measured(Searcher(index), hosted, queries))
        if isinstance(hosted.hosts, RayHosts):
            hosted.hosts.close()
    ray.shutdown()


if __name__ == "__main__":
    main()
