"""Whitening of whole-image descriptors, by PCA and from pairs, against loops in float64; and the command for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import naive_global
from asmk_engine.cli.extract import extract
from asmk_engine.cli.whiten_global import whiten_global
from asmk_engine.errors import InputError, MismatchError, NotFoundError
from asmk_engine.extractors import load_extractor
from asmk_engine.features import Features, FeatureSet, FeatureWriter
from asmk_engine.networks.global_checkpoints import open_global_checkpoint
from asmk_engine.recipes import Recipe
from asmk_engine.training.global_whitening import (
    BATCH,
    SMALLEST_REPAIR,
    cholesky_factor,
    pair_projection,
    pca_projection,
    read_pairs,
    whitened_network,
)
from tiny_networks import tiny_checkpoint

DIM, COUNT = 6, 40


def some_rows(count: int = COUNT, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """Unit vectors, stretched along some directions."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, dim)) * np.linspace(2, 0.3, dim) @ random.normal(size=(dim, dim)) + 1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def batches(rows: np.ndarray, size: int = 7) -> list[torch.Tensor]:
    return [torch.from_numpy(rows[begin : begin + size]) for begin in range(0, len(rows), size)]


def assert_same_up_to_signs(found: torch.Tensor, expected: np.ndarray) -> None:
    signs = np.sign(np.sum(found.numpy() * expected, axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected * signs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("dim", "power"), [(DIM, 1.0), (3, 1.0), (4, 0.5), (2, 0.0), (1, 1.0)])
def test_pca_equals_its_twin(dim: int, power: float) -> None:
    rows = some_rows()
    found = pca_projection(batches(rows), dim, power)
    mean, matrix = naive_global.pca(rows, dim, power)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-9)
    assert_same_up_to_signs(found.matrix, matrix)


def test_what_is_whitened_has_the_unit_as_its_covariance() -> None:
    rows = some_rows()
    found = pca_projection(batches(rows), 4)
    whitened = (torch.from_numpy(rows) - found.mean) @ found.matrix.T
    np.testing.assert_allclose(whitened.T @ whitened / COUNT, np.eye(4), atol=1e-9)
    expected = [naive_global.unit(row) for row in whitened.numpy()]
    np.testing.assert_allclose(found.apply(torch.from_numpy(rows)), expected, atol=1e-12)


@pytest.mark.parametrize("dim", [DIM, 2])
def test_whitening_from_pairs_equals_its_twin(dim: int) -> None:
    rows, random = some_rows(), np.random.default_rng(1)
    queries, positives = random.integers(0, COUNT, 25).tolist(), random.integers(0, COUNT, 25).tolist()
    found = pair_projection(batches(rows), torch.from_numpy(rows[[queries, positives]].transpose(1, 0, 2)), dim)
    mean, matrix = naive_global.pairs(rows, queries, positives, dim)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-9)
    assert_same_up_to_signs(found.matrix, matrix)
    assert found.repair == 0


def test_after_whitening_from_pairs_their_differences_are_alike_in_all_directions() -> None:
    rows = some_rows(60)
    pairs = torch.from_numpy(rows.reshape(30, 2, DIM))
    found = pair_projection(batches(rows), pairs, DIM)
    differences = (pairs[:, 0] - pairs[:, 1]) @ found.matrix.T
    np.testing.assert_allclose(differences.T @ differences / 30, np.eye(DIM), atol=1e-8)


def test_few_pairs_are_repaired_and_it_is_said() -> None:
    rows = some_rows()
    found = pair_projection(batches(rows), torch.from_numpy(rows[:4].reshape(2, 2, DIM)), DIM)
    assert found.repair > 0 and torch.isfinite(found.matrix).all()


def test_the_repair_is_the_first_of_its_steps_that_helps() -> None:
    exact = torch.tensor([[4.0, 2.0], [2.0, 3.0]], dtype=torch.float64)
    factor, repair = cholesky_factor(exact)
    assert repair == 0
    np.testing.assert_allclose(factor @ factor.T, exact, rtol=1e-12)
    assert cholesky_factor(torch.zeros(3, 3, dtype=torch.float64))[1] == SMALLEST_REPAIR
    factor, repair = cholesky_factor(torch.diag(torch.tensor([1.0, -5e-8], dtype=torch.float64)))
    assert repair == pytest.approx(1e-7)
    np.testing.assert_allclose(factor @ factor.T, np.diag([1 + 1e-7, 5e-8]), rtol=1e-6)
    with pytest.raises(InputError, match="NaN or infinity"):
        cholesky_factor(torch.tensor([[torch.nan]]))


def test_what_cannot_be_learned_is_refused() -> None:
    rows = some_rows(4)
    with pytest.raises(InputError, match="4 descriptors are too few for a reduction to 4 dimensions"):
        pca_projection(batches(rows), 4)
    with pytest.raises(InputError, match=r"power is 2; expected 0 \(rotate only\) to 1"):
        pca_projection(batches(rows), 2, 2.0)
    for dim in (0, 7):
        with pytest.raises(InputError, match=f"dim is {dim}; the descriptors have 6 dimensions"):
            pca_projection(batches(rows), dim)
        with pytest.raises(InputError, match=f"dim is {dim}; the descriptors have 6 dimensions"):
            pair_projection(batches(rows), torch.from_numpy(rows.reshape(2, 2, DIM)), dim)
    with pytest.raises(InputError, match="no descriptors to learn from"):
        pca_projection([], 2)
    with pytest.raises(InputError, match="no pairs to learn a whitening from"):
        pair_projection(batches(rows), torch.zeros(0, 2, DIM), 2)


# Pairs in a file


def test_pairs_are_read_with_and_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text('﻿query,positive\na.jpg,b/c.jpg\n\n"d, e.jpg",f.jpg\n', encoding="utf-8")
    assert read_pairs(path) == [("a.jpg", "b/c.jpg"), ("d, e.jpg", "f.jpg")]
    path.write_text("a.jpg,b.jpg\n")
    assert read_pairs(path) == [("a.jpg", "b.jpg")]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a,b\nc\n", "line 2 has 1 columns"), (b"a,b,1\n", "line 1 has 3"), (b"query,positive\n", "no pairs"),
     (b"", "no pairs"), (b"\xff\xfe,b", "cannot read the pairs"), (None, "cannot read the pairs")],
)  # fmt: skip
def test_files_that_hold_no_pairs(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_pairs(path)
    assert "pairs.csv" in str(caught.value) and "\n" not in str(caught.value)


# The command


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 56, 3), np.uint8)
        pixels[:, : 7 * number] = 255 - 20 * number
        Image.fromarray(pixels).save(tmp_path / f"photos/{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def extracted(photographs: Path, tmp_path: Path) -> Path:
    """Features of the photographs, with their network beside them."""
    local = tiny_checkpoint(tmp_path / "local.safetensors")
    arguments = [photographs, "-o", tmp_path / "gem.features", "--extractor", "gem", "--weights", local]
    run(extract, *arguments, "--scales", "1,0.5", "--exponent", 2.0, "--workers", 0)
    return tmp_path / "gem.features"


def run(command: object, *arguments: object) -> Result:
    done = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)  # type: ignore[arg-type]
    assert done.exit_code == 0, done.output
    return done


def test_a_whitened_network_describes_by_itself(extracted: Path, photographs: Path, tmp_path: Path) -> None:
    output = tmp_path / "white.safetensors"
    said = run(whiten_global, extracted, "-o", output, "--dim", 3).stderr
    assert "white.safetensors: 3 dimensions, whitened on 8 images, sha256" in said
    before = FeatureSet.open(extracted)
    assert before.recipe.options["scales"] == [1.0, 0.5]
    projection = pca_projection([torch.from_numpy(found.descriptors) for _, found in before.images()], 3)
    white = load_extractor("gem", weights=str(output))
    assert white.recipe.options["scales"] == [1.0, 0.5] and white.dim == 3
    for name, found in before.images():
        expected = projection.apply(torch.from_numpy(found.descriptors))
        np.testing.assert_allclose(white.extract(photographs / name).descriptors, expected, atol=1e-4)
    origin = open_global_checkpoint(output)[1]
    assert origin["method"] == "pca" and origin["images"] == 8 and json.loads(origin["recipe"])["extractor"] == "gem"


def test_the_weights_say_which_extractor_they_are_for(extracted: Path, photographs: Path, tmp_path: Path) -> None:
    run(whiten_global, extracted, "-o", tmp_path / "white.safetensors", "--dim", 4)
    arguments = (photographs, "-o", tmp_path / "white.features", "--weights", tmp_path / "white.safetensors")
    run(extract, *arguments, "--workers", 0)
    found = FeatureSet.open(tmp_path / "white.features")
    assert found.recipe.extractor == "gem" and found.dim == 4 and len(found) == 8


def test_whitening_from_pairs_by_the_command(extracted: Path, photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("query,positive\n0.png,1.png\n2.png,3.png\n")
    output = tmp_path / "white.safetensors"
    said = run(whiten_global, extracted, "-o", output, "--pairs", tmp_path / "pairs.csv", "--dim", 5).stderr
    assert "5 dimensions, whitened on 8 images and 2 pairs" in said and "was added to their covariance" in said
    features = FeatureSet.open(extracted)
    vectors = [features.read(f"{number}.png").descriptors[0] for number in range(8)]
    rows = torch.from_numpy(np.array(vectors, np.float64))
    expected = pair_projection([rows], rows[:4].reshape(2, 2, -1), 5)
    network = open_global_checkpoint(output)[0]
    scale = expected.matrix.abs().max()
    np.testing.assert_allclose(network.projection.weight.detach() / scale, expected.matrix / scale, atol=1e-6)  # type: ignore[union-attr]


def test_the_command_refuses_what_does_not_belong_together(extracted: Path, photographs: Path, tmp_path: Path) -> None:
    features, output = FeatureSet.open(extracted), tmp_path / "white.safetensors"
    other = Path(tiny_checkpoint(tmp_path / "other.safetensors", 1))
    with pytest.raises(MismatchError, match="not the weights of"):
        whitened_network(features, other)
    with pytest.raises(NotFoundError, match=r"1 of 2 images of the pairs are missing: 'x\.png'"):
        whitened_network(features, tmp_path / "gem.network.safetensors", pairs=[("0.png", "x.png")])
    for arguments, error, message in (
        (["-o", tmp_path / "white.pth"], InputError, "networks are written as .safetensors"),
        (["-o", output, "--weights", tmp_path / "none"], NotFoundError, "no such file of weights"),
        (["-o", output, "--dim", 8], InputError, "8 descriptors are too few for a reduction to 8 dimensions"),
    ):
        done = CliRunner().invoke(whiten_global, [str(extracted), *map(str, arguments)])
        assert isinstance(done.exception, error) and message in str(done.exception)
    (tmp_path / "gem.network.safetensors").unlink()
    done = CliRunner().invoke(whiten_global, [str(extracted), "-o", str(output)])
    assert isinstance(done.exception, NotFoundError) and "were not found" in str(done.exception)


def test_features_of_another_kind_are_refused(tmp_path: Path) -> None:
    weights = Path(tiny_checkpoint(tmp_path / "a.safetensors"))

    def written(extractor: str, descriptors: int) -> FeatureSet:
        path = tmp_path / f"{extractor}{descriptors}"
        with FeatureWriter(path, Recipe(extractor, {}, "0" * 64), DIM, images_root="") as writer:
            arrays = (np.ones((descriptors, DIM), np.float32), np.zeros((descriptors, 3), np.float32))
            writer.add("a", Features(*arrays, np.ones(descriptors, np.float32), (4, 4)))
        return FeatureSet.open(path)

    with pytest.raises(InputError, match="features of how; expected one of gem, spoc, mac, rmac, crow"):
        whitened_network(written("how", 1), weights)
    for count in (0, 2):
        with pytest.raises(InputError, match=f"'a' has {count} descriptors; expected one"):
            whitened_network(written("mac", count), weights)


def test_many_images_pass_in_batches(extracted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features, weights = FeatureSet.open(extracted), extracted.with_name("gem.network.safetensors")
    whole = whitened_network(features, weights, dim=4)[0].state_dict()
    assert BATCH > 8
    monkeypatch.setattr("asmk_engine.training.global_whitening.BATCH", 3)
    for key, value in whitened_network(features, weights, dim=4)[0].state_dict().items():
        torch.testing.assert_close(value, whole[key], rtol=1e-4, atol=1e-4)
