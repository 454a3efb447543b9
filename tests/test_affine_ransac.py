"""The verification of DELF and DELG against its twin and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import fit
from skimage.transform import AffineTransform

import naive_affine_ransac as naive
from asmk_engine import Features
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.verification.affine_ransac import (
    AffineRansac,
    affine_maps,
    explained,
    random_samples,
    ransac_match,
    ransac_match_all,
)

AFFINE = np.array([[0.8, 0.2, 30.0], [-0.3, 1.1, 60.0]])


def unit(rng, count, dim=8):
    vectors = rng.normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def mapped(rng, sources, outliers):
    """Places mapped by `AFFINE` and moved a little, a share of them anywhere."""
    targets = sources @ AFFINE[:, :2].T + AFFINE[:, 2] + rng.normal(0, 4, sources.shape)
    away = rng.random(len(sources)) < outliers
    targets[away] = rng.uniform(0, 800, (away.sum(), 2))
    return targets


def image_pair(rng, count=40, noise=0.2, outliers=0.5):
    """Two images, `Features` each, whose descriptors differ by noise and whose places differ by `AFFINE`."""
    descriptors, places = unit(rng, count), rng.uniform(0, 800, (count, 2))
    others = descriptors + rng.normal(0, noise / np.sqrt(8), descriptors.shape).astype(np.float32)
    order = rng.permutation(count)
    return (
        Features.from_descriptors(descriptors, mapped(rng, places, outliers)),
        Features.from_descriptors(others[order], places[order]),
    )


def length_one(features):
    vectors = features.descriptors.astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("options", [AffineRansac(trials=60), AffineRansac.detect_to_retrieve(),
                                     AffineRansac(ratio=0.8, trials=60, seed=3)])  # fmt: skip
@pytest.mark.parametrize("seed", [0, 1])
def test_a_match_is_that_of_the_twin(options, seed):
    query, other = image_pair(np.random.default_rng(seed), count=24)
    pairs = naive.near_pairs(length_one(query), length_one(other), options.distance, options.ratio)
    ones, others = np.array(pairs).T
    inside = naive.best_inliers(
        other.keypoints[others, :2].astype(float), query.keypoints[ones, :2].astype(float),
        options.residual, options.trials, options.seed,
    )  # fmt: skip
    found = ransac_match(query, other, options)
    assert found.pairs == len(pairs) > 3
    assert found.inliers == len(inside) >= 3
    np.testing.assert_array_equal(found.query_features, ones[inside])
    np.testing.assert_array_equal(found.features, others[inside])


class EarlyGenerator(np.random.Generator):
    """Draws as scikit-image did up to 0.18, for a version that takes a generator."""

    def __init__(self, seed):
        super().__init__(np.random.PCG64(0))
        self._state = np.random.RandomState(seed)

    def choice(self, *given, **options):
        """Draw from the early generator."""
        return self._state.choice(*given, **options)


@pytest.mark.parametrize("count, outliers", [(4, 0.0), (8, 0.5), (60, 0.7), (30, 1.0)])
def test_scikit_image_finds_the_same_with_the_random_numbers_of_its_time(monkeypatch, count, outliers):
    monkeypatch.setattr(fit, "_dynamic_max_trials", lambda *_: np.inf)
    rng = np.random.default_rng(count)
    sources = rng.uniform(0, 800, (count, 2))
    targets = mapped(rng, sources, outliers)
    if count == 60:  # samples on a line and of equal places, which no affine map fits alone
        sources[:20, 1], sources[20:25] = 100, sources[20]
    _, inside = fit.ransac((sources, targets), AffineTransform, 3, 20.0, max_trials=80, rng=EarlyGenerator(0))
    np.testing.assert_array_equal(explained(sources, targets, AffineRansac(trials=80)), inside)


def test_maps_of_three_pairs_are_exact():
    rng = np.random.default_rng(0)
    sources, targets = rng.uniform(0, 800, (5, 3, 2)), rng.uniform(0, 800, (5, 3, 2))
    for found, one, other in zip(affine_maps(sources, targets), sources, targets, strict=True):
        np.testing.assert_allclose(found, naive.solved_map(one, other), rtol=1e-6, atol=1e-6)


def test_places_that_are_all_equal_have_no_map_and_explain_nothing():
    same = np.full((6, 2), 5.0)
    assert np.isnan(affine_maps(same[None, :3], same[None, :3])).all()
    assert not explained(same, same, AffineRansac(trials=5)).any()


def test_samples_are_three_different_pairs_and_depend_on_the_seed_alone():
    samples = random_samples(5, AffineRansac(trials=50))
    assert samples.shape == (50, 3)
    assert all(len(set(one)) == 3 for one in samples.tolist())
    np.testing.assert_array_equal(samples, random_samples(5, AffineRansac(trials=50)))
    assert not np.array_equal(samples, random_samples(5, AffineRansac(trials=50, seed=1)))
    assert samples[0].tolist() == [2, 0, 1]  # RandomState(0).permutation(5)[:3], fixed by numpy for ever


@pytest.mark.parametrize("count", [0, 1, 3])
def test_three_pairs_or_fewer_match_in_nothing(count):
    rng = np.random.default_rng(count)
    one = Features.from_descriptors(unit(rng, count), rng.uniform(0, 100, (count, 2)))
    found = ransac_match(one, one)
    assert (found.pairs, found.inliers) == (count, 0)


def test_an_image_matches_itself_in_all_its_features():
    rng = np.random.default_rng(0)
    one = Features.from_descriptors(unit(rng, 20), rng.uniform(0, 100, (20, 2)))
    assert ransac_match(one, one).inliers == 20


def test_the_length_of_descriptors_does_not_count():
    query, other = image_pair(np.random.default_rng(0))
    longer = Features.from_descriptors(7 * other.descriptors, other.keypoints)
    np.testing.assert_array_equal(ransac_match(query, other).features, ransac_match(query, longer).features)


def test_a_distance_is_below_the_threshold_not_at_it():
    one = Features.from_descriptors(np.ones((8, 1), np.float32))
    opposite = Features.from_descriptors(-np.ones((8, 1), np.float32))
    assert ransac_match(one, opposite, AffineRansac(distance=2.0)).pairs == 0
    assert ransac_match(one, opposite, AffineRansac(distance=2.001)).pairs == 8


def test_one_feature_of_the_other_image_has_no_second_neighbour():
    rng = np.random.default_rng(0)
    one, other = image_pair(rng, count=8)
    assert ransac_match(one, other.strongest(1), AffineRansac(ratio=0.5)).pairs == 8


def test_many_images_are_matched_one_by_one():
    query, other = image_pair(np.random.default_rng(0))
    found = ransac_match_all(query, [other, query, other.strongest(2)], AffineRansac(trials=20), count=2)
    expected = [ransac_match(query, one, AffineRansac(trials=20)).inliers for one in (other, query, other.strongest(2))]
    assert [one.inliers for one in found] == expected


def test_descriptors_of_other_lengths_are_refused_unless_there_are_none():
    rng = np.random.default_rng(0)
    one, other = (Features.from_descriptors(unit(rng, 5, dim)) for dim in (8, 4))
    with pytest.raises(MismatchError, match="8 dimensions, those of the other image 4"):
        ransac_match(one, other)
    assert ransac_match(one, other.strongest(0)).inliers == 0


@pytest.mark.parametrize("wrong", [{"distance": 0}, {"residual": float("nan")}, {"ratio": -1}, {"trials": 0},
                                   {"seed": -1}])  # fmt: skip
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        AffineRansac(**wrong)
