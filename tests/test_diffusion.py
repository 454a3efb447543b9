"""Diffusion ranks as a slow twin does, on every kind of index, and whatever the segments and threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import naive
from asmk_engine import FusedSearcher, GlobalSearcher, Searcher
from asmk_engine.diffusion import Diffusion, DiffusionSearcher, build_neighbours
from asmk_engine.diffusion.graph import NeighbourGraph
from asmk_engine.diffusion.similarities import similarities_of
from asmk_engine.diffusion.stored import StoredSignatures
from asmk_engine.errors import InputError
from asmk_engine.flat import Expansion
from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.indexes.neighbours import NONE, NeighbourTable
from asmk_engine.indexes.numbering import image_numbers, image_starts
from asmk_engine.inverted.search import SelectiveMatch
from asmk_engine.inverted.signatures import sign
from asmk_engine.search.opening import join_indexes
from disks import fast_disk
from fused_histories import POOL, create, images_of, write_sets
from global_samples import global_images
from histories import small_limits
from naive_diffusion import around, diffused, graph, nearest
from neighbour_samples import (
    DIM,
    bits,
    bits_of,
    fused_similar,
    global_index,
    global_twin,
    local_index,
    local_twin,
)
from samples import make_features, random_images


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)


def listed(index: Any, table: NeighbourTable) -> dict[str, list[tuple[str, float]]]:
    """For each live image its neighbours by name, with similarities."""
    segments = index.snapshot.segments
    starts = image_starts(segments)
    names = [segment.name(number) for segment in segments for number in range(segment.images)]
    live = [int(starts[place]) + number for place, one in enumerate(segments) for number in one.live_numbers()]
    near, similarities = table.rows(np.arange(len(names)))
    for number in {*range(len(names))} - {*live}:
        assert (near[number] == NONE).all()
    return {
        names[row]: [(names[n], float(s)) for n, s in zip(near[row], similarities[row], strict=True) if n != NONE]
        for row in live
    }


def check_table(index: Any, table: NeighbourTable, similar: dict[tuple[str, str], float], k: int) -> None:
    found = listed(index, table)
    assert sorted(found) == index.names
    for name, near in found.items():
        expected = nearest(similar, name, index.names, k)
        assert [similarity for _, similarity in near] == pytest.approx([similar[name, e] for e in expected], abs=1e-6)
        for (other, similarity), wanted in zip(near, expected, strict=True):
            assert similarity == pytest.approx(similar[name, other], abs=1e-6)
            assert other == wanted or similar[name, other] == pytest.approx(similar[name, wanted], abs=1e-6)


@pytest.mark.parametrize(("pieces", "deleted"), [(1, 0), (2, 3)])
def test_the_table_of_local_features_has_the_nearest_images(
    pieces: int, deleted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_limits(monkeypatch)
    monkeypatch.setattr("asmk_engine.diffusion.stored.RANGE_BITS", 2)
    monkeypatch.setattr("asmk_engine.diffusion.building.STEP_IMAGES", 3)
    images = random_images(14, DIM)
    index = local_index(tmp_path / "index", images, pieces, deleted)
    check_table(index, build_neighbours(index, 5, threads=1), local_twin(images), 5)


def test_the_table_of_vectors_has_the_nearest_images(tmp_path: Path) -> None:
    images = global_images(17)  # two of them equal, one zero
    index = global_index(tmp_path / "index", images, 3)
    check_table(index, build_neighbours(index, 6), global_twin(images), 6)


def test_the_table_of_several_kinds_has_the_nearest_images(tmp_path: Path) -> None:
    index = create(tmp_path / "index")
    index.add(write_sets(tmp_path / "sets", POOL))
    similar, scales = fused_similar(index)
    table = build_neighbours(index, 7)
    assert table.scales == pytest.approx(scales, rel=1e-5)
    found = listed(index, table)
    for name, near in found.items():
        assert [s for _, s in near] == pytest.approx(
            [similar[name, other] for other in nearest(similar, name, index.names, 7)], rel=1e-4
        )
        assert [similar[name, other] for other, _ in near] == pytest.approx([s for _, s in near], rel=1e-4)


def test_stored_signatures_are_those_of_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_limits(monkeypatch)
    monkeypatch.setattr("asmk_engine.diffusion.stored.RANGE_BITS", 2)
    images = random_images(14, DIM, seed=4)
    index = local_index(tmp_path / "index", images, 2, deleted=3)
    for segment in index.snapshot.segments:
        stored = StoredSignatures(segment, DIM)
        for begin, end in ((0, segment.images), (1, min(6, segment.images)), (2, 3)):
            for number, found in zip(range(begin, end), stored.between(begin, end), strict=True):
                name = segment.name(number)
                if name in images:
                    expected = sign(images[name], index.codebook)
                    assert found.words.tolist() == expected.words.tolist()
                    assert np.array_equal(found.codes, expected.codes) and found.dim == DIM


def check_search(
    searcher: Any, index: Any, query: Any, similar: Any, near: dict[str, float], how: Diffusion, own: float = 1.0
) -> set[str]:
    """Compare a search with the twin; returns the images that the query reaches."""
    found = DiffusionSearcher(searcher, how).search(query, None)
    base = searcher.search(query, None)
    expected = diffused(similar, index.names, near, how.neighbours, how.alpha, how.power, how.images, own)
    assert sorted(hit.name for hit in found) == sorted({*expected, *(hit.name for hit in base)})
    first = {hit.name: hit.score for hit in found[: len(expected)]}
    best = base[0].score if base else 1.0
    assert first == pytest.approx({name: value * best for name, value in expected.items()}, abs=1e-6 * best)
    assert [hit.name for hit in found[len(expected) :]] == [hit.name for hit in base if hit.name not in expected]
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    return {*expected}


OPTIONS = [
    Diffusion(3),
    Diffusion(5, 0.9, 2.0),
    Diffusion(40, 0.99),
    Diffusion(4, 0.6, 1.0, images=5),
    Diffusion(2, images=1),
    Diffusion(4, 1e-9),
]


@pytest.mark.parametrize("how", OPTIONS, ids=str)
def test_local_features_are_ranked_as_by_the_twin(how: Diffusion, tmp_path: Path) -> None:
    images, others = random_images(22, DIM), random_images(5, DIM, seed=9)
    index = local_index(tmp_path / "index", images, 2, deleted=2)
    build_neighbours(index, 60)
    similar = local_twin(images)
    reached = set()
    for name, features in [*others.items(), *list(images.items())[:5]]:
        own = bits(features)
        near = {n: naive.asmk_score(own, bits(f)) if own and bits(f) else 0.0 for n, f in images.items()}
        reached |= check_search(Searcher(index, multiple_assignment=3), index, features, similar, near, how)
        assert name
    assert reached


@pytest.mark.parametrize("how", OPTIONS, ids=str)
@pytest.mark.parametrize("expansion", [None, Expansion(2)])
def test_vectors_are_ranked_as_by_the_twin(how: Diffusion, expansion: Expansion | None, tmp_path: Path) -> None:
    images, others = global_images(25), global_images(6, seed=5, prefix="other")
    index = global_index(tmp_path / "index", images, 3)
    build_neighbours(index, 60)
    similar = global_twin(images)
    searcher = GlobalSearcher(index, expansion)
    for query in [*list(others.values()), *list(images.values())[:4]]:
        vector = query.descriptors[0].astype(np.float64)
        near = {name: float(vector @ image.descriptors[0].astype(np.float64)) for name, image in images.items()}
        check_search(searcher, index, query, similar, near, how)


def test_several_kinds_are_ranked_as_by_the_twin(tmp_path: Path) -> None:
    index = create(tmp_path / "index")
    index.add(write_sets(tmp_path / "sets", POOL))
    build_neighbours(index)
    similar, scales = fused_similar(index)
    vectors = {
        segment.name(number): vector.astype(np.float64)
        for segment in index.snapshot.segments
        for number, vector in enumerate(index.snapshot.encoder.kinds[1].encoder.decode(segment.parts[1].vectors[:]))
    }
    for parts in images_of(6, seed=5).values():
        own = bits_of(parts[0]) if parts[0] else {}
        near = {}
        for name, (local, _) in POOL.items():
            codes = bits_of(local) if local else {}
            one = naive.asmk_score(own, codes) if own and codes else 0.0
            other = float(parts[1].descriptors[0].astype(np.float64) @ vectors[name]) if parts[1] else 0.0
            near[name] = 0.75 * one / scales[0] + 0.25 * other / scales[1]
        whole = 0.75 / scales[0] + 0.25 / scales[1]
        check_search(FusedSearcher(index), index, FusedFeatures(parts), similar, near, Diffusion(4, 0.7), whole)


def test_segments_and_threads_change_nothing(tmp_path: Path) -> None:
    images = random_images(30, DIM, seed=2)
    images |= {f"twin {number}.jpg": features for number, features in enumerate(list(images.values())[:6])}
    queries = [*random_images(3, DIM, seed=6).values(), *list(images.values())[:3]]
    answers = []
    for pieces, threads in ((1, 1), (4, 2), (7, 1)):
        index = local_index(tmp_path / f"{pieces}.index", images, pieces, deleted=pieces)
        build_neighbours(index, 8, threads=threads)
        searcher = DiffusionSearcher(Searcher(index, threads=threads), Diffusion(6, images=12))
        answers.append([searcher.search(query, None) for query in queries])
        assert [searcher.search(query, 4) for query in queries] == [answer[:4] for answer in answers[-1]]
        assert searcher.search(queries, 5) == [answer[:5] for answer in answers[-1]]
        for query, answer in zip(queries, answers[-1], strict=True):
            ranking = searcher.rank(query)
            numbers = searcher.image_numbers([hit.name for hit in answer])
            assert ranking.numbers.tolist() == [numbers[hit.name] for hit in answer]
            assert ranking.scores.tolist() == [hit.score for hit in answer]
    assert answers[0] == answers[1] == answers[2]


def test_equal_images_are_in_byte_order_of_their_names(tmp_path: Path) -> None:
    images = random_images(20, DIM, seed=8)
    twins = {f"{letter}.jpg": images["folder/image 007.jpg"] for letter in "zymab"}
    index = local_index(tmp_path / "index", {**images, **twins}, 2)
    build_neighbours(index)
    query = random_images(9, DIM, seed=3)["folder/image 005.jpg"]
    for how in (Diffusion(12, 0.9), Diffusion(2), Diffusion(25, 0.3)):
        found = [hit.name for hit in DiffusionSearcher(Searcher(index), how).search(query, None)]
        assert len({*twins} & {*found}) == 5
        hits = {hit.name: hit.score for hit in DiffusionSearcher(Searcher(index), how).search(query, None)}
        for one in twins:
            for other in twins:
                if hits[one] == hits[other] and one < other:
                    assert found.index(one) < found.index(other)
    alike = DiffusionSearcher(Searcher(index), Diffusion(25, 0.3)).search(query, None)
    assert len({hit.score for hit in alike if hit.name in twins}) == 1


def test_parts_without_edges_between_them_stay_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    axes = np.eye(DIM)
    images = {}
    for group in range(3):
        for number in range(4):
            vector = axes[5 * group] + 0.2 * axes[5 * group + 1 + number]
            images[f"{group}/{number}.jpg"] = make_features((vector / np.linalg.norm(vector))[None])
    index = global_index(tmp_path / "index", images)
    build_neighbours(index)
    query = make_features((axes[5] + 0.1 * rng.normal(size=DIM))[None])
    hits = DiffusionSearcher(GlobalSearcher(index), Diffusion(3)).search(query, None)
    assert {hit.name[0] for hit in hits[:4]} == {"1"} and len(hits) == 12
    base = [hit.name for hit in GlobalSearcher(index).search(query, None) if hit.name[0] != "1"]
    assert [hit.name for hit in hits[4:]] == base


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_or_none(count: int, tmp_path: Path) -> None:
    images = global_images(count)
    index = global_index(tmp_path / "index", images)
    table = build_neighbours(index, 50)
    assert table.width == max(0, count - 1)
    query = global_images(3, seed=4)["image 000.jpg"]
    searcher = DiffusionSearcher(GlobalSearcher(index))
    assert sorted(hit.name for hit in searcher.search(query, 5)) == sorted(images)
    assert len(searcher.rank(query).numbers) == count
    local = local_index(tmp_path / "local", random_images(count, DIM, seed=1))
    build_neighbours(local)
    found = DiffusionSearcher(Searcher(local)).search(random_images(4, DIM, seed=7)["folder/image 003.jpg"], None)
    assert len(found) <= count


def test_a_query_that_finds_nothing_stays_as_it_is(tmp_path: Path) -> None:
    index = local_index(tmp_path / "index", random_images(6, DIM))
    build_neighbours(index)
    nothing = make_features(np.empty((0, DIM)))
    assert DiffusionSearcher(Searcher(index)).search(nothing, None) == []
    whole = global_index(tmp_path / "whole", {"a.jpg": make_features(np.eye(DIM)[:1])})
    build_neighbours(whole)
    opposite = make_features(-np.eye(DIM)[:1])
    base = GlobalSearcher(whole).search(opposite, None)
    assert DiffusionSearcher(GlobalSearcher(whole)).search(opposite, None) == base and base[0].score < 0


def test_signatures_and_other_options_of_the_searcher_count(tmp_path: Path) -> None:
    images = random_images(15, DIM)
    index = local_index(tmp_path / "index", images)
    build_neighbours(index)
    query = random_images(5, DIM, seed=9)["folder/image 004.jpg"]
    searcher = DiffusionSearcher(Searcher(index, multiple_assignment=1), Diffusion(3))
    assert searcher.search(sign(query, index.codebook), None) == searcher.search(query, None)
    strict = Searcher(index, SelectiveMatch(threshold=0.5))
    hits = DiffusionSearcher(strict, Diffusion(1, images=1)).search(query, None)
    found = {hit.name for hit in strict.search(query, None)}
    assert found <= {hit.name for hit in hits} and len(hits) - len(found) <= 1


@pytest.mark.parametrize("k", [2, 5, 9])
def test_the_images_around_a_query_are_those_of_the_twin(k: int, tmp_path: Path) -> None:
    images = global_images(40, seed=6)
    rng = np.random.default_rng(1)
    renamed = dict(zip(rng.permutation(sorted(images)).tolist(), images.values(), strict=True))
    index = global_index(tmp_path / "index", renamed, 3)
    graph_of_table = NeighbourGraph(build_neighbours(index, 12), k)
    numbers = image_numbers(index.snapshot, renamed)
    names = {number: name for name, number in numbers.items()}
    links = graph(global_twin(renamed), index.names, k)
    start = [index.names[7], index.names[30]]
    for most in range(1, 41):
        expected = around(links, start[:most], most)
        reached, edges = graph_of_table.around(
            np.array([numbers[name] for name in start]), most, lambda some: [names[int(n)].encode() for n in some]
        )
        assert [names[int(number)] for number in reached] == sorted(expected, key=str.encode)
        found = {(names[int(a)], names[int(b)]): float(s) for a, b, s in zip(*vars(edges).values(), strict=True)}
        inside = {(a, b): s for a in expected for b, s in links[a].items() if b in expected}
        assert found == pytest.approx(inside, abs=1e-6)


def test_indexes_searched_as_one_are_refused(tmp_path: Path) -> None:
    one = global_index(tmp_path / "one", global_images(4))
    other = global_index(tmp_path / "other", global_images(4, prefix="other"))
    joint = join_indexes([one, other])
    for deed in (
        lambda: build_neighbours(joint),
        lambda: DiffusionSearcher(GlobalSearcher(joint)),
        lambda: similarities_of(joint, joint.snapshot, 1),
    ):
        with pytest.raises(InputError, match="add all images to one, or leave diffusion or"):
            deed()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"neighbours": 0}, "neighbours of diffusion is 0"),
        ({"alpha": 0.0}, "alpha of diffusion is 0.0"),
        ({"alpha": 1.0}, "at most 0.999"),
        ({"alpha": float("nan")}, "alpha of diffusion is nan"),
        ({"power": 0.0}, "power of diffusion is 0.0"),
        ({"power": float("inf")}, "power of diffusion is inf"),
        ({"images": 0}, "images of diffusion is 0"),
        ({"images": 10_001}, "from 1 to 10000"),
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Diffusion(**wrong)


def test_the_greatest_alpha_converges(tmp_path: Path) -> None:
    images = global_images(60, seed=3)
    index = global_index(tmp_path / "index", images)
    build_neighbours(index)
    query = global_images(5, seed=8)["image 003.jpg"]
    vector = query.descriptors[0].astype(np.float64)
    near = {name: float(vector @ image.descriptors[0].astype(np.float64)) for name, image in images.items()}
    check_search(GlobalSearcher(index), index, query, global_twin(images), near, Diffusion(20, 0.999))
