"""How many bytes does a posting take, on disk and in the heap of a searching process?

    python benchmarks/memory.py --data DIR [--small]

Counts all files of the index folder except the codebook, including names of 20 characters. The heap is the growth of
the private memory (anonymous pages) of the process from before opening the index to after ten queries.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import synthetic
from timing import show

from asmk_engine.maintenance.description import describe

_CHILD = """
import json, sys
from pathlib import Path
import synthetic
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher

def heap():
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(fields["RssAnon"].split()[0]) / 1024

queries = synthetic.queries(10, int(sys.argv[2]), int(sys.argv[3]))
before = heap()
searcher = Searcher(Index.open(sys.argv[1]))
for query in queries:
    searcher.search(query, 100)
print(json.dumps(heap() - before))
"""


def main() -> None:
    """Parse the arguments, measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--small", action="store_true", help="20 000 images and 4096 words, for a trial in seconds")
    arguments = parser.parse_args()
    images, words = (20_000, 4096) if arguments.small else (arguments.images, synthetic.WORDS)
    index = synthetic.open_index(arguments.data, images, words)
    found = describe(index.path)
    command = [sys.executable, "-c", _CHILD, str(index.path), str(min(1500, words // 4)), str(words)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent).stdout
    show(
        {
            "images": images,
            "postings": found["postings"],
            "bytes_per_posting": found["bytes_per_posting"],
            "id_bytes_per_posting": found["id_bytes_per_posting"],
            "heap_mb": json.loads(output),
        }
    )


if __name__ == "__main__":
    main()
