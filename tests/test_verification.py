"""Verification against naive twins and known truth, and re-ranking."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from asmk_engine import Codebook, Features, FeatureSet, Index, Searcher, Signature
from asmk_engine.diffusion import DiffusionSearcher, build_neighbours
from asmk_engine.errors import AsmkWarning, InputError, NotFoundError
from asmk_engine.features import Source
from asmk_engine.features.writer import FeatureWriter
from asmk_engine.indexes.joint import JointIndex
from asmk_engine.indexes.searcher import RerankingSearcher
from asmk_engine.kernels import geometry as kernels
from asmk_engine.kernels.pairs import pair
from asmk_engine.kernels.places import weigh_places
from asmk_engine.recipes import Recipe
from asmk_engine.search.turned import turns
from asmk_engine.verification.geometry import ImageGeometry, image_geometry
from asmk_engine.verification.match import Verification, match, match_all
from asmk_engine.verification.reranking import Reranking, reranked

DIM = 64


def geometry_of_random(rng, count, words=20, per_feature=1, size=(800, 600)):
    """Return a random geometry with codes of 64 bits."""
    all_words = rng.integers(0, words, count * per_feature).astype(np.uint32)
    order = np.argsort(all_words, kind="stable")
    places = np.full((count, 4), np.nan, np.float32)
    places[:, :2] = rng.random((count, 2)) * size
    places[:, 2] = 2.0 ** rng.uniform(1, 6, count)
    return ImageGeometry(
        all_words[order],
        rng.integers(0, 1 << 63, (count * per_feature, 1), dtype=np.uint64),
        np.repeat(np.arange(count, dtype=np.int32), per_feature)[order],
        places,
        size,
        DIM,
    )


def with_angles(rng, image):
    """Return the image with an angle for each feature."""
    places = image.places.copy()
    places[:, 3] = rng.uniform(0, 2 * np.pi, len(places))
    return replace(image, places=places)


def moved(rng, image, affine, outliers=0.0, noise=0.0):
    """Return an image with the same codes at mapped places, some features at random places instead.

    Angles turn with the map, to within 0.05 radians if there is noise.
    """
    places = image.places.copy()
    places[:, :2] = image.places[:, :2] @ affine[:, :2].T + affine[:, 2] + rng.normal(0, noise, (len(places), 2))
    places[:, 2] *= np.sqrt(abs(np.linalg.det(affine[:, :2])))
    ways = np.c_[np.cos(places[:, 3]), np.sin(places[:, 3])] @ affine[:, :2].T
    places[:, 3] = np.arctan2(ways[:, 1], ways[:, 0]) + (rng.normal(0, 0.05, len(places)) if noise else 0)
    lost = rng.random(len(places)) < outliers
    places[lost, :2] = rng.random((int(lost.sum()), 2)) * image.image_size
    return replace(image, places=places.astype(np.float32)), ~lost


# --- pairs ------------------------------------------------------------------------------------------------------------


def naive_pairs(one, other, farthest):
    """All rows with equal words, nearest first, each feature used once."""
    found = []
    for i, word in enumerate(one.words):
        for j, other_word in enumerate(other.words):
            if word == other_word:
                distance = sum(int(a ^ b).bit_count() for a, b in zip(one.codes[i], other.codes[j], strict=True))
                if distance <= farthest:
                    found.append((distance, len(found), int(one.features[i]), int(other.features[j])))
    used, other_used, pairs = set(), set(), []
    # Rows come in the order of the words, and within a word in the order of the query's rows.
    for distance, _, a, b in sorted(found):
        if a not in used and b not in other_used:
            used.add(a)
            other_used.add(b)
            pairs.append((a, b, distance))
    return pairs


def pairs_of(one, other, farthest):
    room = min(len(one), len(other))
    ones, others, distances = (np.empty(room, np.int32) for _ in range(3))
    count = pair(
        one.words, one.codes, one.features, other.words, other.codes, other.features, farthest, ones, others, distances
    )
    return list(zip(ones[:count].tolist(), others[:count].tolist(), distances[:count].tolist(), strict=True))


@pytest.mark.parametrize("seed", range(12))
def test_pairs_are_one_to_one_and_nearest_first_like_the_naive_twin(seed):
    rng = np.random.default_rng(seed)
    one = geometry_of_random(rng, int(rng.integers(0, 60)), per_feature=int(rng.integers(1, 4)))
    other = geometry_of_random(rng, int(rng.integers(0, 60)))
    farthest = int(rng.integers(0, 40))
    assert pairs_of(one, other, farthest) == naive_pairs(one, other, farthest)


def test_all_features_in_one_word_still_pair_once():
    rng = np.random.default_rng(0)
    one, other = geometry_of_random(rng, 40, words=1), geometry_of_random(rng, 30, words=1)
    pairs = pairs_of(one, other, 64)
    assert pairs == naive_pairs(one, other, 64)
    assert len(pairs) == 30


# --- the map ----------------------------------------------------------------------------------------------------------


def naive_votes(places, other, weights, tolerances, affine, stretch):
    """The marks and the weight of what a map explains, in plain numpy."""
    mapped = places[:, :2].astype(float) @ affine[:, :2].T + affine[:, 2]
    near = ((mapped - other[:, :2]) ** 2).sum(1) <= tolerances**2
    scale = np.sqrt(abs(np.linalg.det(affine[:, :2])))
    ratio = other[:, 2] / places[:, 2]
    inside = near & (ratio >= scale / stretch) & (ratio <= scale * stretch)
    return inside, weights[inside].sum()


def naive_fit(places, other, weights, tolerances, inside, held):
    """Weighted least squares with a hold, by a general solver on stacked equations."""
    w = np.sqrt(weights[inside]) / tolerances[inside]
    x = places[inside, :2].astype(float)
    mean = (x * (w**2)[:, None]).sum(0) / (w**2).sum()
    spread = ((w**2)[:, None] * (x - mean) ** 2).sum()
    hold = np.sqrt(0.05 * spread + 1e-9 * (w**2).sum())
    left = np.vstack([np.c_[x - mean, np.ones(len(x))] * w[:, None], [[hold, 0, 0], [0, hold, 0]]])
    right = np.vstack([other[inside, :2] * w[:, None], hold * held[:, :2].T])
    found = np.linalg.lstsq(left, right, rcond=None)[0]
    return np.c_[found[:2].T, found[2] - found[:2].T @ mean]


def needed(share):
    """After how many proposals, right with this probability each, none was right once in a thousand times."""
    return 8 if share >= 1 else max(8, int(np.log(0.001) / np.log1p(-share))) if share > 1e-6 else 10**9


def turned(places, other, i, scale, angle):
    """The map of this scale and angle that takes place i to its other place."""
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.c_[linear, other[i, :2] - linear @ places[i, :2]]


def maps_of_ones(places, other):
    """What each pair proposes by its scales: its number, the pairs that propose it, and the map."""
    for i in range(len(places)):
        yield i, {i}, turned(places, other, i, other[i, 2] / places[i, 2], 0.0)


def maps_of_angles(places, other):
    """What each pair proposes by its scales and angles."""
    for i in range(len(places)):
        yield i, {i}, turned(places, other, i, other[i, 2] / places[i, 2], other[i, 3] - places[i, 3])


def maps_of_twos(places, other, tolerances, stretch):
    """What two of the first 32 pairs propose, j going with every i before it, by complex numbers."""
    at, seen = places[:, 0] + 1j * places[:, 1], other[:, 0] + 1j * other[:, 1]
    ratios = other[:, 2] / places[:, 2]
    for j in range(min(32, len(places))):
        for i in range(j):
            way = seen[j] - seen[i]
            if abs(way) < 2 * max(tolerances[i], tolerances[j]) or at[i] == at[j]:
                continue
            map_of_two = way / (at[j] - at[i])
            scale, angle = abs(map_of_two), np.angle(map_of_two)
            agree = all(1 / stretch <= ratios[k] / scale <= stretch for k in (i, j))
            if agree and abs(angle) < np.pi / 4:
                yield i, {i, j}, turned(places, other, i, scale, angle)


def naive_refined(places, other, weights, tolerances, options, affine):
    """Fit to what the map explains, at first within twice the tolerances, while the weight grows."""

    def explained(by, wide=1.0):
        return naive_votes(places, other, weights, wide * tolerances, by, options.stretch)

    def fitted(to):
        found = naive_fit(places, other, weights, tolerances, to, affine)
        stretches = np.linalg.svd(found[:, :2])[1]
        refused = np.linalg.det(found[:, :2]) <= 0 or stretches[0] > options.uneven * stretches[1]
        return (found, *explained(found)) if not refused else (found, None, -1.0)

    inside, weight = explained(affine)
    first = fitted(explained(affine, 2.0)[0])
    if first[2] > weight:
        affine, inside, weight = first
    for _ in range(4):
        grown = fitted(inside)
        if grown[2] < weight:
            break
        done = grown[2] == weight
        affine, inside, weight = grown
        if done:
            break
    return weight, affine, inside


def naive_verify(places, other, weights, tolerances, options):
    """Refine the best proposal of each group, without and with rotation in turn; keep that of the greatest weight."""
    x, seen = places.astype(float), other.astype(float)
    by_angle = bool(np.isfinite(np.c_[x[:, 3], seen[:, 3]]).all())
    turning = maps_of_angles(x, seen) if by_angle else maps_of_twos(x, seen, tolerances, options.stretch)
    kinds = [list(maps_of_ones(x, seen)), list(turning)]
    begun, best = [0, 0], (0.0, np.zeros((2, 3)), np.zeros(len(weights), bool))
    while True:
        before = list(begun)
        for kind in (0, 1):
            share = best[0] / weights.sum()
            if share >= 0.5:
                break
            limit = min(
                len(kinds[kind]),
                options.proposals,
                max(8, 2 * begun[kind]),
                needed(share ** (1 if by_angle else kind + 1)),
            )
            group = [one for one in kinds[kind][begun[kind] : limit] if not best[2][list(one[1])].all()]
            begun[kind] = max(begun[kind], limit)
            if group:
                votes = [naive_votes(x, seen, weights, tolerances, one[2], options.stretch)[1] for one in group]
                found = naive_refined(x, seen, weights, tolerances, options, group[int(np.argmax(votes))][2])
                best = found if found[0] > (1 + kind) * best[0] else best  # a turn must explain twice the weight
        if begun == before:
            return naive_slant(places, other, weights, tolerances, options, best)


def naive_slant(places, other, weights, tolerances, options, best):
    """Let a projective map, by a general solver, mark more pairs, at most three times."""
    weight, affine, inside = best
    x, seen = places[:, :2].astype(float), other[:, :2].astype(float)
    for _ in range(3):
        if inside.sum() < 8:
            break
        w = np.sqrt(weights[inside]) / tolerances[inside]
        mean = (x[inside] * (w**2)[:, None]).sum(0) / (w**2).sum()
        unit = np.sqrt(((x[inside] - mean) ** 2 * (w**2)[:, None]).sum() / (w**2).sum()) + 1e-6
        u = (x - mean) / unit
        rest = seen - (x @ affine[:, :2].T + affine[:, 2])
        rows = []
        for axis in (0, 1):
            block = np.zeros((len(x), 8))
            block[:, 3 * axis : 3 * axis + 2], block[:, 3 * axis + 2] = u, 1
            block[:, 6:] = -seen[:, axis : axis + 1] * u
            rows.append(block[inside] * w[:, None])
        left = np.vstack(rows)
        right = np.concatenate([rest[inside, 0] * w, rest[inside, 1] * w])
        held = np.diag(np.sqrt(1e-4 * (left**2).sum(0)))
        change = np.linalg.lstsq(np.vstack([left, held]), np.r_[right, np.zeros(8)], rcond=None)[0]
        here = affine[:, :2] @ mean + affine[:, 2] + change[[2, 5]]
        tangent = affine[:, :2] + (change[[0, 1, 3, 4]].reshape(2, 2) - np.outer(here, change[6:])) / unit
        stretches = np.linalg.svd(tangent)[1]
        if np.linalg.det(tangent) <= 0 or stretches[0] > options.uneven * stretches[1]:
            break
        depth = 1 + u @ change[6:]
        ends = x @ affine[:, :2].T + affine[:, 2] + np.c_[u @ change[:2] + change[2], u @ change[3:5] + change[5]]
        off = np.linalg.norm(ends - depth[:, None] * seen, axis=1)
        ratio = np.log2(other[:, 2] / places[:, 2]) - 0.5 * np.log2(np.linalg.det(affine[:, :2]))
        marked = (off <= tolerances * depth) & (depth > 0.25) & (np.abs(ratio) <= 2 * np.log2(options.stretch))
        if weights[marked].sum() <= weight:
            break
        weight, inside = weights[marked].sum(), marked
    return weight, affine, inside


@pytest.mark.parametrize("angles", ["none", "all", "of one image"])
@pytest.mark.parametrize("seed", range(24))
def test_the_map_is_that_of_the_naive_twin(seed, angles):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 120))
    one = geometry_of_random(rng, count)
    angle = rng.uniform(-0.6, 0.6)
    if angles == "all":
        one, angle = with_angles(rng, one), rng.uniform(-np.pi, np.pi)
    truth = np.array([[0.9, 0.15, 40.0], [-0.1, 1.1, -25.0]])
    truth[:, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]] @ truth[:, :2]
    other, _ = moved(rng, one, truth, outliers=rng.uniform(0.2, 0.9), noise=1.0)
    one = with_angles(rng, one) if angles == "of one image" else one
    weights = np.sort(rng.random(count))[::-1].copy()
    tolerances = 3.0 + 0.1 * other.places[:, 2].astype(float)
    options = Verification(proposals=int(rng.integers(1, 120)))
    affine, inside = np.empty(6), np.empty(count, bool)
    weight = kernels.verify(
        one.places, other.places, weights, tolerances, options.proposals, options.stretch, options.uneven, affine,
        inside,
    )  # fmt: skip
    expected, map_expected, inside_expected = naive_verify(one.places, other.places, weights, tolerances, options)
    assert weight == pytest.approx(expected)
    assert (inside == inside_expected).all()
    np.testing.assert_allclose(affine[[0, 1, 4, 2, 3, 5]].reshape(2, 3), map_expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("angle", "by_angles"), [(-20, False), (20, False), (40, False), (20, True), (100, True), (180, True), (-75, True)]
)
def test_a_turned_plane_is_found_among_nine_tenths_of_wrong_pairs(angle, by_angles):
    rng = np.random.default_rng(abs(angle))
    one = geometry_of_random(rng, 300, words=300)
    one = with_angles(rng, one) if by_angles else one
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    truth = np.array([[cos, -sin, 400 - 400 * cos + 300 * sin], [sin, cos, 300 - 400 * sin - 300 * cos]])
    other, right = moved(rng, one, truth, 0.9, noise=1.0)
    weights = np.where(right, rng.uniform(0.1, 0.3, 300), rng.uniform(0.01, 0.2, 300))
    order = np.argsort(-weights)
    affine, inside = np.empty(6), np.empty(300, bool)
    kernels.verify(
        one.places[order], other.places[order], weights[order], np.full(300, 8.0), 200, 1.5, 3.0, affine, inside
    )
    assert inside[right[order]].sum() >= 0.95 * right.sum()
    np.testing.assert_allclose(affine[:4], truth[:, :2].ravel(), atol=0.05)


@pytest.mark.parametrize("outliers", [0.1, 0.5, 0.9])
def test_a_known_map_is_found_among_outliers(outliers):
    rng = np.random.default_rng(7)
    one = geometry_of_random(rng, 400, words=400)
    truth = np.array([[0.6, 0.1, 100.0], [-0.12, 0.7, 30.0]])
    other, right = moved(rng, one, truth, outliers, noise=1.0)
    found = match(one, other, Verification(slack=0.01, reach=0.0))
    assert found.inliers >= 0.95 * right.sum()
    np.testing.assert_allclose(found.affine[:, :2], truth[:, :2], atol=0.05)
    corners = np.array([[0, 0, 1], [800, 0, 1], [0, 600, 1], [800, 600, 1]])
    assert np.abs(corners @ (found.affine - truth).T).max() < 8


def test_a_plane_seen_aslant_is_matched_as_a_whole():
    rng = np.random.default_rng(11)
    one = geometry_of_random(rng, 300, words=300)
    ends = np.c_[one.places[:, :2], np.ones(300)] @ np.array([[0.9, 0.05, 20], [-0.05, 0.9, 40], [2e-4, 1e-4, 1]]).T
    other = replace(one, places=one.places.copy())
    other.places[:, :2] = ends[:, :2] / ends[:, 2:]
    found = match(one, other, Verification(reach=0.0, slack=0.005))
    assert found.inliers >= 290


@pytest.mark.parametrize("mirror", [np.array([[-1.0, 0, 800], [0, 1, 0]]), np.array([[1.0, 0, 0], [0, 0.05, 0]])])
def test_mirrored_and_collapsed_maps_are_refused(mirror):
    rng = np.random.default_rng(5)
    one = geometry_of_random(rng, 100, words=100)
    other, _ = moved(rng, one, mirror)
    other.places[:, 2] = one.places[:, 2]
    found = match(one, other, Verification(reach=0.0))
    area = np.linalg.det(found.affine[:, :2])
    stretches = np.linalg.svd(found.affine[:, :2])[1]
    assert area > 0
    assert stretches[0] <= 3.0 * stretches[1] + 1e-9
    assert found.inliers < 30


@pytest.mark.parametrize("counts", [(0, 0), (0, 5), (5, 0), (1, 1)])
def test_images_of_no_or_one_feature(counts):
    rng = np.random.default_rng(1)
    one, other = (geometry_of_random(rng, count, words=1) for count in counts)
    found = match(one, other, Verification(similarity=0.0))
    assert found.inliers <= min(counts)
    assert np.isfinite(found.affine).all()
    assert found.overlap == (0.0, 0.0)
    assert found.query_box is None or len(found.query_box) == 4


def test_all_features_at_one_place():
    rng = np.random.default_rng(2)
    one = geometry_of_random(rng, 50, words=50)
    one.places[:] = (10, 20, 4, 0)
    found = match(one, one)
    assert (found.inliers, found.places, found.places_weight) == (50, 1, 1.0)
    np.testing.assert_allclose(found.affine, [[1, 0, 0], [0, 1, 0]], atol=1e-6)


def test_an_image_matches_itself_by_the_identity():
    one = geometry_of_random(np.random.default_rng(4), 200, words=50)
    found = match(one, one)
    np.testing.assert_allclose(found.affine, [[1, 0, 0], [0, 1, 0]], atol=1e-5)
    assert found.is_copy
    assert found.inliers == found.pairs == 200
    assert found.query_box == pytest.approx(found.box)
    assert min(found.overlap) > 80


@pytest.mark.parametrize("seed", range(5))
def test_places_are_counted_like_the_naive_twin(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 80))
    places = (rng.random((count, 4)) * 200 - 100).astype(np.float32)  # outside the image too
    weights, inside = rng.random(count), rng.random(count) < 0.6
    largest: dict[tuple[int, int], float] = {}
    for (x, y), weight, marked in zip(places[:, :2].tolist(), weights, inside, strict=True):
        if marked:
            cell = int(np.floor(x / 24.0)), int(np.floor(y / 24.0))
            largest[cell] = max(largest.get(cell, 0.0), weight)
    total = np.zeros(1)
    assert weigh_places(places, weights, inside, 24.0, total) == len(largest)
    assert total[0] == pytest.approx(sum(largest.values()))


@pytest.mark.parametrize(
    ("name", "value"), [("similarity", -0.1), ("slack", 0), ("proposals", 0), ("uneven", 0.5), ("reach", float("nan"))]
)
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        Verification(**{name: value})


def test_the_number_of_threads_changes_nothing():
    rng = np.random.default_rng(8)
    one = geometry_of_random(rng, 100)
    others = [geometry_of_random(rng, 100) for _ in range(8)] + [None]
    alone, together = match_all(one, others, count=1), match_all(one, others, count=4)
    assert alone[-1] is together[-1] is None
    for first, second in zip(alone[:-1], together[:-1], strict=True):
        assert (first.inliers, first.weight, first.places_weight) == (
            second.inliers,
            second.weight,
            second.places_weight,
        )
        assert (first.affine == second.affine).all()


# --- re-ranking -------------------------------------------------------------------------------------------------------


def test_evidence_is_added_to_the_score_over_the_best_of_the_others():
    rng = np.random.default_rng(9)
    one = geometry_of_random(rng, 100, words=100)
    other, _ = moved(rng, one, np.array([[1.0, 0, 5], [0, 1.0, 5]]), outliers=0.7)
    unlike = geometry_of_random(rng, 100, words=100)
    matches = match_all(one, [one, unlike, other])
    scores = np.array([1.0, 0.4, 0.3, 0.2])
    order, new = reranked(scores, [matches], Reranking(inlier_weight=0.1, places_weight=2.0))
    assert matches[0].is_copy and not matches[2].is_copy
    total = [
        score / 0.4 + (0.1 * found.inliers + 2.0 * found.places_weight if found else 0.0)
        for score, found in zip(scores, [*matches, None], strict=True)
    ]
    assert order.tolist() == sorted(range(4), key=lambda i: -total[i])
    np.testing.assert_allclose(new, sorted(total, reverse=True))


def test_nothing_to_rank_and_unverified_images():
    order, scores = reranked(np.empty(0), [[]], Reranking())
    assert len(order) == len(scores) == 0
    order, scores = reranked(np.array([0.5, 0.25]), [[None]], Reranking())
    assert order.tolist() == [0, 1]
    np.testing.assert_allclose(scores, [1.0, 0.5])


# --- through the index ------------------------------------------------------------------------------------------------

RECIPE = Recipe("custom:test", {})


@pytest.fixture(scope="module")
def photographs():
    """Twelve images of 60 features, `moved.jpg` with those of `image 03` at other places, some noise in each value."""
    rng = np.random.default_rng(0)
    images = {}
    for number in range(12):
        keypoints = np.c_[rng.random((60, 2)) * (640, 480), 2.0 ** rng.uniform(2, 4, 60)]
        descriptors = rng.normal(size=(60, 64)).astype(np.float32)
        images[f"image {number:02}"] = Features.from_descriptors(descriptors, keypoints, image_size=(640, 480))
    base = images["image 03"]
    keypoints = base.keypoints.copy()
    keypoints[:, :2] = keypoints[:, :2] * 0.5 + (100, 50)
    keypoints[:, 2] *= 0.5
    descriptors = base.descriptors + rng.normal(0, 0.05, base.descriptors.shape).astype(np.float32)
    images["moved.jpg"] = Features.from_descriptors(descriptors, keypoints, image_size=(640, 480))
    return images


@pytest.fixture
def index(photographs, tmp_path):
    with FeatureWriter(tmp_path / "x.features", RECIPE, 64) as writer:
        for number, (name, features) in enumerate(photographs.items(), start=1):
            writer.add(name, features, Source(1, 1, number))
    features = FeatureSet.open(tmp_path / "x.features")
    made = Index.create(tmp_path / "x.index", Codebook.train(features, words=8, seed=0))
    made.add(features)
    return made


def test_search_returns_where_an_image_matches(index, photographs):
    hits = Searcher(index).search(photographs["image 03"], top=3, rerank=20)
    assert [hit.name for hit in hits[:2]] == ["image 03", "moved.jpg"]
    (found,) = hits[1].matches
    assert found.inliers > 40
    np.testing.assert_allclose(found.affine, [[0.5, 0, 100], [0, 0.5, 50]], atol=1.0)
    assert found.overlap[0] == pytest.approx(4 * found.overlap[1], rel=0.1)
    assert hits[0].matches[0].is_copy


def test_scores_decrease_and_the_rest_keep_their_order(index, photographs):
    searcher = Searcher(index)
    plain = searcher.search(photographs["image 03"], top=None)
    anew = searcher.search(photographs["image 03"], top=None, rerank=4)
    assert {hit.name for hit in plain} == {hit.name for hit in anew}
    assert [hit.name for hit in plain[4:]] == [hit.name for hit in anew[4:]]
    scores = [hit.score for hit in anew]
    assert scores == sorted(scores, reverse=True)
    assert all(hit.matches for hit in anew[:4]) and not any(hit.matches for hit in anew[4:])


def test_rank_is_the_order_of_search(index, photographs):
    searcher = Searcher(index)
    numbers = searcher.image_numbers(photographs)
    for rerank in (None, 1, 5, 100):
        hits = searcher.search(photographs["image 05"], top=None, rerank=rerank)
        ranked = searcher.rank(photographs["image 05"], rerank=rerank)
        assert ranked.numbers.tolist() == [numbers[hit.name] for hit in hits]
        np.testing.assert_allclose(ranked.scores, [hit.score for hit in hits])
    wrapped = RerankingSearcher(searcher, 5)
    assert (
        wrapped.rank(photographs["image 05"]).numbers.tolist()
        == searcher.rank(photographs["image 05"], rerank=5).numbers.tolist()
    )
    assert wrapped.search(photographs["image 05"], 3) == searcher.search(photographs["image 05"], 3, rerank=5)


def test_several_queries_and_segments_answer_alike(index, photographs):
    searcher = Searcher(index)
    together = searcher.search(list(photographs.values()), 4, rerank=6)
    for features, hits in zip(photographs.values(), together, strict=True):
        assert searcher.search(features, 4, rerank=6, threads=1) == hits
    joined = JointIndex([index])
    assert Searcher(joined).search(photographs["image 03"], 4, rerank=6) == searcher.search(
        photographs["image 03"], 4, rerank=6
    )


def test_what_diffusion_found_is_verified_too(index, photographs):
    build_neighbours(index, 3)
    hits = DiffusionSearcher(Searcher(index)).search(photographs["image 03"], top=2, rerank=20)
    assert [hit.name for hit in hits] == ["image 03", "moved.jpg"]
    assert hits[1].matches[0].inliers > 40


def test_without_features_one_line_says_what_is_missing(index, photographs, tmp_path):
    (tmp_path / "x.features").rename(tmp_path / "elsewhere")
    with pytest.raises(NotFoundError, match=r"neither the geometry nor the features .* --geometry"):
        Searcher(index).search(photographs["image 03"], rerank=5)


def test_images_without_features_are_warned_of(index, photographs):
    rng = np.random.default_rng(1)
    index.add([("array", rng.normal(size=(30, 64)))], recipe=index.recipe)
    with pytest.warns(AsmkWarning, match=r"1 of the 1\d images to verify, such as 'array'"):
        hits = Searcher(index).search(photographs["image 03"], top=None, rerank=50)
    assert [hit.name for hit in hits[:2]] == ["image 03", "moved.jpg"]


def test_signatures_cannot_be_verified(index, photographs):
    searcher = Searcher(index)
    signature = searcher.sign(photographs["image 03"])
    assert isinstance(signature, Signature)
    with pytest.raises(InputError, match="no places"):
        searcher.search(signature, rerank=3)
    with pytest.raises(InputError, match="1 or more"):
        searcher.search(photographs["image 03"], rerank=0)


def test_an_empty_query_finds_nothing(index):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Searcher(index).search(Features.from_descriptors(np.empty((0, 64), np.float32)), rerank=5) == []


def test_a_query_geometry_has_all_words_of_a_feature(index, photographs):
    several = image_geometry(photographs["image 03"], index.codebook, 3, most=10)
    assert len(several) == 10
    assert len(several.words) == 30
    assert (np.diff(several.words.astype(int)) >= 0).all()
    assert sorted(several.features.tolist()) == sorted([*range(10)] * 3)


# --- turned queries ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", turns(rotations=True, mirror=True), ids=lambda turn: turn.label or "upright")
def test_places_and_boxes_turn_with_the_pixels(turn):
    pixels = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    turned, matrix = turn.pixels(pixels), turn.matrix((7, 5))
    for x in range(7):
        for y in range(5):
            right, down, _ = (matrix @ (x, y, 1)).astype(int)
            assert (turned[down, right] == pixels[y, x]).all()
    x1, y1, x2, y2 = turn.box((1, 2, 4, 5), (7, 5))
    assert sorted(turned[y1:y2, x1:x2, 0].ravel()) == sorted(pixels[2:5, 1:4, 0].ravel())


def test_the_turns_that_are_asked_for():
    assert [turn.label for turn in turns()] == [""]
    assert [turn.label for turn in turns(rotations=True)] == ["", "90", "180", "270"]
    assert [turn.label for turn in turns(mirror=True)] == ["", "mirrored"]
    assert len(turns(rotations=True, mirror=True)) == 8
