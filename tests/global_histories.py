"""A short history of a global index with every kind of commit; the counterpart of `histories`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from asmk_engine.features import FeatureSet
from asmk_engine.flat import Codec, GlobalIndex, GlobalSearcher
from asmk_engine.images.roots import Root
from global_samples import DIM, RECIPE, global_images, write_global
from histories import Answer, Step
from samples import write_features

POOL = global_images(16, seed=3)
NAMES = sorted(POOL)
CODEC = Codec(RECIPE, DIM, "half")
QUERIES = list(global_images(2, seed=5).values())


def small_limits(monkeypatch: pytest.MonkeyPatch, block: int = 256) -> None:
    """Blocks and tiers so small that a few images need many of each."""
    monkeypatch.setattr("asmk_engine.storage.arrays.BLOCK", block)
    monkeypatch.setattr("asmk_engine.indexes.base.TIER_SEGMENTS", 3)
    monkeypatch.setattr("asmk_engine.flat.segment.CHUNK_BYTES", 100)


def feature_sets(folder: Path) -> dict[str, FeatureSet]:
    """The feature sets that a life takes its images from."""
    changed = {name: POOL[other] for name, other in zip(NAMES[:3], NAMES[13:], strict=True)}
    sets = {"first": {name: POOL[name] for name in NAMES[:6]}, "changed": changed}
    sets |= {name: {name: POOL[name]} for name in NAMES[6:10]} | {"next": {"the next.jpg": POOL[NAMES[0]]}}
    made = {name: write_global(folder / name, images) for name, images in sets.items()}
    some = {name: POOL[name] for name in NAMES[:6:2]}
    return {**made, "elsewhere": write_features(folder / "elsewhere", some, recipe=RECIPE, root=Root("/elsewhere"))}


def steps(sets: dict[str, FeatureSet]) -> Iterator[Step]:
    """Name and deed of every step, each on the index at a path that the ones before made."""

    def one_by_one(path: Path) -> None:
        for name in NAMES[6:10]:
            GlobalIndex.open(path).add(sets[name])

    yield "create", lambda path: GlobalIndex.create(path, CODEC)
    yield "add", lambda path: GlobalIndex.open(path).add(sets["first"], segment_bytes=4 * 2 * DIM)
    yield "delete", lambda path: GlobalIndex.open(path).delete(NAMES[1:5:2])
    yield "find elsewhere", lambda path: GlobalIndex.open(path).add(sets["elsewhere"], existing="skip")
    yield "restore", lambda path: GlobalIndex.open(path).restore(NAMES[1:4:2])
    yield "add one by one", one_by_one
    yield "replace", lambda path: GlobalIndex.open(path).add(sets["changed"], existing="replace")
    yield "merge", lambda path: GlobalIndex.open(path).merge(chunk_bytes=100)
    yield "delete all of a segment", lambda path: GlobalIndex.open(path).delete(NAMES[:13], missing_ok=True)
    yield "merge to nothing", lambda path: GlobalIndex.open(path).merge()


def observe(path: Path) -> Answer:
    """All names, the full answers to some queries, and how many images came from where."""
    index = GlobalIndex.open(path)
    answers = GlobalSearcher(index, threads=1).search(QUERIES, None)
    hits = tuple(tuple((hit.name, hit.score) for hit in found) for found in answers)
    return tuple(index.names), hits, tuple(index.snapshot.root_counts().values())


def write_on(path: Path, features: FeatureSet) -> None:
    """What the next writer does: take one image away, add another; nothing foreign may be left in the folder."""
    index = GlobalIndex.open(path)
    if index.names:
        index.delete(index.names[:1])
    index.add(features)
    reopened = GlobalIndex.open(path)
    assert "the next.jpg" in reopened
    named = {entry.name for entry in reopened.snapshot.manifest.files()}
    assert {entry.name for entry in path.iterdir()} == named | {"lock", "manifest.json", "manifest.copy.json"}
