"""How fast is an index built, added to and merged?

    python benchmarks/build.py --data DIR [--small]

images_per_second             assigned descriptors (1000 an image) to a searchable segment, time inside fsync left out
end_to_end_images_per_second  features file to searchable index: exact assignment included
add_one_ms                    one more image into the large index, time inside fsync apart; its assignment is left out
merge_mb_per_second           two halves of that new index into one, in bytes of the result
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import synthetic
from timing import show

from asmk_engine.codebooks import Codebook
from asmk_engine.features import Features, FeatureSet, FeatureWriter
from asmk_engine.index import Index
from asmk_engine.signatures import make_signature

FEATURES = 1000
_fsync = os.fsync


class Clock:
    """Seconds spent, those inside fsync apart."""

    def __init__(self) -> None:
        self.seconds = self.syncing = 0.0

    def fsync(self, file: int) -> None:
        """os.fsync, timed."""
        begun = time.perf_counter()
        _fsync(file)
        self.syncing += time.perf_counter() - begun


@contextmanager
def clock() -> Iterator[Clock]:
    """Time a block; `seconds` are without those inside fsync."""
    timed = Clock()
    os.fsync = timed.fsync
    begun = time.perf_counter()
    try:
        yield timed
    finally:
        os.fsync = _fsync
        timed.seconds = time.perf_counter() - begun - timed.syncing


def write_images(path: Path, codebook: Codebook, images: int, seed: int, first: int = 0) -> FeatureSet:
    """A feature set of images whose descriptors lie near centroids drawn by popularity."""
    rng = np.random.default_rng(seed)
    chances = synthetic.popularity(codebook.words)
    with FeatureWriter(path, codebook.recipe, codebook.dim) as writer:
        for number in range(images):
            words = rng.choice(codebook.words, FEATURES, p=chances / chances.sum())
            descriptors = codebook.centroids[words] + rng.normal(scale=0.3, size=(FEATURES, codebook.dim))
            zeros = np.zeros((FEATURES, 3), np.float32)
            features = Features(descriptors.astype(np.float16), zeros, zeros[:, 0], (1024, 768))
            writer.add(f"added/{first + number:010d}", features)
    return FeatureSet.open(path)


def assigned(codebook: Codebook, features: FeatureSet) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Names, projected descriptors and words of all images."""
    found = []
    for name, image in features.images():
        projected = codebook.project(image.descriptors)
        found.append((name, projected, codebook.assign_projected(projected)))
    return found


def add(index: Index, images: list[tuple[str, np.ndarray, np.ndarray]]) -> Clock:
    """Aggregate, binarise, write and commit assigned images, and time it."""
    codebook = index.codebook
    with clock() as timed:
        index.add_signatures((name, make_signature(rows, words, codebook)) for name, rows, words in images)
    return timed


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=2000, help="images of the new index")
    parser.add_argument("--small", action="store_true", help="20 000 images and 4096 words, for a try in seconds")
    arguments = parser.parse_args()
    images, words, batch = (
        (20_000, 4096, 100) if arguments.small else (arguments.images, synthetic.WORDS, arguments.batch)
    )
    large = synthetic.open_index(arguments.data, images, words)
    with tempfile.TemporaryDirectory(dir=arguments.data) as folder:
        work = Path(folder)
        halves = [write_images(work / f"half-{i}", large.codebook, batch // 2, i, i * batch) for i in (0, 1)]
        fresh = Index.create(work / "fresh.index", large.codebook)
        known = [add(fresh, assigned(large.codebook, half)) for half in halves]
        with clock() as merging:
            fresh.merge()
        with clock() as whole:
            Index.create(work / "whole.index", large.codebook).add(halves[0])
        copy = work / "large.index"
        copy.mkdir()
        for file in large.path.iterdir():  # immutable files may be shared; what is replaced must not be
            (shutil.copy if file.suffix == ".json" else os.link)(file, copy / file.name)
        grown = Index.open(copy)
        ones = [write_images(work / f"one-{i}", large.codebook, 1, 50 + i, 10**6 + i) for i in range(5)]
        single = [add(grown, assigned(large.codebook, one)) for one in ones]
        size = sum(entry.bytes for entry in fresh.snapshot.manifest.files()[1:])
    show(
        {
            "images": images,
            "images_per_second": batch / sum(timed.seconds for timed in known),
            "end_to_end_images_per_second": len(halves[0]) / (whole.seconds + whole.syncing),
            "add_one_ms": 1000 * statistics.median(timed.seconds for timed in single),
            "add_one_fsync_ms": 1000 * statistics.median(timed.syncing for timed in single),
            "merge_mb_per_second": size / merging.seconds / 1e6,
        }
    )


if __name__ == "__main__":
    main()
