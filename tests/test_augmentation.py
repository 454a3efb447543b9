"""Augmented searches rank as a slow twin does, on every kind of index, and whatever the segments and threads."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asmk_engine import FusedSearcher, GlobalSearcher, Searcher
from asmk_engine.diffusion import AugmentingSearcher, NeighbourAugmentation, build_neighbours
from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.fused.queries import FusedFeatures
from asmk_engine.indexes.searcher import RerankingSearcher
from asmk_engine.inverted.signatures import sign
from asmk_engine.kernels.neighbours import average
from asmk_engine.search.opening import join_indexes
from disks import fast_disk
from fused_histories import POOL, create, images_of, write_sets
from global_samples import global_images
from naive_augmentation import augmented
from neighbour_samples import DIM, fused_similar, global_index, global_twin, local_index, local_twin
from samples import make_features, random_images

OPTIONS = [
    NeighbourAugmentation(),
    NeighbourAugmentation(1, 0.0),
    NeighbourAugmentation(4, 1.0),
    NeighbourAugmentation(60, 2.5),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_disk(monkeypatch)


def check_search(
    searcher: Any, query: Any, similar: Any, how: NeighbourAugmentation, copies: Collection[str] = (), own: float = 1.0
) -> dict[str, float]:
    """Compare a search with the twin, which is told which images equal the query; returns the scores."""
    hits = AugmentingSearcher(searcher, how).search(query, None)
    base = {hit.name: hit.score for hit in searcher.search(query, None)}
    power = how.power if how.power is not None else 12.0 if isinstance(searcher, GlobalSearcher) else 0.35
    expected = augmented(similar, searcher.index.names, base, copies, how.neighbours, power, own)
    found = {hit.name: hit.score for hit in hits}
    assert found == pytest.approx(expected, abs=2e-6)
    assert [hit.name for hit in hits] == sorted(found, key=lambda name: (-found[name], name.encode()))
    return found


@pytest.mark.parametrize("how", OPTIONS, ids=str)
def test_local_features_are_ranked_as_by_the_twin(how: NeighbourAugmentation, tmp_path: Path) -> None:
    images, others = random_images(22, DIM), random_images(5, DIM, seed=9)
    index = local_index(tmp_path / "index", images, 2, deleted=2)
    build_neighbours(index, 60)
    searcher = Searcher(index, multiple_assignment=3)
    for name, query in [*others.items(), *list(images.items())[:5]]:
        copies = {name} if images.get(name) is query else set()
        found = check_search(searcher, query, local_twin(images), how, copies)
        assert {hit.name for hit in searcher.search(query, None)} <= {*found}


@pytest.mark.parametrize("how", OPTIONS, ids=str)
def test_vectors_are_ranked_as_by_the_twin(how: NeighbourAugmentation, tmp_path: Path) -> None:
    images, others = global_images(25), global_images(6, seed=5, prefix="other")
    index = global_index(tmp_path / "index", images, 3)
    build_neighbours(index, 60)
    first = ["image 000.jpg", "image 001.jpg"]  # equal
    for query, copies in [
        *((query, []) for query in others.values()),
        (images[first[0]], first),
        (images[first[1]], first),
    ]:
        assert len(check_search(GlobalSearcher(index), query, global_twin(images), how, copies)) == 25


@pytest.mark.parametrize("how", [NeighbourAugmentation(), NeighbourAugmentation(4, 0.7)], ids=str)
def test_several_kinds_are_ranked_as_by_the_twin(how: NeighbourAugmentation, tmp_path: Path) -> None:
    index = create(tmp_path / "index")
    index.add(write_sets(tmp_path / "sets", POOL))
    build_neighbours(index)
    similar, scales = fused_similar(index)
    own = 0.75 / scales[0] + 0.25 / scales[1]
    for parts in images_of(6, seed=5).values():
        check_search(FusedSearcher(index), FusedFeatures(parts), similar, how, own=own)


def test_the_search_of_vectors_is_that_of_the_augmented_vectors(tmp_path: Path) -> None:
    images = global_images(20, seed=3)
    index = global_index(tmp_path / "index", images, 2)
    build_neighbours(index)
    similar, names = global_twin(images), index.names
    vectors = {name: image.descriptors[0].astype(np.float64) for name, image in images.items()}
    means = {}
    for name in names:
        others = sorted(set(names) - {name}, key=lambda other: (-similar[name, other], other.encode()))[:3]
        weights = [max(similar[name, other], 0.0) ** 2 for other in others]
        total = vectors[name] + sum(w * vectors[other] for w, other in zip(weights, others, strict=True))
        means[name] = total / (1 + sum(weights))
    query = global_images(4, seed=8)["image 003.jpg"]
    expected = {name: float(mean @ query.descriptors[0].astype(np.float64)) for name, mean in means.items()}
    searcher = AugmentingSearcher(GlobalSearcher(index), NeighbourAugmentation(3, 2.0))
    assert searcher.scores(query) == pytest.approx(expected, abs=1e-6)


def test_segments_and_threads_change_nothing(tmp_path: Path) -> None:
    images = random_images(30, DIM, seed=2)
    images |= {f"twin {number}.jpg": features for number, features in enumerate(list(images.values())[:6])}
    queries = [*random_images(3, DIM, seed=6).values(), *list(images.values())[:3]]
    answers = []
    for pieces, threads in ((1, 1), (4, 2), (7, 1)):
        index = local_index(tmp_path / f"{pieces}.index", images, pieces, deleted=pieces)
        build_neighbours(index, 8, threads=threads)
        searcher = AugmentingSearcher(Searcher(index, threads=threads), NeighbourAugmentation(6))
        answers.append([searcher.search(query, None) for query in queries])
        assert [searcher.search(query, 4) for query in queries] == [answer[:4] for answer in answers[-1]]
        assert searcher.search(queries, 5) == [answer[:5] for answer in answers[-1]]
        for query, answer in zip(queries, answers[-1], strict=True):
            ranking = searcher.rank(query)
            numbers = searcher.image_numbers([hit.name for hit in answer])
            assert ranking.numbers.tolist() == [numbers[hit.name] for hit in answer]
            assert ranking.scores.tolist() == [hit.score for hit in answer]
    assert answers[0] == answers[1] == answers[2]


def test_equal_images_have_equal_scores(tmp_path: Path) -> None:
    images = random_images(20, DIM, seed=8)
    twins = {f"{letter}.jpg": images["folder/image 007.jpg"] for letter in "zymab"}
    index = local_index(tmp_path / "index", {**images, **twins}, 2)
    build_neighbours(index)
    query = random_images(9, DIM, seed=3)["folder/image 005.jpg"]
    for how in (NeighbourAugmentation(5, 0.5), NeighbourAugmentation(30, 0.1), NeighbourAugmentation(8, 3.0)):
        hits = AugmentingSearcher(Searcher(index), how).search(query, None)
        alike = [hit for hit in hits if hit.name in {*twins, "folder/image 007.jpg"}]
        assert len(alike) == 6 and len({hit.score for hit in alike}) == 1
        assert [hit.name for hit in alike] == sorted([hit.name for hit in alike], key=str.encode)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_or_none(count: int, tmp_path: Path) -> None:
    images = global_images(count)
    index = global_index(tmp_path / "index", images)
    build_neighbours(index, 50)
    query = global_images(3, seed=4)["image 000.jpg"]
    searcher = AugmentingSearcher(GlobalSearcher(index))
    assert sorted(hit.name for hit in searcher.search(query, 5)) == sorted(images)
    assert len(searcher.rank(query).numbers) == count
    local = local_index(tmp_path / "local", random_images(count, DIM, seed=1))
    build_neighbours(local)
    query = random_images(4, DIM, seed=7)["folder/image 003.jpg"]
    hits = AugmentingSearcher(Searcher(local)).search(query, None)
    assert len(hits) <= count
    if count == 1:  # an image without neighbours keeps its score
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in Searcher(local).search(query)])


def test_deleted_images_never_count(tmp_path: Path) -> None:
    images = random_images(16, DIM, seed=5)
    kept, gone = dict(list(images.items())[:12]), list(images)[12:]
    index = local_index(tmp_path / "index", images, 3)
    index.delete(gone)
    build_neighbours(index)
    other = local_index(tmp_path / "other", kept)
    build_neighbours(other)
    for query in (*random_images(3, DIM, seed=6).values(), *(images[name] for name in gone)):
        one, two = (
            AugmentingSearcher(Searcher(i), NeighbourAugmentation(5)).search(query, None) for i in (index, other)
        )
        assert one == two and not {hit.name for hit in one} & {*gone}


def test_the_order_of_the_others_does_not_depend_on_whether_the_query_is_indexed(tmp_path: Path) -> None:
    images = random_images(14, DIM, seed=6)
    index = local_index(tmp_path / "index", images)
    build_neighbours(index)
    query = random_images(3, DIM, seed=2)["folder/image 001.jpg"]
    found = AugmentingSearcher(Searcher(index), NeighbourAugmentation(20)).search(query, None)
    index.add([("query.jpg", query), ("again.jpg", query)], recipe=index.recipe)
    build_neighbours(index)
    first = AugmentingSearcher(Searcher(index), NeighbourAugmentation(20)).search(query, None)
    assert {hit.name for hit in first[:2]} == {"query.jpg", "again.jpg"}
    assert first[2:] == found


def test_an_image_that_shares_nothing_with_the_query_is_found_through_its_neighbour(tmp_path: Path) -> None:
    images = random_images(30, DIM, seed=4)
    index = local_index(tmp_path / "index", images)
    build_neighbours(index)
    query = sign(make_features(images["folder/image 005.jpg"].descriptors[:1]), index.codebook)
    base = {hit.name for hit in Searcher(index).search(query, None)}
    hits = AugmentingSearcher(Searcher(index), NeighbourAugmentation(5)).search(query, None)
    new = [hit for hit in hits if hit.name not in base]
    assert new and base < {hit.name for hit in hits} and all(hit.score > 0 for hit in new)


def test_a_query_that_finds_nothing_finds_nothing(tmp_path: Path) -> None:
    index = local_index(tmp_path / "index", random_images(6, DIM))
    build_neighbours(index)
    assert AugmentingSearcher(Searcher(index)).search(make_features(np.empty((0, DIM))), None) == []


def test_a_searcher_follows_its_index(tmp_path: Path) -> None:
    images = random_images(12, DIM)
    index = local_index(tmp_path / "index", images)
    searcher = AugmentingSearcher(Searcher(index))
    query = images["folder/image 003.jpg"]
    with pytest.raises(NotFoundError, match=r"which diffusion and augmentation need .* build it with `asmk-engine"):
        searcher.search(query)
    build_neighbours(index)
    assert searcher.search(query)[0].name == "folder/image 003.jpg"
    index.delete(["folder/image 003.jpg"])
    build_neighbours(index)
    assert "folder/image 003.jpg" not in {hit.name for hit in searcher.search(query, None)}
    assert RerankingSearcher(searcher, 3).index is index


def test_indexes_searched_as_one_are_refused(tmp_path: Path) -> None:
    one = global_index(tmp_path / "one", global_images(4))
    other = global_index(tmp_path / "other", global_images(4, prefix="other"))
    with pytest.raises(InputError, match="add all images to one, or leave diffusion or augmentation out"):
        AugmentingSearcher(GlobalSearcher(join_indexes([one, other])))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"neighbours": 0}, "neighbours of the augmentation is 0; give 1 or more"),
        ({"power": -0.5}, "power of the augmentation is -0.5; give a number of 0 or more"),
        ({"power": float("nan")}, "power of the augmentation is nan"),
        ({"power": float("inf")}, "power of the augmentation is inf"),
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        NeighbourAugmentation(**wrong)


@given(st.integers(0, 9), st.integers(0, 4), st.integers(0, 2**32))
def test_the_kernel_averages_as_the_formula_says(count: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, width = rng.normal(size=count), width if count else 0
    near = rng.integers(0, max(count, 1), (count, width)).astype(np.uint32)
    weights = (rng.random((count, width)) * (rng.random((count, width)) < 0.7)).astype(np.float32)
    others = np.where(rng.random(count) < 0.2, np.nan, scores)
    out = np.full(count, np.nan)
    average(scores, others, near, weights, out)
    for i in range(count):
        pairs = [(float(weights[i, j]), others[near[i, j]]) for j in range(width)]
        counted = [(weight, score) for weight, score in pairs if not np.isnan(score)]
        total = scores[i] + sum(weight * score for weight, score in counted)
        assert out[i] == pytest.approx(total / (1 + sum(weight for weight, _ in counted)), abs=1e-12)
