"""The index of the load test: real photographs and many composed images, the right answers, and a writer.

A composed image has as many features as one of the photographs, in runs of features of any of them that follow each
other in the order of the words, each with a quarter of the bits of its code flipped and at a place of its own. So words
are as popular and repeat as often in an image as in photographs, lists are as long as in a large collection, and a
search verifies what it would verify there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

import asmk_engine
from asmk_engine.inverted.batch import GeometryBatch
from asmk_engine.inverted.geometry_file import PackedGeometry, row_digest
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.inverted.segment_writer import Contents
from asmk_engine.inverted.signatures import Signature, code_width

Answer = list[tuple[str, float]]
"""Names and scores, best first."""
VERSION = 2
SEGMENT_IMAGES = 20_000
RUN = 32
"""Features that follow each other in a photograph and are taken together."""
WRITTEN = "written/"
"""How the names of the images begin that the writer adds and deletes."""
WRITTEN_IMAGES = 20
WRITTEN_WORDS = 300


def photograph_index(work: Path, photos: Path, extractor: str) -> Path:
    """Return an index of the photographs with geometry, and a feature set beside it; made once."""
    path = work / f"photographs-{extractor}.index"
    if not path.exists():
        building = work / "building"
        shutil.rmtree(building, ignore_errors=True)
        codebook = ("--codebook", "rootsift") if extractor == "rootsift" else ()
        command = [sys.executable, "-m", "asmk_engine", "index", photos, "-o", building / "i.index", "--geometry"]
        features = path.with_suffix(".features")
        shutil.rmtree(features, ignore_errors=True)
        subprocess.run([*command, "--extractor", extractor, "--features", features, *codebook, "-q"], check=True)
        (building / "i.index").rename(path)
    return path


def served_index(work: Path, photographs: Path, images: int) -> Path:
    """Return the index of the photographs and so many composed images; made once."""
    path = work / f"{photographs.stem}-{images}-v{VERSION}.index"
    if not path.exists():
        begun = time.perf_counter()
        building = path.with_suffix(".building")
        index = linked(photographs, building)
        pool = Pool(index)
        rng = np.random.default_rng(20)
        for first in range(0, images, SEGMENT_IMAGES):
            index.add_contents(pool.composed(first, min(SEGMENT_IMAGES, images - first), rng))
        building.rename(path)
        print(f"# built {path.name} in {time.perf_counter() - begun:.0f} s", flush=True)
    return path


def linked(source: Path, path: Path) -> Index:
    """Copy an index, in the same folder, with hard links to its files, which never change."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for file in source.iterdir():
        (shutil.copy if file.suffix == ".json" else os.link)(file, path / file.name)
    return Index.open(path)


class Pool:
    """The features of all photographs of an index, of which others are composed."""

    def __init__(self, index: Index) -> None:
        tables = [segment.geometry for segment in index.snapshot.segments if segment.geometry is not None]
        self._layout = tables[0].layout
        self._rows = np.concatenate([table.features for table in tables]).view(self._layout).reshape(-1)
        counts = np.concatenate([np.diff(table.starts) for table in tables])
        self._counts = counts[counts > 0]

    def composed(self, first: int, images: int, rng: np.random.Generator) -> Contents:
        """Return a segment of images, the first of which has the given number in its name."""
        counts = rng.choice(self._counts, images)
        owners = np.repeat(np.arange(images, dtype=np.uint32), counts)
        starts = rng.integers(0, len(self._rows) - RUN, -(-len(owners) // RUN))
        rows = self._rows[(starts[:, None] + np.arange(RUN)).reshape(-1)[: len(owners)]]
        rows["code"] ^= rng.integers(0, 2**64, rows["code"].shape, np.uint64) & rng.integers(
            0, 2**64, rows["code"].shape, np.uint64
        )
        rows["place"] = rng.integers(0, 2**16, rows["place"].shape, np.uint16)
        rows = rows[np.lexsort((rows["word"], owners))]
        is_first = np.r_[True, (rows["word"][1:] != rows["word"][:-1]) | (owners[1:] != owners[:-1])]
        names = [f"composed/{number:07d}.jpg".encode() for number in range(first, first + images)]
        return Contents(
            names,
            rng.integers(1, 2**64, images, np.uint64),
            rows["word"][is_first].astype(np.uint32),
            owners[is_first],
            np.ascontiguousarray(rows["code"][is_first]),
            np.zeros(images, np.uint32),
            self._packed(rows, counts),
        )

    def _packed(self, rows: np.ndarray, counts: np.ndarray) -> object:
        batch = GeometryBatch(self._layout.itemsize)
        raw = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), self._layout.itemsize)
        for own in np.split(raw, np.cumsum(counts)[:-1]):
            batch.append(PackedGeometry(own, (1024, 768), row_digest(own)))
        return batch.contents()


def right_answers(index: Path, names: list[str], work: Path, top: int, rerank: int) -> dict[str, Answer]:
    """Return what the library answers to each name, in this process; computed once for each state of its sources."""
    opened = Index.open(index)
    state = [_sources_digest(), opened.snapshot.manifest.identity, opened.snapshot.manifest.commit, top, rerank, names]
    digest = hashlib.blake2b(json.dumps(state).encode(), digest_size=8).hexdigest()
    kept = work / f"answers-{digest}.json"
    if not kept.exists():
        searcher = Searcher(opened)
        found = {name: without(name, searcher.search_name(name, top + 2, rerank=rerank), top) for name in names}
        kept.write_text(json.dumps(found))
    answers: dict[str, Answer] = json.loads(kept.read_text())
    return answers


def without(name: str, hits: list[asmk_engine.Hit], top: int) -> Answer:
    """Return names and scores of hits without the image that was asked for, as the server rounds them."""
    return [(hit.name, round(hit.score, 6)) for hit in hits if hit.name != name][:top]


def _sources_digest() -> str:
    """Return what tells the sources on which answers depend from other ones."""
    found = hashlib.blake2b(digest_size=8)
    for package in sorted(set(asmk_engine.__path__)):
        for path in sorted(Path(package).rglob("*.py")):
            if not {"serve", "cli"} & set(path.parts):
                found.update(path.read_bytes())
    return found.hexdigest()


def write_forever(path: str) -> None:
    """Add and delete images, a commit each, until standard input ends; prints the number of commits.

    Their words and codes are random, so that no photograph is like them.
    """
    index, rng, commits = Index.open(path), np.random.default_rng(os.getpid()), 0
    ended = _Ended()
    while not ended.soon(0.3):
        names = [f"{WRITTEN}{commits:06d}-{number:02d}.jpg" for number in range(WRITTEN_IMAGES)]
        index.add_signatures((name, _random_signature(index, rng)) for name in names)
        if ended.soon(0.3):
            break
        index.delete(names[: WRITTEN_IMAGES - 1])
        commits += 2
    print(commits)


class _Ended:
    """Whether standard input has ended."""

    def soon(self, seconds: float) -> bool:
        """Wait so many seconds for it."""
        import select

        return bool(select.select([sys.stdin], [], [], seconds)[0])


def _random_signature(index: Index, rng: np.random.Generator) -> Signature:
    words = np.sort(rng.choice(index.codebook.words, min(WRITTEN_WORDS, index.codebook.words), replace=False))
    codes = rng.integers(0, 2**64, (len(words), code_width(index.codebook.dim)), np.uint64)
    spare = index.codebook.dim % 64
    if spare:
        codes[:, -1] &= np.uint64((1 << spare) - 1)
    return Signature(words.astype(np.uint32), codes)


def draw_photographs(folder: Path, count: int) -> Path:
    """Draw pictures of random shapes, two views of each, for a trial without photographs."""
    if not folder.exists():
        folder.mkdir(parents=True)
        rng = np.random.default_rng(3)
        for number in range(count):
            pixels = np.full((420, 560, 3), rng.integers(60, 200, 3), np.uint8)
            for _ in range(60):
                corner, side = rng.integers(0, 500, 2), rng.integers(10, 90, 2)
                colour = tuple(map(int, rng.integers(0, 255, 3)))
                cv2.rectangle(pixels, tuple(map(int, corner)), tuple(map(int, corner + side)), colour, -1)
            cv2.imwrite(str(folder / f"{number:02d}-a.jpg"), pixels[:400, :520])
            cv2.imwrite(str(folder / f"{number:02d}-b.jpg"), pixels[20:, 40:])
    return folder
