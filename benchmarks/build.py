"""How fast is building, extending and merging an index?

    python benchmarks/build.py --data DIR [--small]

images_per_second             from assigned descriptors (1000 per image) to a searchable segment, without fsync
end_to_end_images_per_second  from a feature set to a searchable index, with assignment and fsync
end_to_end_first              the same, for the first assignment of the process
add_one_ms                    adding one image to the large index, without its assignment; fsync is separate
find_thousand_ms              looking up 1000 names in the large index
merge_mb_per_second           merging the segments left by indexing into one, in bytes of the result, without fsync
merge_cold_mb_per_second      the same with no bytes of the segments in memory, with fsync

All are medians. For comparison, the same run measures copying the same bytes in memory, crc32 on one thread, and
writing a file. `merge_over_floor` compares the merge with two checksums on all threads and writing once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import synthetic
from timing import alternate, medians, show

from asmk_engine import threads
from asmk_engine.codebooks import Codebook
from asmk_engine.features import Features, FeatureSet, FeatureWriter
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.inverted.signatures import Signature, make_signature

FEATURES = 1000
GROUP = 16  # images that a thread signs at once
ROUNDS = 3
Assigned = tuple[str, np.ndarray, np.ndarray]
_fsync = os.fsync


@dataclass(frozen=True)
class Sizes:
    """Images and words of the large index; images added in one batch, read from features, and merged."""

    images: int
    words: int
    batch: int
    features: int
    merged: int


class Clock:
    """Elapsed seconds, separately inside fsync."""

    def __init__(self) -> None:
        self.seconds = self.syncing = 0.0

    def fsync(self, file: int) -> None:
        """Call os.fsync and add its time."""
        begun = time.perf_counter()
        _fsync(file)
        self.syncing += time.perf_counter() - begun


@contextmanager
def clock() -> Iterator[Clock]:
    """Time a block; `seconds` excludes time inside fsync."""
    timed = Clock()
    os.fsync = timed.fsync
    begun = time.perf_counter()
    try:
        yield timed
    finally:
        os.fsync = _fsync
        timed.seconds = time.perf_counter() - begun - timed.syncing


def draw_assigned(codebook: Codebook, images: int, seed: int, prefix: str = "added") -> list[Assigned]:
    """Draw words by popularity; return names, descriptors near the words, and the words."""
    rng = np.random.default_rng(seed)
    bounds = np.cumsum(synthetic.popularity(codebook.words))
    found = []
    for number in range(images):
        words = np.searchsorted(bounds, bounds[-1] * rng.random(FEATURES), side="right").astype(np.int32)
        noise = rng.normal(scale=0.3, size=(FEATURES, codebook.dim))
        descriptors = (codebook.centroids[words] + noise).astype(np.float32)
        found.append((f"{prefix}/{number:010d}", descriptors, words[:, None]))
    return found


def write_features(path: Path, codebook: Codebook, images: int, seed: int) -> FeatureSet:
    """Write a feature set of drawn images."""
    with FeatureWriter(path, codebook.recipe, codebook.dim) as writer:
        for name, descriptors, _ in draw_assigned(codebook, images, seed):
            zeros = np.zeros((FEATURES, 3), np.float32)
            writer.add(name, Features(descriptors.astype(np.float16), zeros, zeros[:, 0], (1024, 768)))
    return FeatureSet.open(path)


def signed(images: list[Assigned], codebook: Codebook) -> Iterator[tuple[str, Signature]]:
    """Yield names and signatures, computed by all threads."""

    def sign(first: int) -> list[tuple[str, Signature]]:
        return [(name, make_signature(*rest, codebook)) for name, *rest in images[first : first + GROUP]]

    for some in threads.stream(sign, range(0, len(images), GROUP), threads.available_threads()):
        yield from some


def random_signatures(codebook: Codebook, images: int, seed: int) -> Iterator[tuple[str, Signature]]:
    """Yield images with random codes and about as many postings as those of the large index."""
    rng = np.random.default_rng(seed)
    chances = synthetic.popularity(codebook.words)
    bounds, count = np.cumsum(chances), round(float(chances.sum()))
    for number in range(images):
        words = np.unique(np.searchsorted(bounds, bounds[-1] * rng.random(count), side="right")).astype(np.uint32)
        yield f"merged/{number:010d}", Signature(words, rng.integers(0, 2**64, (len(words), 2), dtype=np.uint64))


def linked(index: Index, path: Path) -> Index:
    """Copy an index with hard links to its files, which never change."""
    path.mkdir()
    for file in index.path.iterdir():
        (shutil.copy if file.suffix == ".json" else os.link)(file, path / file.name)
    return Index.open(path)


def build_segment(work: Path, codebook: Codebook, images: int) -> float:
    """Measure images per second, from assigned descriptors to a searchable segment."""
    seconds = []
    drawn = draw_assigned(codebook, images, 1)
    for turn in range(ROUNDS + 1):
        index = Index.create(work / f"fresh-{turn}", codebook)
        with clock() as timed:
            index.add_signatures(signed(drawn, codebook))
        seconds.append(timed.seconds)
        shutil.rmtree(index.path)
    return images / statistics.median(seconds[1:])


def index_features(work: Path, codebook: Codebook, images: int) -> list[float]:
    """Measure images per second, from a feature set to an index, in every round."""
    features = write_features(work / "features", codebook, images, 2)
    rates = []
    for turn in range(ROUNDS):
        begun = time.perf_counter()
        Index.create(work / f"whole-{turn}", codebook).add(features)
        rates.append(images / (time.perf_counter() - begun))
    return rates


def add_ones(work: Path, large: Index) -> dict[str, float]:
    """Add single images, and check that each is found."""
    grown = linked(large, work / "large")
    spent = []
    for image in draw_assigned(large.codebook, 6, 3, "one"):
        with clock() as timed:
            grown.add_signatures(signed([image], large.codebook))
        spent.append(timed)
        ((name, signature),) = signed([image], large.codebook)
        if Searcher(grown).search(signature, 1)[0].name != name:
            raise SystemExit(f"{name} was added, but is not found")
    names = [f"synthetic/{number:010d}" for number in range(0, 2 * large.images, large.images // 500)]
    begun = time.perf_counter()
    grown.snapshot.find_all(names)
    return {
        "add_one_ms": 1000 * statistics.median(timed.seconds for timed in spent),
        "add_one_fsync_ms": 1000 * statistics.median(timed.syncing for timed in spent),
        "find_thousand_ms": 1000 * (time.perf_counter() - begun),
    }


def merge(work: Path, codebook: Codebook, images: int) -> dict[str, float]:
    """Merge the segments left by indexing into one, with and without their bytes in memory."""
    made = Index.create(work / "parts", codebook)
    made.add_signatures(random_signatures(codebook, images, 4), segment_postings=-(-images * synthetic.POSTINGS // 6))
    rates: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(ROUNDS):
        for cold in rates:
            index = linked(made, work / f"merged-{turn}-{cold}")
            if cold:
                forget(made.path)
            with clock() as timed:
                index.merge()
            size = index.snapshot.manifest.segments[0].file.bytes
            rates[cold].append(size / 1e6 / (timed.seconds + timed.syncing * cold))
            shutil.rmtree(index.path)
    return {
        "merge_mb_per_second": statistics.median(rates[False]),
        "merge_cold_mb_per_second": statistics.median(rates[True]),
        "merge_mb": size / 1e6,
        "merge_segments": len(made.snapshot.segments),
    }


def forget(folder: Path) -> None:
    """Ask the system to drop the cached pages of the files, where it supports that."""
    for path in folder.iterdir():
        if hasattr(os, "posix_fadvise"):
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def yardsticks(work: Path, size: int) -> dict[str, float]:
    """Measure the speed of the machine on plain bytes, in MB/s."""
    data, copy = (np.random.default_rng(i).integers(0, 255, size, dtype=np.uint8) for i in (0, 1))

    def write() -> None:
        with open(work / "plain", "wb") as file:
            for begin in range(0, size, 1 << 22):
                file.write(data[begin : begin + (1 << 22)].data)

    tasks: dict[str, Callable[[], object]] = {
        "copy_mb_per_second": lambda: np.copyto(copy, data),
        "crc32_mb_per_second": lambda: zlib.crc32(data.data),
        "write_mb_per_second": write,
    }
    return {key: size / 1e6 / seconds for key, seconds in medians(alternate(tasks, ROUNDS)).items()}


def main() -> None:
    """Parse the arguments, measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=2000, help="images of the new segment")
    parser.add_argument("--merged", type=int, default=200_000, help="images of the segments to be merged")
    parser.add_argument("--small", action="store_true", help="20 000 images and 4096 words, for a trial in seconds")
    arguments = parser.parse_args()
    sizes = Sizes(arguments.images, synthetic.WORDS, arguments.batch, 100, arguments.merged)
    if arguments.small:
        sizes = Sizes(20_000, 4096, 100, 20, 2000)
    large = synthetic.open_index(arguments.data, sizes.images, sizes.words)
    with tempfile.TemporaryDirectory(dir=arguments.data) as folder:
        work = Path(folder)
        end_to_end = index_features(work, large.codebook, sizes.features)
        result = {
            "images": sizes.images,
            "images_per_second": build_segment(work, large.codebook, sizes.batch),
            "end_to_end_images_per_second": statistics.median(end_to_end),
            "end_to_end_first": end_to_end[0],
            **add_ones(work, large),
            **merge(work, large.codebook, sizes.merged),
            **yardsticks(work, 1 << (24 if arguments.small else 28)),
        }
    checking = 2 / (result["crc32_mb_per_second"] * threads.available_threads())
    floor = 1 / (checking + 1 / result["write_mb_per_second"])
    show({**result, "merge_over_floor": floor / result["merge_mb_per_second"]})


if __name__ == "__main__":
    main()
