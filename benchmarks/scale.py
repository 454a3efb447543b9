"""What do 10 million, 100 million and a billion images take on a cluster: hours, memory, latency and cost?

    python benchmarks/scale.py [--images N ...] [--nodes N ...] [--price P] [--seed N] [--markdown]

Nothing is run: the script computes with the constants below, each of which was measured or is assumed, and says which.
It prints each constant, then what the model gives for the points that were measured, beside the measurement, then the
predictions, and last one line with all of them. `--markdown` prints the table of docs/cluster.md instead.

A build is three stages after each other. Their work is divided by the processors; what the process does that writes the
feature set and commits the index is not. Lost nodes are drawn at random: each costs what its processors had in hand,
and the time until its place is filled. A query is signed once and goes to one shard a node; its latency is that of the
slowest, whose times scatter as measured, plus a call for each shard. Both are drawn with a seed.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

HOUR = 3600.0
MONTH_HOURS = 730.0
GIB = float(1 << 30)
QUERIES = 20_000


@dataclass(frozen=True)
class Constant:
    """A number of the model, and where it comes from."""

    value: float
    unit: str
    where: str


MEASURED = {
    "words_per_image": Constant(182, "postings", "docs/benchmarks.md, how-efficientnet-lite0 on 1462 photographs"),
    "synthetic_words": Constant(440, "postings", "benchmarks/synthetic.py, the index of a million images"),
    "posting_bytes": Constant(17.36, "bytes", "docs/benchmarks.md, benchmarks/memory.py, a million images"),
    "words": Constant(65_536, "words", "docs/benchmarks.md, the codebook of the index of a million images"),
    "query_words": Constant(3281, "words", "benchmarks/query.py --images 100000, 1000 descriptors, five words each"),
    "posting_seconds": Constant(2.3e-9, "s", "benchmarks/match.py, one thread"),
    "doubling": Constant(1.73, "times", "benchmarks/match.py, two threads instead of one"),
    "signing_ms": Constant(7.5, "ms", "benchmarks/query.py, the part of a query before its match, two cores"),
    "query_ms": Constant(42, "ms", "benchmarks/query.py, a million images, for the scatter alone"),
    "query_p95_ms": Constant(51, "ms", "benchmarks/query.py, for the scatter alone"),
    "extract_seconds": Constant(2 / 6.1, "core-s", "docs/benchmarks.md, 100 photographs of 1024 x 768, two cores"),
    "index_seconds": Constant(2 / 56, "core-s", "docs/benchmarks.md, benchmarks/build.py, feature set to index"),
    "codebook_seconds": Constant(2 * 11.5 * 60, "core-s", "docs/benchmarks.md, benchmarks/codebook.py, 65 536 words"),
    "codebook_parts": Constant(40, "parts", "cluster/clustering.py: 5.2 million descriptors, 131 072 in a part"),
    "merge_rate": Constant(365e6, "bytes/s", "docs/benchmarks.md, merging, two cores"),
    "segment_postings": Constant(1 << 24, "postings", "inverted/index.py: a segment; eight of a size are merged"),
    "name_bytes": Constant(284, "bytes", "an opened feature set with names of 30 characters, tracemalloc"),
    "call_seconds": Constant(0.65e-3, "s", "processor of the asking process, eight actors, 22 kB sent, 100 hits back"),
}
ASSUMED = {
    "features": Constant(1000, "features", "the most of how-efficientnet-lite0; fewer for small photographs"),
    "feature_bytes": Constant(2 * 128 + 16, "bytes", "half precision, 128 dimensions, place and strength"),
    "network_rate": Constant(1.25e9, "bytes/s", "10 Gbit/s at each node"),
    "disk_rate": Constant(1.0e9, "bytes/s", "a local SSD"),
    "cores": Constant(16, "cores", "a node"),
    "memory": Constant(64 * GIB, "bytes", "a node, of which an index may fill four fifths"),
    "price": Constant(0.80, "$/h", "a node, on demand; give yours with --price"),
    "lost_per_hour": Constant(0.005, "1/h", "chance that a node is lost in an hour"),
    "restart_seconds": Constant(300, "s", "until the place of a lost node is filled"),
    "in_hand": Constant(16, "images", "cluster/image_pool.py: two messages of eight images for each actor"),
    "doublings_linear": Constant(4, "doublings", "the match gains as much at each doubling up to sixteen threads"),
}
IMAGES = (10_000_000, 100_000_000, 1_000_000_000)
NODES = (1, 4, 16, 64, 256)


def constant(name: str) -> float:
    """Return the value of a constant."""
    return (MEASURED | ASSUMED)[name].value


@dataclass(frozen=True)
class Nodes:
    """A cluster of equal nodes; `memory` in bytes, `price` in dollars an hour."""

    count: int
    cores: int = int(ASSUMED["cores"].value)
    memory: float = ASSUMED["memory"].value
    price: float = ASSUMED["price"].value


@dataclass(frozen=True)
class Prediction:
    """What the model gives for a number of images on a cluster.

    fits  whether the index is in memory; else its lists are read from disk
    """

    images: int
    nodes: int
    extract_hours: float
    codebook_hours: float
    index_hours: float
    build_hours: float
    build_cost: float
    index_gb: float
    gb_per_node: float
    fits: bool
    writer_gb: float
    p50_ms: float
    p99_ms: float
    queries_per_second: float
    month_cost: float


def index_bytes(images: int, words_per_image: float) -> float:
    """Return the bytes of an index without its codebook."""
    return images * words_per_image * constant("posting_bytes")


def thread_gain(threads: int) -> float:
    """Return how many times faster than one thread the match is."""
    doublings = min(math.log2(max(1, threads)), constant("doublings_linear"))
    return float(constant("doubling") ** doublings)


def scoring_seconds(images: float, words_per_image: float, threads: int) -> float:
    """Return the seconds in which a query of 1000 descriptors is matched with the postings of its words."""
    postings = constant("query_words") * images * words_per_image / constant("words")
    return postings * constant("posting_seconds") / thread_gain(threads)


def signing_seconds() -> float:
    """Return the seconds of a query that are not its match."""
    return constant("signing_ms") / 1000


def scatter() -> float:
    """Return the standard deviation of the logarithm of latencies, from the measured median and 95th percentile."""
    return math.log(constant("query_p95_ms") / constant("query_ms")) / 1.6449


def with_losses(core_seconds: float, nodes: Nodes, hand_seconds: float, rng: np.random.Generator) -> float:
    """Return the seconds of work on all processors, with nodes lost at random meanwhile."""
    seconds = core_seconds / (nodes.count * nodes.cores)
    lost = int(rng.poisson(constant("lost_per_hour") * nodes.count * seconds / HOUR))
    each = constant("restart_seconds") + hand_seconds
    return seconds + lost * each / nodes.count


def extraction_seconds(images: int, nodes: Nodes, rng: np.random.Generator) -> float:
    """Return the seconds of extraction: of the work, or of the one process that receives and writes the features."""
    hand = constant("in_hand") * constant("extract_seconds")
    work = with_losses(images * constant("extract_seconds"), nodes, hand, rng)
    features = images * constant("features") * constant("feature_bytes")
    arriving = features / constant("network_rate") if nodes.count > 1 else 0.0
    return max(work, arriving, features / constant("disk_rate"))


def codebook_seconds(nodes: Nodes) -> float:
    """Return the seconds of training 65 536 words; a part of the descriptors is one task."""
    return constant("codebook_seconds") / min(nodes.count * nodes.cores, constant("codebook_parts"))


def merge_passes(images: int, words_per_image: float) -> int:
    """Return how often each posting is written again, since eight segments of similar size are joined."""
    segments = images * words_per_image / constant("segment_postings")
    return max(0, int(math.log(max(1.0, segments), 8)))


def indexing_seconds(images: int, words_per_image: float, nodes: Nodes, rng: np.random.Generator) -> float:
    """Return the seconds of indexing: of the work, and of the one writer, which commits and merges segments."""
    work = with_losses(images * constant("index_seconds"), nodes, 300.0, rng)
    size = index_bytes(images, words_per_image)
    writing = size / constant("disk_rate") + merge_passes(images, words_per_image) * size / constant("merge_rate")
    return max(work, writing)


def latencies(images: int, words_per_image: float, nodes: Nodes, rng: np.random.Generator) -> np.ndarray:
    """Return the milliseconds of queries, one at a time, [QUERIES]."""
    shard = images / nodes.count
    scored = scoring_seconds(shard, words_per_image, nodes.cores) + _disk_seconds(shard, words_per_image, nodes)
    slowest = np.exp(scatter() * _greatest_normal(nodes.count, rng))
    signed = signing_seconds() * np.exp(scatter() * rng.normal(size=QUERIES))
    calls = constant("call_seconds") * nodes.count if nodes.count > 1 else 0.0
    return 1000 * (signed + scored * slowest + calls)


def _greatest_normal(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the greatest of so many normal numbers, QUERIES times."""
    return rng.normal(size=(QUERIES, count)).max(axis=1)


def _disk_seconds(images: float, words_per_image: float, nodes: Nodes) -> float:
    """Return the seconds in which a query reads from disk what is not in memory."""
    size = images * words_per_image * constant("posting_bytes")
    absent = max(0.0, 1 - 0.8 * nodes.memory / size)
    read = constant("query_words") * size / constant("words")
    return absent * read / constant("disk_rate")


def predict(images: int, nodes: Nodes, seed: int = 0, words_per_image: float | None = None) -> Prediction:
    """Return the prediction for a number of images on a cluster; the same seed gives the same."""
    words = constant("words_per_image") if words_per_image is None else words_per_image
    rng = np.random.default_rng([seed, images, nodes.count])
    stages = (
        extraction_seconds(images, nodes, rng),
        codebook_seconds(nodes),
        indexing_seconds(images, words, nodes, rng),
    )
    hours = [seconds / HOUR for seconds in stages]
    size, found = index_bytes(images, words), latencies(images, words, nodes, rng)
    core_seconds = signing_seconds() * 2 + scoring_seconds(images, words, 1)
    return Prediction(
        images, nodes.count, *hours, sum(hours), sum(hours) * nodes.count * nodes.price, size / 1e9,
        size / nodes.count / 1e9, size / nodes.count <= 0.8 * nodes.memory, images * constant("name_bytes") / 1e9,
        float(np.median(found)), float(np.quantile(found, 0.99)), nodes.count * nodes.cores / core_seconds,
        nodes.count * nodes.price * MONTH_HOURS,
    )  # fmt: skip


def checks() -> list[dict[str, object]]:
    """Return what the model gives for measured points; one that the model was fitted to says so."""
    points = [
        ("GB of a million images", index_bytes(10**6, 440) / 1e9, 7.6, "benchmarks/README.md", False),
        ("kB of a photograph", index_bytes(1, 182) / 1e3, 3.2, "README.md", False),
        ("ms of a query in batches", 1000 * _batch_seconds(), 31, "benchmarks/query.py", False),
        ("ms of a query of a million images", 1000 * (signing_seconds() + scoring_seconds(1e6, 440, 2)),
         constant("query_ms"), "benchmarks/query.py", False),
        ("minutes of 65 536 words on two cores", codebook_seconds(Nodes(1, 2)) / 60, 11.5, "docs/benchmarks.md", True),
        ("photographs a second on two cores", 2 / constant("extract_seconds"), 6.1, "docs/benchmarks.md", True),
    ]  # fmt: skip
    return [
        {"point": name, "model": round(model, 3), "measured": measured, "where": where, "fitted": fitted}
        for name, model, measured, where, fitted in points
    ]


def _batch_seconds() -> float:
    """Return the seconds of a query among many on two cores, which all are busy all the time."""
    return (signing_seconds() * thread_gain(2) + scoring_seconds(1e6, 440, 1)) / 2


def limits(nodes: Nodes) -> list[dict[str, object]]:
    """Return what breaks, and at how many images on this cluster, first what breaks first."""
    features = constant("features") * constant("feature_bytes")
    rate = min(constant("network_rate"), constant("disk_rate"))
    found = [
        ("the names of a feature set fill the memory of the writer", 0.8 * nodes.memory / constant("name_bytes")),
        ("the index fills the memory of all nodes", 0.8 * nodes.memory * nodes.count / index_bytes(1, 182)),
        ("the features of a day fill the network or disk of the writer", 24 * HOUR * rate / features),
        ("merging takes the one writer a day", _images_of_a_day_of_merging()),
    ]
    return [{"what": what, "images": round(images)} for what, images in sorted(found, key=lambda one: one[1])]


def _images_of_a_day_of_merging() -> float:
    images = 1e6
    while merge_passes(int(images), 182) * index_bytes(int(images), 182) / constant("merge_rate") < 24 * HOUR:
        images *= 1.1
    return images


def table(predictions: Sequence[Prediction]) -> str:
    """Return the predictions as a table of Markdown."""
    heads = [
        "images",
        "nodes",
        "extract h",
        "train h",
        "index h",
        "build $",
        "index GB",
        "GB a node",
        "p50 ms",
        "p99 ms",
    ]
    heads += ["queries/s", "$ a month"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for one in predictions:
        size = f"{one.gb_per_node:,.0f}" + ("" if one.fits else " (disk)")
        cells = [f"{one.images / 1e6:,.0f} M", one.nodes, f"{one.extract_hours:,.1f}", f"{one.codebook_hours:.2f}"]
        cells += [f"{one.index_hours:,.1f}", f"{one.build_cost:,.0f}", f"{one.index_gb:,.0f}", size]
        cells += [
            f"{one.p50_ms:,.0f}",
            f"{one.p99_ms:,.0f}",
            f"{one.queries_per_second:,.1f}",
            f"{one.month_cost:,.0f}",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Parse the arguments, compute, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=list(IMAGES))
    parser.add_argument("--nodes", type=int, nargs="+", default=list(NODES))
    parser.add_argument("--price", type=float, default=ASSUMED["price"].value, help="dollars an hour of a node")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", action="store_true", help="print the table of the documentation")
    arguments = parser.parse_args()
    clusters = [Nodes(count, price=arguments.price) for count in arguments.nodes]
    found = [predict(images, nodes, arguments.seed) for images in arguments.images for nodes in clusters]
    if arguments.markdown:
        print(table(found))
        return
    for kind, constants in (("measured", MEASURED), ("assumed", ASSUMED)):
        for name, one in constants.items():
            print(json.dumps({"constant": name, "value": one.value, "unit": one.unit, kind: one.where}))
    for check in checks():
        print(json.dumps(check))
    for prediction in found:
        print(json.dumps(asdict(prediction)))
    print(
        json.dumps(
            {
                "predictions": [asdict(one) for one in found],
                "checks": checks(),
                "limits": {str(nodes.count): limits(nodes) for nodes in clusters},
            }
        )
    )


if __name__ == "__main__":
    main()
