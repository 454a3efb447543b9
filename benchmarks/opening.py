"""How long does a new process take to open an index, and to answer the first query?

    python benchmarks/opening.py --data DIR [--small]

Every measurement runs in a new process. Cold means an empty cache of compiled kernels; kernels are compiled when they
are imported, so the first cold query includes the extra import time over a warm cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import synthetic
from timing import show

_CHILD = """
import json, sys, time
import numpy, numba, h5py
loading = time.perf_counter()
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
loaded = time.perf_counter()
import synthetic
begun = time.perf_counter()
index = Index.open(sys.argv[1])
opened = time.perf_counter()
query, later = synthetic.queries(2, int(sys.argv[2]), int(sys.argv[3]))
drawn = time.perf_counter()
searcher = Searcher(index)
searcher.search(query, 100)
first = time.perf_counter()
searcher.search(later, 100)
print(json.dumps([opened - begun, first - drawn, time.perf_counter() - first, loaded - loading]))
"""


def measure(path: Path, query_words: int, words: int, cache: str) -> list[float]:
    """Measure the seconds to open, to answer two queries, and to import, in a new process with this kernel cache."""
    command = [sys.executable, "-c", _CHILD, str(path), str(query_words), str(words)]
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    here = Path(__file__).parent
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=here, env=environment).stdout
    seconds: list[float] = json.loads(output)
    return seconds


def main() -> None:
    """Parse the arguments, measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="20 000 images and 4096 words, for a trial in seconds")
    arguments = parser.parse_args()
    images, words = (20_000, 4096) if arguments.small else (arguments.images, synthetic.WORDS)
    path = synthetic.open_index(arguments.data, images, words).path
    query_words = min(1500, words // 4)
    with tempfile.TemporaryDirectory() as cache:
        cold = measure(path, query_words, words, cache)
        warm = [measure(path, query_words, words, cache) for _ in range(arguments.rounds)]
    opening, first, later, importing = (statistics.median(column) for column in zip(*warm, strict=True))
    show(
        {
            "images": images,
            "seconds": opening,
            "first_query_cold_s": cold[1] + cold[3] - importing,
            "first_query_warm_s": first,
            "later_query_s": later,
            "import_warm_s": importing,
        },
        "the pages of the index are in memory; medians, except cold",
    )


if __name__ == "__main__":
    main()
