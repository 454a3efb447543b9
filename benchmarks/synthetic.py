"""The large synthetic index that the benchmarks share; built once, under a name with its seed and version.

Words follow a log-normal popularity with an imbalance factor of 1.4, an image has 440 postings on average, code bits
are uniformly random (so about half of all pairs pass threshold 0), names have 20 characters.
"""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path

import numpy as np
from numba import njit

from asmk_engine.codebooks import Codebook
from asmk_engine.indexes.manifest import FileEntry, SegmentEntry
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.segment import RANGE_BITS, range_images
from asmk_engine.inverted.segment_writer import SegmentOutline, SegmentWriter
from asmk_engine.inverted.signatures import Signature, code_width
from asmk_engine.recipes import Recipe

VERSION = 3
SEED = 20
IMBALANCE = 1.4
POSTINGS = 440
DIM = 128
WORDS = 65_536
WORDS_PER_CENTRE = 32
CHUNK = 1 << 22


def popularity(words: int, seed: int = SEED) -> np.ndarray:
    """Return the probability of each word to occur in an image, [words] float64; the sum is min(440, words / 4)."""
    rng = np.random.default_rng(seed)
    weights = rng.lognormal(0.0, math.sqrt(math.log(IMBALANCE)), words)
    return np.minimum(weights * min(POSTINGS, words / 4) / weights.sum(), 0.9)


def open_index(data: Path, images: int, words: int = WORDS, seed: int = SEED, dim: int = DIM) -> Index:
    """Open the synthetic index of this size in the folder `data`, building it if it does not exist."""
    path = data / f"synthetic-v{VERSION}-seed{seed}-{images}x{words}x{dim}.index"
    if not path.exists():
        begun = time.perf_counter()
        building = path.with_suffix(".building")
        shutil.rmtree(building, ignore_errors=True)
        _build(building, images, words, seed, dim)
        building.rename(path)
        print(f"# built {path.name} in {time.perf_counter() - begun:.0f} s", flush=True)
    return Index.open(path)


def queries(count: int, query_words: int, words: int = WORDS, seed: int = 1, dim: int = DIM) -> list[Signature]:
    """Draw signatures with distinct words, chosen by popularity, and random codes."""
    rng = np.random.default_rng(seed)
    chances = popularity(words)
    chances /= chances.sum()
    found = []
    for _ in range(count):
        chosen = np.sort(rng.choice(words, query_words, replace=False, p=chances)).astype(np.uint32)
        found.append(Signature(chosen, rng.integers(0, 2**64, (query_words, code_width(dim)), dtype=np.uint64)))
    return found


def random_codebook(words: int, dim: int, seed: int) -> Codebook:
    """Return a codebook of centroids clustered like descriptors, without projection, with automatic assignment."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, words // WORDS_PER_CENTRE), dim))
    centroids = centres[rng.integers(0, len(centres), words)] + 0.7 * rng.normal(size=(words, dim))
    recipe = Recipe("synthetic", {"seed": seed, "version": VERSION})
    plain = Codebook(np.zeros(dim, np.float32), np.eye(dim, dtype=np.float32), centroids.astype(np.float32), recipe)
    return plain.with_assignment("auto")


def _build(path: Path, images: int, words: int, seed: int, dim: int) -> None:
    index = Index.create(path, random_codebook(words, dim, seed))
    rng = np.random.default_rng(seed)
    chances = popularity(words, seed)
    ranges = [range_images(r, images) for r in range(-(-images >> RANGE_BITS))]
    seeds = rng.integers(0, 2**31, len(ranges))
    drawn = [_draw(int(s), chances, size) for s, size in zip(seeds, ranges, strict=True)]
    outline = SegmentOutline.of(np.concatenate([counts for counts, _ in drawn]), images, words)
    names = [f"synthetic/{number:010d}".encode() for number in range(images)]
    file_name = "segment-000001.safetensors"
    with index._writing():
        width = code_width(dim)
        with SegmentWriter(index._folder, file_name, outline, names, width) as writer:
            word_counts = [_write_range(writer, r, numbers, width, rng) for r, (_, numbers) in enumerate(drawn)]
            checksum = writer.finish(rng.integers(0, 2**64, images, dtype=np.uint64), np.concatenate(word_counts))
        entry = FileEntry(file_name, (path / file_name).stat().st_size, checksum)
        segment = SegmentEntry(entry, images, outline.postings)
        index._publish(index.snapshot.manifest.following(segments=(segment,), next=2))


def _write_range(
    writer: SegmentWriter, r: int, numbers: np.ndarray, width: int, rng: np.random.Generator
) -> np.ndarray:
    """Write the lists of one range with random codes; returns the number of words of each of its images."""
    outline = writer.outline
    first, end = (int(outline.range_starts[r + i]) for i in (0, 1))
    begin, universe = outline.posting_starts[first], range_images(r, outline.images)
    while first < end:
        last = int(np.searchsorted(outline.posting_starts, outline.posting_starts[first] + CHUNK, side="right")) - 1
        last = min(max(last, first + 1), end)
        rows = slice(int(outline.posting_starts[first] - begin), int(outline.posting_starts[last] - begin))
        codes = rng.integers(0, 2**64, (rows.stop - rows.start, width), dtype=np.uint64)
        writer.write_lists(first, last, universe, numbers[rows], codes)
        first = last
    return np.bincount(numbers, minlength=universe).astype(np.uint32)


@njit(cache=True)
def _draw(seed: int, chances: np.ndarray, universe: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the images that have each word, by its probability: counts [words], image numbers [P] uint32."""
    np.random.seed(seed)
    counts = np.zeros(chances.shape[0], np.int64)
    numbers = np.empty(int(chances.sum() * universe * 1.05) + 1000, np.uint32)
    filled = 0
    for word in range(chances.shape[0]):
        rate = math.log1p(-chances[word])
        image = int(math.log(np.random.random()) / rate)
        while image < universe:
            numbers[filled] = image
            filled += 1
            counts[word] += 1
            image += 1 + int(math.log(np.random.random()) / rate)
    return counts, numbers[:filled]
