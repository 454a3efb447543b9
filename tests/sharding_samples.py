"""Small indexes of every kind, whole and in shards, and what is asked of them; shared by the tests of shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asmk_engine.features import Features
from asmk_engine.flat import Codec, GlobalIndex, GlobalSearcher
from asmk_engine.fused.index import FusedIndex
from asmk_engine.fused.search import FusedSearcher
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher, SelectiveMatch
from fused_histories import POOL as FUSED_POOL
from fused_histories import QUERIES as FUSED_QUERIES
from fused_histories import create as create_fused
from fused_histories import images_of, write_sets
from global_samples import RECIPE as GLOBAL_RECIPE
from global_samples import global_images, write_global
from samples import random_codebook, random_images, write_features

WORDS, DIM, SIDE = 24, 32, 24
Searching = Callable[[Any], Any]


def twins(images: dict[str, Features]) -> dict[str, Features]:
    """The images, the first of them under more names, which tie with it wherever they are."""
    first = next(iter(images.values()))
    return {**images, **{f"twin {number}": first for number in range(6)}}


@dataclass(frozen=True)
class Pair:
    """An index, its images, queries, and how it is searched."""

    index: Any
    images: dict[str, Any]
    queries: list[Any]
    searcher: Searching


def local_pair(folder: Path, *, geometry: str | None = None) -> Pair:
    """An index of local features of several segments, with deletions."""
    images = twins(random_images(50, DIM, 0))
    index = Index.create(folder / "local.index", random_codebook(WORDS, DIM), geometry=geometry)
    index.add(write_features(folder / "local.features", images), segment_postings=60)
    index.delete(list(images)[5:9])
    match = SelectiveMatch(idf=True)
    queries = [*list(images.values())[:3], *random_images(4, DIM, 7).values()]
    return Pair(index, images, queries, lambda one: Searcher(one, match))


def global_pair(folder: Path) -> Pair:
    """An index of global descriptors."""
    images = twins(global_images(50))
    index = GlobalIndex.create(folder / "global.index", Codec(GLOBAL_RECIPE, SIDE))
    index.add(write_global(folder / "global.features", images), segment_bytes=1500)
    index.delete(list(images)[5:9])
    queries = [*list(images.values())[:2], *global_images(4, seed=3).values()]
    return Pair(index, images, queries, GlobalSearcher)


def fused_pair(folder: Path) -> Pair:
    """An index of two kinds of features."""
    names = list(FUSED_POOL)
    sets = {}
    for number, (kind, write) in enumerate((("parts", write_features), ("whole", write_global))):
        held = {name: FUSED_POOL[name][number] for name in names if FUSED_POOL[name][number] is not None}
        sets[kind] = write(folder / kind, held)  # type: ignore[operator]
    index = create_fused(folder / "fused.index")
    index.add(sets, segment_postings=30)
    index.delete(names[3:5])
    return Pair(index, dict.fromkeys(names), list(FUSED_QUERIES), FusedSearcher)


FUSED_IMAGES = images_of(60, seed=11)


def named_fused_index(folder: Path) -> FusedIndex:
    """An index whose images are found by name, of several segments with deletions; five have the same content."""
    index = create_fused(folder / "fused.index")
    same = {f"photo {number}.jpg": next(iter(FUSED_IMAGES.values())) for number in range(900, 904)}
    index.add(write_sets(folder / "sets", {**FUSED_IMAGES, **same}), segment_postings=40)
    index.delete(["photo 007.jpg", "photo 023.jpg"])
    return index


PAIRS = {"local": local_pair, "global": global_pair, "fused": fused_pair}


def answers(pair: Pair, index: Any, top: int | None = None) -> Any:
    """Names, and the full answers to all queries."""
    return index.names, [
        [(hit.name, hit.score) for hit in hits] for hits in pair.searcher(index).search(pair.queries, top)
    ]
