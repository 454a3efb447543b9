"""A short history of an index of two kinds of features with every kind of commit; the counterpart of `histories`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from asmk_engine.features import Features, FeatureSet, FeatureWriter, Source
from asmk_engine.flat import Codec
from asmk_engine.fused.index import FusedIndex
from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.fused.search import FusedSearcher
from asmk_engine.images.roots import Root
from asmk_engine.inverted.snapshot import Snapshot, geometry_by_place
from asmk_engine.recipes import Recipe
from global_histories import small_limits as small_global_limits
from global_samples import RECIPE as WHOLE_RECIPE
from histories import Answer, Step
from histories import small_limits as small_local_limits
from samples import RECIPE, make_features, random_codebook

DIM, WORDS, SIDE = 24, 8, 20
HERE, ELSEWHERE = Root("/here"), Root("/elsewhere")
Kinds = tuple[Features | None, Features | None]


def images_of(count: int, seed: int = 0) -> dict[str, Kinds]:
    """Named images of local features and one vector each; each fourth has no vector, each fifth no local features."""
    rng = np.random.default_rng(seed)
    centres, others = rng.normal(size=(6, DIM)), rng.normal(size=(4, SIDE))
    made: dict[str, Kinds] = {}
    for number in range(count):
        local = centres[rng.integers(0, 6, rng.integers(1, 9))]
        local = local + 0.6 * rng.normal(size=local.shape)
        vector = others[rng.integers(0, 4)] + 0.7 * rng.normal(size=SIDE)
        parts = None if number % 5 == 4 else make_features(local)
        whole = None if number % 4 == 3 else make_features(vector[None] / np.linalg.norm(vector))
        made[f"photo {number:03d}.jpg"] = parts, whole
    return made


POOL = images_of(16, seed=3)
NAMES = sorted(POOL)
QUERIES = [FusedFeatures(parts) for parts in images_of(3, seed=5).values()]


def encoders(recipe: Recipe = RECIPE) -> dict[str, object]:
    """The codebook and the codec of both kinds."""
    return {"parts": random_codebook(WORDS, DIM, recipe=recipe), "whole": Codec(WHOLE_RECIPE, SIDE, "half")}


def create(path: Path) -> FusedIndex:
    """An empty index."""
    return FusedIndex.create(path, encoders(), [0.75, 0.25])  # type: ignore[arg-type]


def content_of(name: str, edition: int = 0) -> int:
    """The fingerprint of the file of an image."""
    return 1 + sum(name.encode()) * 1000 + int(name[6:9]) * 7 + edition


def write_sets(folder: Path, images: dict[str, Kinds], root: Root = HERE, edition: int = 0) -> dict[str, FeatureSet]:
    """A feature set of each kind, of those images that have it."""
    sets = {}
    for number, (name, recipe, dim) in enumerate((("parts", RECIPE, DIM), ("whole", WHOLE_RECIPE, SIDE))):
        with FeatureWriter(folder / name, recipe, dim) as writer:
            for image, kinds in images.items():
                if (features := kinds[number]) is not None:
                    writer.add(image, features, Source(1, 1, content_of(image, edition)), root)
        sets[name] = FeatureSet.open(folder / name)
    return sets


def small_limits(monkeypatch: pytest.MonkeyPatch, block: int = 256) -> None:
    """Blocks, ranges and tiers so small that a few images need many of each."""
    small_local_limits(monkeypatch, block=block)
    small_global_limits(monkeypatch, block=block)
    monkeypatch.setattr("asmk_engine.fused.kinds.CHUNK_BYTES", 100)
    monkeypatch.setattr("asmk_engine.fused.kinds.BATCH_SIZE", 2)


def some(names: Iterable[str]) -> dict[str, Kinds]:
    """Images of the pool."""
    return {name: POOL[name] for name in names}


def feature_sets(folder: Path) -> dict[str, dict[str, FeatureSet]]:
    """The feature sets that a life takes its images from."""
    changed = {name: POOL[other] for name, other in zip(NAMES[:3], NAMES[11:], strict=False)}
    made = {"first": write_sets(folder / "first", some(NAMES[:6]))}
    made["changed"] = write_sets(folder / "changed", changed, edition=1)
    made["elsewhere"] = write_sets(folder / "elsewhere", some(NAMES[:6:2]), ELSEWHERE)
    for name in NAMES[6:10]:
        made[name] = write_sets(folder / name, some([name]))
    made["next"] = write_sets(folder / "next", {"photo 999.jpg": POOL[NAMES[0]]})
    return made


def steps(sets: dict[str, dict[str, FeatureSet]]) -> Iterator[Step]:
    """Name and deed of every step, each on the index at a path that the ones before made."""

    def one_by_one(path: Path) -> None:
        for name in NAMES[6:10]:
            FusedIndex.open(path).add(sets[name])

    yield "create", create
    yield "add one kind", lambda path: FusedIndex.open(path).add({"parts": sets["first"]["parts"]})
    yield "complete", lambda path: FusedIndex.open(path).add(sets["first"], existing="skip", segment_postings=12)
    yield "delete", lambda path: FusedIndex.open(path).delete(NAMES[1:5:2])
    yield "find elsewhere", lambda path: FusedIndex.open(path).add(sets["elsewhere"], existing="skip")
    yield "restore", lambda path: FusedIndex.open(path).restore(NAMES[1:4:2])
    yield "keep geometry", lambda path: FusedIndex.open(path).keep_geometry(5)
    yield "weigh", lambda path: FusedIndex.open(path).set_weights([1, 3])
    yield "add one by one", one_by_one
    yield "replace", lambda path: FusedIndex.open(path).add(sets["changed"], existing="replace")
    yield "merge", lambda path: FusedIndex.open(path).merge()
    yield "delete all of a segment", lambda path: FusedIndex.open(path).delete(NAMES[:13], missing_ok=True)
    yield "merge to nothing", lambda path: FusedIndex.open(path).merge()


def observe(path: Path) -> Answer:
    """All names, full answers to queries of both kinds and of each alone, how many images are where, and geometry."""
    index = FusedIndex.open(path)
    searcher = FusedSearcher(index, threads=1)
    alone = [FusedFeatures((query.parts[0], None)) for query in QUERIES]
    alone += [FusedFeatures((None, query.parts[1])) for query in QUERIES]
    answers = searcher.search([*QUERIES, *alone], None)
    hits = tuple(tuple((hit.name, hit.score) for hit in found) for found in answers)
    roots = index.snapshot.root_counts().values()
    return tuple(index.names), hits, (*roots, *(_geometry(index, name) for name in index.names))


def _geometry(index: FusedIndex, name: str) -> bytes | None:
    """Words, codes and places of the local features of an image, if the index has its geometry."""
    place = index.snapshot.find(name)
    local = index.snapshot.views[0]
    geometry = geometry_by_place(local, *place) if place and isinstance(local, Snapshot) else None
    if geometry is None:
        return None
    return b"".join(array.tobytes() for array in (geometry.words, geometry.codes, geometry.places))


def write_on(path: Path, features: dict[str, FeatureSet]) -> None:
    """What the next writer does: take one image away, add another; nothing foreign may be left in the folder."""
    index = FusedIndex.open(path)
    if index.names:
        index.delete(index.names[:1])
    index.add(features)
    reopened = FusedIndex.open(path)
    assert "photo 999.jpg" in reopened
    named = {entry.name for entry in reopened.snapshot.manifest.files()}
    assert {entry.name for entry in path.iterdir()} == named | {"lock", "manifest.json", "manifest.copy.json"}
