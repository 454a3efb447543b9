"""A short history of an index with every kind of commit, and its observable states; shared by the crash tests."""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest

from asmk_engine.codebooks import Codebook
from asmk_engine.features import FeatureSet
from asmk_engine.images.roots import Root
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher
from asmk_engine.inverted.signatures import Signature, sign
from asmk_engine.inverted.snapshot import geometry_by_place
from samples import random_codebook, random_images, write_features

DIM, WORDS = 24, 8
POOL = random_images(16, DIM, seed=3)
NAMES = sorted(POOL)
Answer = tuple[tuple[str, ...], tuple[tuple[tuple[str, float], ...], ...], tuple[int | bytes | None, ...]]
Step = tuple[str, Callable[[Path], object]]


def small_codebook() -> Codebook:
    """A codebook of 8 words."""
    return random_codebook(WORDS, DIM)


@functools.cache
def signed(name: str) -> Signature:
    """The signature of an image of the pool."""
    return sign(POOL[name], small_codebook())


@functools.cache
def queries() -> tuple[Signature, ...]:
    """Signatures of some queries, each descriptor assigned to three words."""
    return tuple(sign(features, small_codebook(), 3) for features in random_images(3, DIM, seed=5).values())


def nursery(monkeypatch: pytest.MonkeyPatch) -> BaseContext:
    """Starts processes that have imported everything already."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ingesting", "reading"])
    return context


def small_limits(monkeypatch: pytest.MonkeyPatch, *, block: int = 256, range_bits: int = 2) -> None:
    """Blocks, ranges and tiers so small that a few images need many of each."""
    monkeypatch.setattr("asmk_engine.storage.arrays.BLOCK", block)
    monkeypatch.setattr("asmk_engine.indexes.base.TIER_SEGMENTS", 3)
    inverted = ("search", "segment", "segment_writer", "merging")
    for module in (*(f"inverted.{name}" for name in inverted), "maintenance.checking"):
        monkeypatch.setattr(f"asmk_engine.{module}.RANGE_BITS", range_bits)


def feature_sets(folder: Path) -> dict[str, FeatureSet]:
    """The feature sets that a life takes its images from."""
    changed = {name: POOL[other] for name, other in zip(NAMES[:3], NAMES[13:], strict=True)}
    return {
        "first": write_features(folder / "first", {name: POOL[name] for name in NAMES[:8]}),
        "changed": write_features(folder / "changed", changed),
        "elsewhere": write_features(
            folder / "elsewhere", {name: POOL[name] for name in NAMES[:8:2]}, root=Root("/elsewhere")
        ),
    }


def steps(sets: dict[str, FeatureSet]) -> Iterator[Step]:
    """Name and deed of every step, each on the index at a path that the ones before made."""
    one_by_one = [(name, signed(name)) for name in NAMES[8:13]]
    yield "create", lambda path: Index.create(path, small_codebook())
    yield "add", lambda path: Index.open(path).add(sets["first"], segment_postings=20)
    yield "delete", lambda path: Index.open(path).delete(NAMES[1:7:2])
    yield "find elsewhere", lambda path: Index.open(path).add(sets["elsewhere"], existing="skip")
    yield "restore", lambda path: Index.open(path).restore(NAMES[1:4:2])
    yield "keep geometry", lambda path: Index.open(path).keep_geometry(5)
    yield "add one by one", lambda path: Index.open(path).add_signatures(one_by_one, segment_postings=1)
    yield "replace", lambda path: Index.open(path).add(sets["changed"], existing="replace")
    yield "merge", lambda path: Index.open(path).merge(chunk_postings=5)
    yield "delete all of a segment", lambda path: Index.open(path).delete(NAMES[:13], missing_ok=True)
    yield "merge to nothing", lambda path: Index.open(path).merge()


def observe(path: Path) -> Answer:
    """All names, full answers to some queries, how many images came from where, and the geometry of those with it."""
    index = Index.open(path)
    searcher = Searcher(index, threads=1)
    hits = (tuple((hit.name, hit.score) for hit in searcher.search(query, None)) for query in queries())
    roots = index.snapshot.root_counts().values()
    return tuple(index.names), tuple(hits), (*roots, *(_geometry(index, name) for name in index.names))


def _geometry(index: Index, name: str) -> bytes | None:
    """Words, codes and places of an image, if the index has its geometry."""
    place = index.snapshot.find(name)
    geometry = geometry_by_place(index.snapshot, *place) if place else None
    if geometry is None:
        return None
    return b"".join(array.tobytes() for array in (geometry.words, geometry.codes, geometry.places))


def write_on(path: Path) -> None:
    """What the next writer does: take one image away, add another; nothing foreign may be left in the folder."""
    index = Index.open(path)
    if index.names:
        index.delete(index.names[:1])
    index.add_signatures([("the next.jpg", signed(NAMES[0]))])
    reopened = Index.open(path)
    assert "the next.jpg" in reopened
    named = {entry.name for entry in reopened.snapshot.manifest.files()}
    assert {entry.name for entry in path.iterdir()} == named | {"lock", "manifest.json", "manifest.copy.json"}
