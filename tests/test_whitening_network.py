"""The reduction learned from photographs, against a PCA by loops in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import naive_networks as naive
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.images.decoding import View
from asmk_engine.images.listing import find_images
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.multiscale import normalise_pixels
from asmk_engine.storage.user_files import file_sha256
from asmk_engine.training import whitening
from asmk_engine.training.whitening import Moments, initial_network, learn_reduction, strongest_locations, views
from tiny_networks import picture, randomised, tiny_network, tiny_options


def view(height: int, width: int, seed: int) -> View:
    return View(picture(height, width, seed), (width, height), (0, 0), (1.0, 1.0))


VIEWS = [view(40, 56, 1), view(48, 33, 2), view(64, 40, 3), view(3, 90, 4)]  # no location in the last


def locations_of(network: LocalNetwork, photographs: list[View], most: int) -> np.ndarray:
    """The strongest locations [n, C] of every photograph that has some, by loops in float64."""
    weights = {key: value.double().numpy() for key, value in network.backbone.state_dict().items()}
    mean, std = (np.array(values)[:, None, None] for values in (network.options.mean, network.options.std))
    found: list[np.ndarray] = []
    for photograph in photographs:
        if min(photograph.pixels.shape[:2]) < network.backbone.least_side:
            continue
        image = (photograph.pixels.transpose(2, 0, 1) / 255 - mean) / std
        locations = naive.squeezenet(image, weights, network.options.skip)
        scores, smoothed = naive.norm_attention(locations), naive.smoothed(locations, network.options.smoothing)
        order = sorted(np.ndindex(scores.shape), key=lambda place, s=scores: (-s[place], place))[:most]
        found += [smoothed[:, row, column] for row, column in order]
    if network.options.reduction in ("post", "post-whitening"):
        found = [naive.unit(location) for location in found]
    return np.array(found)


def learned(network: LocalNetwork) -> tuple[np.ndarray, np.ndarray]:
    """The projection [D, C] and the bias [D] of the reduction, in float64."""
    weight, bias = (network.state_dict()[f"reduction.{part}"].double().numpy() for part in ("weight", "bias"))
    return weight[:, :, 0, 0], bias


@pytest.mark.parametrize(("reduction", "power"), [("network", 1.0), ("post", 0.0), ("post-whitening", 1.0)])
@pytest.mark.parametrize("most", [50, 1000])
def test_the_reduction_is_that_of_a_naive_pca(
    reduction: str, power: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whitening, "PER_IMAGE", most)
    network = tiny_network(reduction=reduction, dim=6)
    locations = locations_of(network, VIEWS, most)
    assert learn_reduction(network, iter(VIEWS)) == {"images": 3, "descriptors": len(locations)}
    mean, rows = naive.whitening(locations, 6, power)
    projection, bias = learned(network)
    signs = np.sign((projection * rows).sum(1))[:, None]
    np.testing.assert_allclose(projection, signs * rows, rtol=2e-3, atol=2e-4 * np.abs(rows).max())
    np.testing.assert_allclose(bias, -projection @ mean, rtol=1e-4, atol=1e-4 * np.abs(bias).max())


@torch.inference_mode()
def test_whitened_descriptors_have_unit_covariance_and_no_mean() -> None:
    network = tiny_network(dim=8)
    learn_reduction(network, VIEWS)
    found = torch.cat([_descriptors(network, photograph) for photograph in VIEWS[:3]]).double().numpy()
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(found.T, bias=True), np.eye(8), atol=2e-3)


def _descriptors(network: LocalNetwork, photograph: View) -> torch.Tensor:
    pixels = normalise_pixels(torch.from_numpy(photograph.pixels)[None], network.options)
    return network(pixels)[0][0].flatten(1).T


@torch.inference_mode()
def test_a_reduction_after_training_turns_without_stretching() -> None:
    network = tiny_network(reduction="post", dim=8)
    learn_reduction(network, VIEWS)
    projection, _ = learned(network)
    np.testing.assert_allclose(projection @ projection.T, np.eye(8), atol=1e-5)
    found = _descriptors(network, VIEWS[0])
    np.testing.assert_allclose(found.norm(dim=1), 1, rtol=1e-5)


@torch.inference_mode()
def test_a_whitening_after_training_gives_unit_vectors_equal_variance() -> None:
    """The ô of HOW's Table 1: PCA-whitening of unit vectors, and unit length again."""
    network = tiny_network(reduction="post-whitening", dim=8)
    learn_reduction(network, VIEWS)
    projection, bias = learned(network)
    units = np.array([naive.unit(one) for one in locations_of(network, VIEWS, 10**6)])
    whitened = units @ projection.T + bias
    np.testing.assert_allclose(whitened.mean(0), 0, atol=2e-3)
    np.testing.assert_allclose(np.cov(whitened.T, bias=True), np.eye(8), atol=5e-3)
    np.testing.assert_allclose(_descriptors(network, VIEWS[0]).norm(dim=1), 1, rtol=1e-5)


def test_the_same_photographs_give_the_same_network_and_signs_are_fixed() -> None:
    found = []
    for order in ([0, 1, 2], [2, 0, 1]):
        network = tiny_network(dim=5)
        learn_reduction(network, [VIEWS[number] for number in order])
        found.append(learned(network))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-3, atol=1e-4)
    largest = np.abs(found[0][0]).argmax(1)
    assert (found[0][0][np.arange(5), largest] > 0).all()


@torch.inference_mode()
def test_the_strongest_locations_come_first_and_few_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whitening, "PER_IMAGE", 7)
    network = tiny_network()
    found = strongest_locations(network, normalise_pixels(torch.from_numpy(VIEWS[0].pixels)[None], network.options))
    np.testing.assert_allclose(found, locations_of(network, VIEWS[:1], 7), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------- moments


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_moments_of_shifted_data_do_not_cancel(shift: float) -> None:
    """Raw squares of values around a million would lose all digits of a variance of one."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)) + shift
    moments = Moments(5)
    for begin, end in ((0, 10), (10, 10), (10, 11), (11, 300)):
        moments.add(torch.from_numpy(vectors[begin:end]))
    mean, covariance = moments.mean_and_covariance()
    assert moments.count == 300
    np.testing.assert_allclose(mean, vectors.mean(0), rtol=1e-12)
    expected = sum(np.outer(row, row) for row in vectors - vectors.mean(0)) / 300
    np.testing.assert_allclose(covariance, expected, rtol=1e-6, atol=1e-9)


def test_no_vectors_at_first_spoil_nothing() -> None:
    moments = Moments(2)
    moments.add(torch.zeros(0, 2))
    with pytest.raises(InputError, match="no descriptors to learn from"):
        moments.mean_and_covariance()
    moments.add(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    mean, covariance = moments.mean_and_covariance()
    np.testing.assert_allclose(mean, [2, 4])
    np.testing.assert_allclose(covariance, [[1, 2], [2, 4]])


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_eigenvalues_of_nothing_are_lifted_not_inverted(power: float) -> None:
    """Vectors in a plane of three dimensions: the third eigenvalue is 0 and counts as 1e-14."""
    rng = np.random.default_rng(1)
    vectors = np.concatenate([rng.normal(size=(50, 2)) * [3, 1], np.zeros((50, 1))], axis=1)
    moments = Moments(3)
    moments.add(torch.from_numpy(vectors))
    projection = moments.whitening(3, power)[1].numpy()
    lifted = 1e-14 ** (-power / 2)
    np.testing.assert_allclose(np.abs(projection[2]) / lifted, [0, 0, 1], atol=1e-9)
    rows = naive.whitening(vectors, 3, power)[1]
    signs = np.sign((projection * rows).sum(1))[:, None]
    np.testing.assert_allclose(projection[:2], (signs * rows)[:2], rtol=1e-8, atol=1e-10)


# ----------------------------------------------------------------------------------------------------------- errors


def test_what_cannot_be_learned_is_told_before_any_photograph_is_read() -> None:
    def never() -> object:
        raise AssertionError("a photograph was read")
        yield

    with pytest.raises(InputError, match="the network has no reduction to learn"):
        learn_reduction(tiny_network(reduction="none"), never())
    with pytest.raises(InputError, match="128 channels cannot be whitened to 129 dimensions; give a dim up to 128"):
        learn_reduction(tiny_network(dim=129), never())


@pytest.mark.parametrize("photographs", [[], VIEWS[3:], [view(8, 12, 0)]], ids=["none", "too small", "few locations"])
def test_too_few_photographs_are_told(photographs: list[View]) -> None:
    with pytest.raises(InputError, match=r"[02] descriptors are too few for a reduction to 8 dimensions; give more"):
        learn_reduction(tiny_network(), photographs)


# ------------------------------------------------------------------------------------------------------- from files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four photographs, one of them none."""
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.fromarray(picture(50, 60, number)).save(tmp_path / f"photos/{number}.png")
    (tmp_path / "photos/1b.png").write_bytes(b"no photograph")
    return tmp_path / "photos"


def test_a_network_of_imagenet_weights_and_photographs(folder: Path) -> None:
    weights = folder.parent / "backbone.pth"
    backbone = randomised(tiny_network(seed=3).backbone, 3)
    torch.save(backbone.state_dict(), weights)
    reports: list[tuple[int, int]] = []
    images = find_images(folder).images
    network, origin = initial_network(
        tiny_options(), weights, images, max_side=48, progress=lambda done, all: reports.append((done, all))
    )
    assert torch.equal(network.backbone.state_dict()["features.0.weight"], backbone.state_dict()["features.0.weight"])
    assert not network.training and next(network.parameters()).device.type == "cpu"
    assert reports == [(1, 4), (2, 4), (3, 4)]
    assert origin["images"] == 3 and origin["max_side"] == 48 and origin["backbone"] == "squeezenet1_1"
    assert origin["backbone_sha256"] == file_sha256(weights)
    again = initial_network(tiny_options(), weights, images, max_side=48)[0]
    np.testing.assert_array_equal(learned(network)[0], learned(again)[0])
    expected = LocalNetwork(tiny_options())
    expected.load_state_dict(network.state_dict())
    learn_reduction(expected, views(images, 48))
    np.testing.assert_array_equal(learned(network)[0], learned(expected)[0])


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    torch.save(tiny_network(skip=10).backbone.state_dict(), folder / "backbone.pth")
    with pytest.raises(MismatchError, match=r"missing features\.3\.expand1x1\.bias"):
        initial_network(tiny_options(), folder / "backbone.pth", find_images(folder).images)


def test_photographs_are_seen_in_order(folder: Path) -> None:
    assert [found.image_size for found in views(find_images(folder).images, 48)] == [(60, 50)] * 3
