"""Re-ranking by descriptors alone, and queries that verified images join, against slow twins."""

import json
from dataclasses import replace

import numpy as np
import pytest

from asmk_engine import Codebook, Features, FeatureSet, Index, Reranking, Searcher
from asmk_engine.errors import InputError, NotFoundError
from asmk_engine.features import FeatureWriter, Source
from asmk_engine.inverted.expansion import expanded_signature
from asmk_engine.inverted.located import query_geometry
from asmk_engine.recipes import Recipe
from asmk_engine.verification.geometry import image_geometry
from asmk_engine.verification.match import Verification, match
from asmk_engine.verification.mutual import MutualNeighbours, compare, image_vectors, mutual_neighbours

RECIPE = Recipe("custom:test", {})


def images_of(seed=0, count=10, features=50, dim=32):
    """Images of random features; the last shows half of the first at other places, in other light."""
    rng = np.random.default_rng(seed)
    made = {}
    for number in range(count):
        keypoints = np.c_[rng.random((features, 2)) * (640, 480), 2.0 ** rng.uniform(2, 4, features)]
        descriptors = rng.normal(size=(features, dim)).astype(np.float32)
        made[f"image {number:02}"] = Features.from_descriptors(descriptors, keypoints, image_size=(640, 480))
    first, half = made["image 00"], features // 2
    descriptors, keypoints = rng.normal(size=(features, dim)).astype(np.float32), first.keypoints.copy()
    descriptors[:half] = first.descriptors[:half] + rng.normal(0, 0.3, (half, dim))
    keypoints[:half, :2] = first.keypoints[:half, :2] * 0.5 + (100, 50)
    keypoints[:half, 2] *= 0.5
    keypoints[half:, :2] = rng.random((features - half, 2)) * (640, 480)
    made["view.jpg"] = Features.from_descriptors(descriptors, keypoints, image_size=(640, 480))
    return made


def written(images, path):
    with FeatureWriter(path, RECIPE, 32) as writer:
        for number, (name, features) in enumerate(images.items(), start=1):
            writer.add(name, features, Source(1, 1, number))
    return FeatureSet.open(path)


def indexed(images, folder, words=8):
    features = written(images, folder / "x.features")
    made = Index.create(folder / "x.index", Codebook.train(features, words=words, seed=0))
    made.add(features)
    return made


# --- mutual neighbours ------------------------------------------------------------------------------------------------


def naive_mutual(ones, others):
    """Each row's nearest by its distance, and who is whose."""
    pairs = []
    for i, one in enumerate(ones):
        near = [float(np.sum((one - other) ** 2)) for other in others]
        if not near:
            return []
        j = near.index(min(near))
        back = [float(np.sum((others[j] - other) ** 2)) for other in ones]
        if back.index(min(back)) == i:
            pairs.append((i, j))
    return pairs


@pytest.mark.parametrize(("ones", "others"), [(0, 0), (0, 3), (3, 0), (1, 1), (1, 40), (33, 70), (70, 33)])
def test_mutual_neighbours_are_those_of_the_naive_twin(ones, others):
    rng = np.random.default_rng(ones + 100 * others)
    one, other = (rng.normal(size=(count, 8)).astype(np.float32) for count in (ones, others))
    found = mutual_neighbours(one, other)
    assert list(zip(*(rows.tolist() for rows in found), strict=True)) == naive_mutual(one.astype(float), other)


def test_the_mass_is_the_sum_of_powers_of_cosines():
    images, rng = images_of(), np.random.default_rng(1)
    codebook = Codebook.train([rng.normal(size=(400, 32)).astype(np.float32)], words=8, seed=0)
    one, other = images["image 00"], images["view.jpg"]
    middle = codebook.centroids.astype(np.float64).mean(0)
    ones, others = (codebook.project(image.descriptors).astype(np.float64) - middle for image in (one, other))
    ones, others = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (ones, others))
    pairs = naive_mutual(ones, others)
    expected = sum(max(0.0, float(ones[i] @ others[j])) ** 2.5 for i, j in pairs) / (len(ones) * len(others)) ** 0.5
    found = compare(image_vectors(one, codebook), image_vectors(other, codebook), MutualNeighbours(2.5))
    assert found.pairs == len(pairs) >= 25
    assert found.mass == pytest.approx(expected, rel=1e-5)
    assert (found.inliers, found.places, found.box, found.outline, found.is_copy) == (0, 0, None, [], False)
    json.dumps(found.as_dict())


def test_mutual_neighbours_at_places_that_one_map_explains():
    images, rng = images_of(), np.random.default_rng(1)
    codebook = Codebook.train([rng.normal(size=(400, 32)).astype(np.float32)], words=8, seed=0)
    one, other = (image_vectors(images[name], codebook) for name in ("image 00", "view.jpg"))
    plain, found = compare(one, other), compare(one, other, MutualNeighbours(places=Verification()))
    pairs = naive_mutual(one.vectors.astype(np.float64), other.vectors.astype(np.float64))
    moved = images["image 00"].keypoints[:, :2] * 0.5 + (100, 50)
    near = {(i, j) for i, j in pairs if np.hypot(*(images["view.jpg"].keypoints[j, :2] - moved[i])) < 1}
    assert near <= set(zip(found.query_features.tolist(), found.features.tolist(), strict=True)) <= set(pairs)
    assert len(near) >= 24 and found.affine == pytest.approx(np.array([[0.5, 0, 100], [0, 0.5, 50]]), abs=5)
    cosines = [float(one.vectors[i] @ other.vectors[j]) for i, j in zip(found.query_features, found.features)]  # noqa: B905
    assert found.similarities == pytest.approx(cosines, rel=1e-5) and found.weights == pytest.approx(
        np.array(cosines) ** 3, rel=1e-5
    )
    assert (found.pairs, found.mass) == (plain.pairs, plain.mass) and not found.words.any()
    assert compare(one, one, MutualNeighbours(places=Verification())).is_copy
    nothing = image_vectors(images["image 00"].strongest(0), codebook)
    assert compare(nothing, other, MutualNeighbours(places=Verification())).inliers == 0


def test_a_copy_is_told_and_a_descriptor_in_the_middle_of_the_words_weighs_nothing():
    sample = np.random.default_rng(2).normal(size=(200, 4)).astype(np.float32)
    codebook = Codebook.train([sample], words=1, seed=0)
    middle = codebook.mean + codebook.centroids.mean(0)  # without PCA, the projection is the identity
    same = Features.from_descriptors(np.array([[1.0, 0, 0, 0], [0, 1, 0, 0]], np.float32) + middle)
    still = Features.from_descriptors(middle[None])
    one, other = image_vectors(same, codebook), image_vectors(still, codebook)
    assert compare(one, one).is_copy and compare(one, one).mass == pytest.approx(1.0)
    assert not other.vectors.any()
    assert (compare(one, other).mass, compare(other, other).mass) == (0, 0)


def test_options_out_of_range_are_refused():
    with pytest.raises(InputError, match="exponent is -1"):
        MutualNeighbours(-1)
    with pytest.raises(InputError, match="expanded 6 times; give 0 to 5"):
        Reranking(expansions=6)
    with pytest.raises(InputError, match="only images whose places are compared"):
        Reranking(verification=MutualNeighbours(), expansions=1)


# --- through the index ------------------------------------------------------------------------------------------------


def test_descriptors_rank_without_places(tmp_path):
    images = images_of()
    index = indexed(images, tmp_path)
    searcher, ranking = Searcher(index), replace(Reranking.by_descriptors(20), mass_weight=5.0)
    hits = searcher.search(images["image 00"], top=None, rerank=ranking)
    assert [hit.name for hit in hits[:2]] == ["image 00", "view.jpg"]
    assert hits[0].matches[0].is_copy
    scores = searcher.scores(images["image 00"])
    best = max(score for name, score in scores.items() if name != "image 00")
    for hit in hits:
        vectors = [image_vectors(one, index.codebook) for one in (images["image 00"], images[hit.name])]
        assert hit.score == pytest.approx(scores[hit.name] / best + compare(*vectors, ranking.verification).mass * 5.0)
    ranked = searcher.rank(images["image 00"], rerank=ranking)
    assert ranked.scores.tolist() == [hit.score for hit in hits]


def test_without_the_feature_set_one_line_says_what_is_missing(tmp_path):
    images = images_of()
    index = indexed(images, tmp_path)
    (tmp_path / "x.features").rename(tmp_path / "away")
    with pytest.raises(NotFoundError, match=r"has no descriptors of '.*'; bring the feature set back"):
        Searcher(Index.open(index.path)).search(images["image 00"], rerank=Reranking.by_descriptors())


@pytest.mark.parametrize(
    "ranking", [Reranking(expansions=2, joining_places=3), Reranking.by_descriptors(), Reranking.by_both()]
)
def test_the_number_of_threads_and_segments_changes_nothing(tmp_path, ranking):
    images = images_of()
    index = indexed(images, tmp_path)
    parts = Index.create(tmp_path / "parts.index", index.codebook)
    for number, name in enumerate(images):
        parts.add(written({name: images[name]}, tmp_path / f"{number}.features"))
    found = [
        [(hit.name, hit.score) for hit in Searcher(one).search(images["view.jpg"], None, threads=count, rerank=ranking)]
        for one, count in ((index, 1), (index, 3), (parts, 2))
    ]
    assert found[0] == found[1] == found[2]


# --- expansion --------------------------------------------------------------------------------------------------------


def bits_of(code, dim):
    return [1 if int(code[bit // 64]) >> (bit % 64) & 1 else -1 for bit in range(dim)]


def naive_expanded(signature, joined, dim):
    """Votes of one component after the other, in plain integers."""
    expected = []
    for word, code in zip(signature.words.tolist(), signature.codes, strict=True):
        own = bits_of(code, dim)
        votes = list(own)
        for image, features in joined:
            for feature in features.tolist():
                (row,) = np.flatnonzero(image.features == feature)
                if image.words[row] == word:
                    votes = [vote + bit for vote, bit in zip(votes, bits_of(image.codes[row], dim), strict=True)]
        expected.append([bit if vote == 0 else (1 if vote > 0 else -1) for vote, bit in zip(votes, own, strict=True)])
    return expected


@pytest.mark.parametrize("dim", [32, 64, 70])
def test_joined_features_vote_like_the_naive_twin(dim):
    rng = np.random.default_rng(dim)
    images = images_of(dim=dim)
    codebook = Codebook.train([rng.normal(size=(400, dim)).astype(np.float32)], words=8, seed=0)
    query = images["image 00"]
    geometry = query_geometry(query, codebook, 3)
    joined = []
    for name in ("view.jpg", "image 00"):
        other = image_geometry(images[name], codebook)
        joined.append((other, match(geometry, other).features))
    assert len(joined[0][1]) > 5
    index = Index.in_memory(codebook)
    signature = Searcher(index, multiple_assignment=3).sign(query)
    wider = expanded_signature(signature, joined)
    assert wider.words.tolist() == signature.words.tolist()
    assert [bits_of(code, dim) for code in wider.codes] == naive_expanded(signature, joined, dim)
    assert (wider.codes != signature.codes).any()
    unused = bits_of(wider.codes[0], 64 * wider.codes.shape[1])[dim:]
    assert set(unused) <= {-1}


def test_no_joined_image_leaves_the_query_as_it_is():
    images = images_of()
    codebook = Codebook.train([np.random.default_rng(0).normal(size=(400, 32)).astype(np.float32)], words=8, seed=0)
    signature = Searcher(Index.in_memory(codebook)).sign(images["image 00"])
    wider = expanded_signature(signature, [])
    assert (wider.codes == signature.codes).all()


def test_an_image_that_joins_comes_nearer_to_the_query(tmp_path):
    images = images_of()
    index = indexed(images, tmp_path)
    plain = Searcher(index).search(images["image 00"], None, rerank=Reranking(20))
    joined = Searcher(index).search(images["image 00"], None, rerank=Reranking(20, expansions=1, joining_places=3))
    assert [hit.name for hit in joined[:2]] == ["image 00", "view.jpg"]
    before, after = ({hit.name: hit.score for hit in hits} for hits in (plain, joined))
    assert after["view.jpg"] > before["view.jpg"]
    ranked = Searcher(index).rank(images["image 00"], rerank=Reranking(20, expansions=1, joining_places=3))
    assert ranked.scores.tolist() == [hit.score for hit in joined]


def test_images_that_are_not_sure_do_not_join(tmp_path):
    images = images_of()
    searcher = Searcher(indexed(images, tmp_path))
    plain, strict = (
        searcher.search(images["image 00"], None, rerank=ranking)
        for ranking in (Reranking(20), Reranking(20, expansions=2, joining_places=1000))
    )
    assert [(hit.name, hit.score) for hit in plain] == [(hit.name, hit.score) for hit in strict]


def test_an_empty_query():
    codebook = Codebook.train([np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)], words=4, seed=0)
    nothing = Features.from_descriptors(np.empty((0, 8), np.float32))
    signature = Searcher(Index.in_memory(codebook)).sign(nothing)
    assert len(expanded_signature(signature, [])) == 0
    assert compare(image_vectors(nothing, codebook), image_vectors(nothing, codebook)).pairs == 0
