"""The codebook: whitening, k-means, assignment, and the file it is kept in."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive
from asmk_engine.codebooks import Codebook, choose_words
from asmk_engine.codebooks.checks import MOST_BITS
from asmk_engine.codebooks.kmeans import kmeans
from asmk_engine.codebooks.sample import sample_descriptors
from asmk_engine.codebooks.whitening import learn_whitening
from asmk_engine.errors import DamagedError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.features import FeatureSet
from samples import RECIPE, make_features, random_codebook, random_images, write_features

DIM = 8


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    return write_features(tmp_path / "features", random_images(60, DIM, features=40))


@given(st.integers(0, 9), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32))
def test_assignment_equals_its_twin(count: int, words: int, k: int, seed: int) -> None:
    codebook = random_codebook(words, DIM, seed)
    descriptors = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    found = codebook.assign(descriptors, min(k, words))
    assert found.dtype == np.int32 and found.shape == (count, min(k, words))
    assert found.tolist() == [naive.nearest_words(d, codebook.centroids, min(k, words)) for d in descriptors]


def test_equal_centroids_give_the_lower_word_first() -> None:
    centroids = np.ones((4, DIM), np.float32)
    codebook = Codebook(np.zeros(DIM, np.float32), np.eye(DIM, dtype=np.float32), centroids, RECIPE)
    assert codebook.assign(np.ones((1, DIM)), 4).tolist() == [[0, 1, 2, 3]]


def test_whitening_makes_the_covariance_the_identity() -> None:
    rng = np.random.default_rng(0)
    descriptors = (rng.normal(size=(5000, DIM)) @ rng.normal(size=(DIM, DIM)) + 3).astype(np.float32)
    mean, projection = learn_whitening(descriptors)
    white = (descriptors - mean) @ projection.T
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(white.T), np.eye(DIM), atol=5e-3)
    again = learn_whitening(descriptors)
    assert np.array_equal(mean, again[0]) and np.array_equal(projection, again[1])


def test_whitening_survives_directions_without_variance() -> None:
    descriptors = np.random.default_rng(0).normal(size=(100, DIM)).astype(np.float32)
    descriptors[:, 3] = 1.0
    _, projection = learn_whitening(descriptors)
    assert np.isfinite(projection).all() and np.abs(projection).max() < 1e5
    assert np.isfinite(learn_whitening(np.ones((5, DIM), np.float32))[1]).all()


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_kmeans_never_gets_worse_and_repeats_itself(backend: str) -> None:
    pytest.importorskip(backend)
    rng = np.random.default_rng(0)
    centres = 10 * rng.normal(size=(6, DIM))
    descriptors = (centres[rng.integers(0, 6, 600)] + rng.normal(size=(600, DIM))).astype(np.float32)
    centroids, history = kmeans(descriptors, 6, rounds=15, seed=3, backend=backend)
    distortions = [done.distortion for done in history]
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in itertools.pairwise(distortions))
    assert np.array_equal(centroids, kmeans(descriptors, 6, rounds=15, seed=3, backend=backend)[0])
    assert not np.array_equal(centroids, kmeans(descriptors, 6, rounds=1, seed=4, backend=backend)[0])
    nearest = np.array([naive.nearest_words(d, centroids, 1)[0] for d in descriptors])
    for word in range(6):
        np.testing.assert_allclose(centroids[word], descriptors[nearest == word].mean(axis=0), atol=1e-4)


def test_one_round_of_kmeans_is_lloyds() -> None:
    rng = np.random.default_rng(1)
    descriptors = rng.normal(size=(200, DIM)).astype(np.float32)
    first, _ = kmeans(descriptors, 5, rounds=1, seed=0, backend="torch")
    start = descriptors[np.sort(np.random.default_rng(0).choice(200, 5, replace=False))]
    words = np.array([naive.nearest_words(d, start, 1)[0] for d in descriptors])
    for word in range(5):
        np.testing.assert_allclose(first[word], descriptors[words == word].mean(axis=0), atol=1e-5)


def test_empty_words_are_seeded_anew() -> None:
    descriptors = np.repeat(np.arange(4, dtype=np.float32)[:, None] * 10, DIM, axis=1)
    descriptors = np.concatenate([np.repeat(descriptors[:1], 50, axis=0), descriptors[1:]])
    centroids, history = kmeans(descriptors, 4, rounds=12, seed=0, backend="torch")
    assert any(done.reseeded for done in history)
    assert sorted(centroids[:, 0].round().tolist()) == [0, 10, 20, 30]


def test_sampling_is_uniform_and_takes_all_when_there_are_few(features: FeatureSet) -> None:
    total = features.descriptor_count
    everything = sample_descriptors(features, total + 5, np.random.default_rng(0))
    stored = np.concatenate([image.descriptors for _, image in features.images()])
    assert np.array_equal(np.unique(everything, axis=0), np.unique(stored, axis=0)) and len(everything) == total
    chosen = np.zeros(total)
    for seed in range(200):
        part = sample_descriptors(features, total // 4, np.random.default_rng(seed))
        assert len(np.unique(part, axis=0)) == total // 4
        chosen += np.isin(stored[:, 0], part[:, 0])
    assert chosen.min() > 20 and chosen.max() < 90  # 50 expected, binomial


@pytest.mark.parametrize(
    ("descriptors", "words"), [(0, 1), (399, 1), (400, 2), (204_799, 512), (204_800, 1024), (10**9, 65_536)]
)
def test_auto_leaves_two_hundred_descriptors_a_word(descriptors: int, words: int) -> None:
    assert choose_words("auto", descriptors, Path("f")) == words


def test_too_many_words_name_the_largest_possible_number_and_that_of_auto() -> None:
    assert choose_words(100, 10_000, Path("f")) == 100
    with pytest.raises(InputError, match=r"10000 descriptors.* 65536 words.*at most 256, or auto, which takes 32"):
        choose_words(65_536, 10_000, Path("f"))
    assert choose_words(256, 10_000, Path("f")) == 256
    for bad in (0, -3, "many"):
        with pytest.raises(InputError):
            choose_words(bad, 10_000, Path("f"))


def test_training_is_reproducible_and_recorded(features: FeatureSet, tmp_path: Path) -> None:
    rounds = []
    one = Codebook.train(features, 16, rounds=3, seed=7, on_round=rounds.append)
    assert Codebook.train(features, 16, rounds=3, seed=7).fingerprint == one.fingerprint
    assert Codebook.train(features, 16, rounds=3, seed=8).fingerprint != one.fingerprint
    assert [done.number for done in rounds] == [1, 2, 3] and one.training["distortion"] == rounds[-1].distortion
    assert one.recipe == RECIPE and one.words == 16
    plain = Codebook.train(features, 16, rounds=1, whitening="none")
    assert np.array_equal(plain.projection, np.eye(DIM)) and not plain.mean.any()
    for bad in ({"whitening": "zca"}, {"backend": "sklearn"}, {"rounds": 0}):
        with pytest.raises(InputError):
            Codebook.train(features, 16, **bad)


def test_images_without_features_cannot_train(tmp_path: Path) -> None:
    empty = write_features(tmp_path / "f", {"grey.jpg": make_features(np.zeros((0, DIM)))})
    with pytest.raises(InputError, match="no image has a feature"):
        Codebook.train(empty)


def test_a_codebook_file_comes_back_and_damage_is_named(tmp_path: Path) -> None:
    codebook = random_codebook(12, DIM)
    path = tmp_path / "c.h5"
    codebook.save(path)
    found = Codebook.open(path)
    assert found.fingerprint == codebook.fingerprint and found.recipe == codebook.recipe
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 30)):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedError, match=r"c\.h5"):
            Codebook.open(path)
    place = whole.index(codebook.centroids.tobytes()[:16])
    path.write_bytes(whole[:place] + b"\1" + whole[place + 1 :])
    with pytest.raises(DamagedError, match="fingerprint"):
        Codebook.open(path)
    with pytest.raises(NotFoundError, match="no such codebook"):
        Codebook.open(tmp_path / "none.h5")


def test_other_hdf5_files_are_no_codebooks(tmp_path: Path) -> None:
    write_features(tmp_path / "f", random_images(1, DIM))
    with pytest.raises(FormatError, match="not a codebook"):
        Codebook.open(tmp_path / "f" / "part-000000.h5")


def test_descriptors_are_checked() -> None:
    codebook = random_codebook(4, DIM)
    with pytest.raises(MismatchError, match=r"\(2, 9\).*\[n, 8\]"):
        codebook.assign(np.ones((2, DIM + 1)))
    with pytest.raises(InputError, match="NaN"):
        codebook.assign(np.full((2, DIM), np.nan))
    with pytest.raises(InputError, match="5 assignments"):
        codebook.assign(np.ones((2, DIM)), 5)
    for broken in (np.full((4, DIM), np.inf, np.float32), np.zeros((0, DIM), np.float32), np.zeros((4, 3), np.float32)):
        with pytest.raises(DamagedError):
            Codebook(codebook.mean, codebook.projection, broken, RECIPE)


def test_codes_longer_than_distances_can_count_are_refused() -> None:
    for dim in (MOST_BITS, MOST_BITS + 1):
        arrays = np.zeros(1, np.float32), np.zeros((dim, 1), np.float32), np.zeros((1, dim), np.float32)
        if dim == MOST_BITS:
            assert Codebook(*arrays, RECIPE).dim == dim
        else:
            with pytest.raises(DamagedError, match="expected at most 32768"):
                Codebook(*arrays, RECIPE)


def test_the_threads_of_products_change_no_bit(tmp_path: Path) -> None:
    """A descriptor that is its own word has a residual of rounding alone, whose sign is a bit of a code."""
    program = (
        "import sys, numpy as np; from asmk_engine import Codebook; rng = np.random.default_rng(0);"
        "sample = rng.random((300, 128)).astype(np.float32); book = Codebook.train([sample], words=4, seed=0);"
        "sys.stdout.buffer.write(book.project(sample).tobytes())"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": count, "OMP_NUM_THREADS": count},
        ).stdout
        for count in ("1", "2")
    ]  # fmt: skip
    assert len(found[0]) == 300 * 128 * 4 and found[0] == found[1]
