"""How close is searching a global index to the time of one matrix product?

    python benchmarks/flat.py --data DIR [--images 100000] [--dim 2048] [--small]

The limit is the product in numpy of the same queries with the same vectors in memory, which is bound by memory for one
query, and by arithmetic for many. A search finds the best hundred, and recomputes their scores exactly. Half precision
and product quantisation are compared with the same limit, one query in single precision.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
from timing import alternate, medians, show

from asmk_engine.flat import Codec, GlobalIndex, GlobalSearcher
from asmk_engine.flat.segment import VectorContents
from asmk_engine.recipes import Recipe
from asmk_engine.threads import available_threads

TOP = 100
MANY = 64
CHUNK = 8192
RECIPE = Recipe("gem", {"benchmark": True})


def codecs(dim: int) -> dict[str, Codec]:
    """Return a codec of each precision; centroids are random, since their values do not affect the time."""
    centroids = np.random.default_rng(1).normal(size=(dim // 8, 256, 8), scale=dim**-0.5).astype(np.float32)
    return {
        "single": Codec(RECIPE, dim),
        "half": Codec(RECIPE, dim, "half"),
        "product": Codec(RECIPE, dim, "product", centroids=centroids),
    }


def made(data: Path, name: str, codec: Codec, images: int) -> GlobalIndex:
    """Open an index of random vectors, building it if it does not exist."""
    path = data / f"flat-v1-{name}-{images}x{codec.dim}.index"
    if path.exists() and GlobalIndex.open(path).images == images:
        return GlobalIndex.open(path)
    shutil.rmtree(path, ignore_errors=True)
    index, rng = GlobalIndex.create(path, codec), np.random.default_rng(0)
    for begin in range(0, images, CHUNK):
        count = min(CHUNK, images - begin)
        names = [f"image {number:07d}.jpg".encode() for number in range(begin, begin + count)]
        index.add_vectors(VectorContents(names, np.zeros(count, np.uint64), drawn(codec, count, rng)))
    index.merge()
    return index


def drawn(codec: Codec, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw random unit vectors as stored, or random codes."""
    if codec.precision == "product":
        return rng.integers(0, 256, (count, codec.width), np.uint8)
    vectors = rng.standard_normal((count, codec.dim), np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(codec.dtype)


def main() -> None:
    """Parse the arguments, measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--small", action="store_true", help="2000 images of 256 dimensions, for a trial in seconds")
    arguments = parser.parse_args()
    images, dim = (2000, 256) if arguments.small else (arguments.images, arguments.dim)
    indexes = {name: made(arguments.data, name, codec, images) for name, codec in codecs(dim).items()}
    searchers = {name: GlobalSearcher(index, device="cpu") for name, index in indexes.items()}
    for index in indexes.values():
        index.preload()
    plain = np.concatenate([np.array(segment.vectors) for segment in indexes["single"].snapshot.segments])
    queries = codecs(dim)["single"].apply(np.random.default_rng(5).standard_normal((MANY, dim), np.float32))
    one = queries[:1]
    best = {name: (lambda searcher=searcher: searcher.nearest(one, TOP)) for name, searcher in searchers.items()}
    tasks = {
        "product_one": lambda: one @ plain.T,
        **best,
        "product_many": lambda: queries @ plain.T,
        "single_many": lambda: searchers["single"].nearest(queries, TOP),
    }
    median = medians(alternate(tasks, 2 if arguments.small else arguments.rounds))
    result = {
        "images": images,
        "dim": dim,
        "threads": available_threads(),
        "product_one_ms": median["product_one"] * 1e3,
        "product_one_gb_per_s": plain.nbytes / median["product_one"] / 1e9,
        "search_one_ms": median["single"] * 1e3,
        "share_of_bandwidth": median["product_one"] / median["single"],
        "product_many_gflops": 2 * MANY * plain.size / median["product_many"] / 1e9,
        "search_many_ms_per_query": median["single_many"] * 1e3 / MANY,
        "share_of_arithmetic": median["product_many"] / median["single_many"],
        "half_one_ms": median["half"] * 1e3,
        "product_quantised_one_ms": median["product"] * 1e3,
    }
    show(result, f"the best {TOP}, for one query and for {MANY} together; medians of alternating rounds")


if __name__ == "__main__":
    main()
