"""Several photographs as one question: the mean of the scores of each, against a slow twin, for every kind of index."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import asmk_engine
from asmk_engine import Codebook, Features, Hit, Index, Reranking, Searcher
from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.flat import GlobalIndex, GlobalSearcher
from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.fused.search import FusedSearcher
from asmk_engine.search.several import search_several
from disks import fast_disk
from fused_histories import create, images_of, write_sets
from global_histories import CODEC
from global_samples import global_images, write_global
from neighbour_samples import local_index
from samples import random_images


@pytest.fixture(params=["local", "global", "fused"])
def asked(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[Any]]:
    """A searcher of some twenty images, and photographs to ask for, one of them without features."""
    fast_disk(monkeypatch)
    if request.param == "local":
        images = random_images(20, 24, seed=3)
        empty = Features.from_descriptors(np.zeros((0, 24), np.float32))
        return Searcher(local_index(tmp_path / "i", images)), [*random_images(5, 24, seed=4).values(), empty]
    if request.param == "global":
        index = GlobalIndex.create(tmp_path / "i", CODEC)
        index.add(write_global(tmp_path / "f", global_images(20, seed=3)))
        return GlobalSearcher(index), [*global_images(6, seed=4).values()]
    fused = create(tmp_path / "i")
    fused.add(write_sets(tmp_path / "f", images_of(20, seed=3)))
    queries = [FusedFeatures(parts) for parts in images_of(5, seed=4).values()]
    return FusedSearcher(fused), [*queries, FusedFeatures((None, None))]


def twin(answers: Sequence[Sequence[Hit]]) -> list[tuple[str, float]]:
    """Names and means in exact arithmetic, sorted in plain sight."""
    names = {hit.name for hits in answers for hit in hits}
    means = []
    for name in names:
        total = sum(Fraction(hit.score) for hits in answers for hit in hits if hit.name == name)
        means.append((float(total) / len(answers), name.encode(), name))
    return [(name, mean) for mean, _, name in sorted(means, key=lambda one: (-one[0], one[1]))]


def test_the_score_is_the_mean(asked: tuple[Any, list[Any]]) -> None:
    searcher, queries = asked
    for some in (queries, queries[:2], queries[1:4], [queries[0], queries[0]], queries[-1:]):
        expected = twin([searcher.search(query, None) for query in some])
        for top in (None, 1, 7):
            found = search_several(searcher, some, top)
            assert [(one.hit.name, one.hit.score) for one in found] == expected[:top]


def test_one_photograph_is_a_plain_search(asked: tuple[Any, list[Any]]) -> None:
    searcher, queries = asked
    for query in queries:
        found = search_several(searcher, [query], 8)
        assert [one.hit for one in found] == searcher.search(query, 8)
        assert all(one.photograph == 0 for one in found) and search_several(searcher, query, 8) == found


def test_none_is_none(asked: tuple[Any, list[Any]]) -> None:
    searcher, queries = asked
    assert search_several(searcher, []) == search_several(searcher, iter(())) == []
    with pytest.raises(InputError, match="top is 0"):
        search_several(searcher, queries, 0)
    with pytest.raises(InputError, match="a query is a int"):
        search_several(searcher, [1])


def test_a_path_alone_is_one_photograph(tmp_path: Path) -> None:
    """Not as many as it has letters."""
    index = asmk_engine.index_folder(drawn(tmp_path / "photos"), tmp_path / "i", extractor="rootsift", workers=0)
    assert isinstance(index, Index)
    searcher, path = Searcher(index), str(tmp_path / "photos/1.png")
    found = search_several(searcher, path)
    assert found == search_several(searcher, [path]) and [one.hit for one in found] == searcher.search(path)
    with pytest.raises(NotFoundError, match=r"missing\.jpg"):
        search_several(searcher, "missing.jpg")


def drawn(folder: Path) -> Path:
    """Three photographs of noise in blocks."""
    folder.mkdir()
    for number in range(3):
        blocks = np.random.default_rng(number).integers(0, 255, (16, 20, 3), np.uint8)
        Image.fromarray(blocks.repeat(12, 0).repeat(12, 1)).save(folder / f"{number}.png")
    return folder


def test_the_order_of_the_photographs_does_not_matter(asked: tuple[Any, list[Any]]) -> None:
    searcher, queries = asked
    found = search_several(searcher, queries, None)
    for order in ([5, 4, 3, 2, 1, 0], [2, 0, 4, 5, 3, 1]):
        other = search_several(searcher, (queries[place] for place in order), None)
        assert [one.hit for one in other] == [one.hit for one in found]
        for one, same in zip(other, found, strict=True):  # of equal ones, each order has its first
            best, first = queries[order[one.photograph]], queries[same.photograph]
            assert searcher.scores(best)[one.hit.name] == searcher.scores(first)[one.hit.name]


def test_an_image_names_the_photograph_that_it_fits_best(asked: tuple[Any, list[Any]]) -> None:
    """Without matches by score; the first of equal ones; one that only one photograph finds is that one's."""
    searcher, queries = asked
    scores = [searcher.scores(query) for query in queries]
    for one in search_several(searcher, queries, None):
        each = [found[one.hit.name] for found in scores]
        assert one.photograph == each.index(max(each))
    doubled = search_several(searcher, [queries[0], queries[0]], None)
    assert doubled and all(one.photograph == 0 for one in doubled)
    assert [one.hit for one in doubled] == searcher.search(queries[0], None)


def test_ties_are_in_byte_order(tmp_path: Path) -> None:
    """Of UTF-8, also for names whose order in UTF-16 is another."""
    same = random_images(1, 24, seed=1, features=12)
    image = next(iter(same.values()))
    names = ["\U0001f600.jpg", "z.jpg", "\uffff.jpg", "a.jpg"]
    index = Index.create(
        tmp_path / "index", Codebook.train({"a": np.random.default_rng(0).normal(size=(100, 24))}.values(), 2)
    )
    index.add([(name, image) for name in names])
    found = search_several(Searcher(index), [image, image, image], 3)
    assert [one.hit.name for one in found] == sorted(names, key=str.encode)[:3]
    assert len({one.hit.score for one in found}) == 1


def scene(seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors and places of a flat thing."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 32)).astype(np.float32), rng.random((count, 2)) * (300, 200)


def view(*scenes: tuple[np.ndarray, np.ndarray], shift: float = 0.0) -> Features:
    """A photograph that shows all of some things."""
    descriptors = np.concatenate([one[0] for one in scenes])
    places = np.concatenate([one[1] for one in scenes]) + shift
    return Features.from_descriptors(descriptors, np.c_[places, np.full(len(places), 8.0)], image_size=(640, 480))


def test_matches_and_verdict_are_those_of_the_photograph_that_fits_best(tmp_path: Path) -> None:
    """One photograph shows the front and one the back: each finds its own side for certain."""
    front, back, other = scene(0), scene(1), scene(2)
    index = Index.create(
        tmp_path / "index", Codebook.train([one[0] for one in (front, back, other)], 4), geometry="all"
    )
    images = {"front.jpg": view(front, shift=40), "back.jpg": view(back, shift=20), "other.jpg": view(other)}
    index.add(images.items())
    searcher, queries = Searcher(index), [view(back), view(front)]
    alone = [{hit.name: hit for hit in searcher.search(query, rerank=50)} for query in queries]
    found = {one.hit.name: one for one in search_several(searcher, queries, rerank=50)}
    assert {name: (found[name].photograph, found[name].hit.verdict) for name in ("front.jpg", "back.jpg")} == {
        "front.jpg": (1, "match"),
        "back.jpg": (0, "match"),
    }
    assert alone[0]["front.jpg"].verdict == "no" == found["other.jpg"].hit.verdict
    for name, one in found.items():
        best = alone[one.photograph][name]
        assert one.hit.probability == best.probability and one.hit.turn == best.turn
        assert [match and match.inliers for match in one.hit.matches] == [
            match and match.inliers for match in best.matches
        ]
        scores = [hits[name].score for hits in alone if name in hits]
        assert one.hit.score == float(sum(map(Fraction, scores))) / 2
    assert [one.hit.name for one in search_several(searcher, queries, 1, rerank=50)] == [next(iter(found))]


def test_an_image_that_was_verified_fits_better_than_one_that_was_not(tmp_path: Path) -> None:
    """The second photograph verifies one answer only: its unverified score is above, but has no verdict."""
    front, back = scene(0), scene(1)
    index = Index.create(tmp_path / "index", Codebook.train([front[0], back[0]], 2), geometry="all")
    index.add({"front.jpg": view(front), "back.jpg": view(back)}.items())
    queries = [view(front), view(back)]
    found = {one.hit.name: one for one in search_several(Searcher(index), queries, rerank=Reranking(1))}
    assert found["front.jpg"].photograph == 0 and found["back.jpg"].photograph == 1
    assert all(one.hit.verdict == "match" for one in found.values())


def test_answers_beyond_the_depth_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ranking of the first ones does not depend on how many are asked for, up to the depth."""
    monkeypatch.setattr("asmk_engine.search.several.DEPTH", 4)
    searcher = Searcher(local_index(tmp_path / "i", random_images(20, 24, seed=3)))
    queries = [*random_images(5, 24, seed=4).values()]
    expected = twin([searcher.search(query, 4) for query in queries])
    for top in (1, 3, 4):
        assert [(one.hit.name, one.hit.score) for one in search_several(searcher, queries, top)] == expected[:top]
    deeper = twin([searcher.search(query, 6) for query in queries])
    assert [(one.hit.name, one.hit.score) for one in search_several(searcher, queries, 6)] == deeper[:6]
