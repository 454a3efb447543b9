"""How fast does the drop-in for `asmk` build an inverted file, and how close is exact assignment to a product alone?

    python benchmarks/dropin.py --data DIR [--words 16384] [--descriptors 900] [--images 16] [--small]

exact_images_per_second, graph_images_per_second   `build_ivf`, one word for each descriptor
assignment_over_product   what a product of matrices takes over what exact assignment of the same images takes; above 1
                          the assignment is the faster
build_over_product        the same for all of `build_ivf`
The product is that of numpy, image by image, of all words and the descriptors of the image, on all processors, into
memory that is there already. Medians of alternating rounds. Words and descriptors are those of `assignment.py`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from assignment import prepare
from timing import alternate, medians, show

from asmk_engine.compat.asmk_method import ASMKMethod
from asmk_engine.compat.codebook import Codebook
from asmk_engine.compat.index import FaissL2Index
from asmk_engine.threads import available_threads

PAUSE = 0.1  # after a large product the threads of OpenBLAS spin for a while, in nobody's service
STEP: dict[str, Any] = {
    "kernel": {"binary": True},
    "ivf": {"use_idf": False},
    "quantize": {"multiple_assignment": 1},
    "aggregate": {},
}


def method_of(centroids: np.ndarray, assignment: str) -> tuple[ASMKMethod, float]:
    """The method after its first step, with these words, and the seconds that making them searchable took."""
    codebook = Codebook(FaissL2Index(assignment=assignment), size=len(centroids))
    codebook.centroids = centroids
    begun = time.perf_counter()
    codebook.index()
    return ASMKMethod({"build_ivf": STEP}, {}, codebook=codebook), time.perf_counter() - begun


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="where the words are kept")
    parser.add_argument("--words", type=int, default=16_384)
    parser.add_argument("--descriptors", type=int, default=900, help="of an image")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--small", action="store_true", help="2048 words, for a try in seconds")
    arguments = parser.parse_args()
    engine, drawn, _ = prepare(arguments.data, None, 2048 if arguments.small else arguments.words)
    images, each = arguments.images, arguments.descriptors
    descriptors = np.resize(drawn, (images * each, drawn.shape[1]))
    ids, centroids = np.repeat(np.arange(images), each), engine.centroids
    written = np.empty((each, len(centroids)), np.float32)
    exact, graph = (method_of(centroids, assignment) for assignment in ("exact", "graph"))

    def multiply() -> None:
        for begin in range(0, len(descriptors), each):
            np.matmul(descriptors[begin : begin + each], centroids.T, out=written)

    pause = {"pause": lambda: time.sleep(PAUSE)}
    tasks = {
        "product": multiply,
        **pause,
        "assignment": lambda: exact[0].codebook.quantize(descriptors),
        "build": lambda: exact[0].build_ivf(descriptors, ids),
        "graph": lambda: graph[0].build_ivf(descriptors, ids),
    }
    median = medians(alternate(tasks, 3 if arguments.small else arguments.rounds))
    same = exact[0].codebook.quantize(descriptors)[1] == graph[0].codebook.quantize(descriptors)[1]
    result = {
        "exact_images_per_second": images / median["build"],
        "graph_images_per_second": images / median["graph"],
        "assignment_over_product": median["product"] / median["assignment"],
        "build_over_product": median["product"] / median["build"],
        "product_gflops": 2 * written.size * drawn.shape[1] * images / median["product"] / 1e9,
        "graph_recall": float(same.mean()),
        "graph_build_s": graph[1],
        "words": len(centroids),
        "descriptors": each,
        "images": images,
        "threads": available_threads(),
    }
    show(result, "medians of alternating rounds")


if __name__ == "__main__":
    main()
