"""Poolings, networks of whole-image descriptors and their scales against loops in float64, and their options."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import naive_global
from asmk_engine.errors import DamagedError, InputError, MismatchError
from asmk_engine.networks.global_network import (
    GEM_SCALES,
    POOLINGS,
    WHITENED_SCALES,
    GlobalNetwork,
    GlobalOptions,
    how_descriptor,
    rescaled,
    with_projection,
)
from asmk_engine.networks.local import rescale
from asmk_engine.networks.pooling import crow, gem, mac, over_norm, regional_vectors, regions, rmac, spoc
from asmk_engine.training.vectors import global_vector
from tiny_networks import randomised, tiny_network

TWINS = {name: getattr(naive_global, name) for name in POOLINGS}


def some_maps(channels: int = 5, height: int = 4, width: int = 6, seed: int = 0) -> torch.Tensor:
    """Two maps [2, C, h, w] float64, non-negative; a third of the locations is zero, and the whole of one channel."""
    random = np.random.default_rng(seed)
    found = np.maximum(random.normal(0.4, 1, (2, channels, height, width)), 0)
    found[0, 1] = 0
    return torch.from_numpy(found)


def tiny_global(seed: int = 0, **options: object) -> GlobalNetwork:
    """A network of 128 channels at stride 4 with random weights."""
    network = GlobalNetwork(GlobalOptions(**({"backbone": "squeezenet1_1", "skip": 8} | options)))  # type: ignore[arg-type]
    randomised(network, seed)
    if network.exponent is not None:
        network.exponent.data.copy_(torch.linspace(2, 4, len(network.exponent)))
    return network.requires_grad_(False)


def some_pixels(height: int = 64, width: int = 80, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("size", [(4, 6), (6, 4), (5, 5), (1, 1), (1, 7), (2, 3)])
def test_poolings_equal_their_twins(name: str, size: tuple[int, int]) -> None:
    maps = some_maps(5, *size)
    expected = [TWINS[name](found) for found in maps.numpy()]
    np.testing.assert_allclose(POOLINGS[name](maps), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", POOLINGS)
def test_a_map_of_zeros_gives_a_finite_vector(name: str) -> None:
    found = POOLINGS[name](torch.zeros(1, 3, 4, 5))
    np.testing.assert_allclose(found, np.full((1, 3), 1e-6 if name == "gem" else 0.0), rtol=1e-5)


def test_gem_lies_between_the_average_and_the_maximum() -> None:
    maps = some_maps()[1:] + 0.1
    np.testing.assert_allclose(gem(maps, 1.0), spoc(maps), rtol=1e-12)
    np.testing.assert_allclose(gem(maps.float(), 800.0), mac(maps), rtol=0.01)
    assert ((gem(maps) > spoc(maps)) & (gem(maps) < mac(maps))).all()


def test_gem_with_an_exponent_for_each_channel() -> None:
    maps, exponents = some_maps(), [1.0, 2.0, 3.0, 4.5, 0.5]
    expected = [naive_global.gem(found, exponents) for found in maps.numpy()]
    np.testing.assert_allclose(gem(maps, torch.tensor(exponents, dtype=torch.float64)), expected, rtol=1e-12)


@pytest.mark.parametrize("count", [1, 5])
def test_gradients_of_gem_are_those_of_finite_differences(count: int) -> None:
    maps = (some_maps() + 0.1).requires_grad_()
    exponent = torch.linspace(2.0, 4.0, count, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(gem, (maps, exponent))


def test_crow_gives_rare_channels_more_and_empty_ones_nothing() -> None:
    maps = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    maps[0, 0] = 1  # everywhere
    maps[0, 1, 0, 0] = 1  # in one of four locations; the third channel nowhere
    root = math.sqrt(4 + 1 + 1 + 1)
    total = math.sqrt(2 / root) + 3 * math.sqrt(1 / root)
    expected = [[math.log(1.25 / 1) * total, math.log(1.25 / 0.25) * math.sqrt(2 / root), 0]]
    np.testing.assert_allclose(crow(maps), expected, rtol=1e-12)


# The squares of R-MAC


def test_squares_that_can_be_counted_by_hand() -> None:
    four = [(0, 0, 4), *((y, x, 2) for y in (0, 2) for x in (0, 2))]
    four += [(y, x, 2) for y in (0, 1, 2) for x in (0, 1, 2)]
    assert regions(4, 4) == four
    assert regions(1, 1) == [(0, 0, 1)]  # at levels 2 and 3 a side would be floor(2/3) and floor(1/2)
    # 3 × 1: four squares overlap by a third, nearest to 0.4; they begin at floors of 0, 2/3, 4/3 and 2.
    assert regions(3, 1) == [(0, 0, 1), (0, 0, 1), (1, 0, 1), (2, 0, 1)]


def test_of_equally_good_numbers_of_squares_the_smaller_counts() -> None:
    # 5 × 9: two squares overlap by 0.2, three by 0.6; both are 0.2 away from 0.4.
    assert [square for square in regions(5, 9) if square[2] == 5] == [(0, 0, 5), (0, 4, 5)]


def test_squares_equal_their_twin_and_lie_inside() -> None:
    for height, width in itertools.product(range(1, 24), range(1, 24)):
        found = regions(height, width)
        assert found == naive_global.regions(height, width)
        assert all(y >= 0 and x >= 0 and y + side <= height and x + side <= width for y, x, side in found)
        assert sorted(found) == sorted((x, y, side) for y, x, side in regions(width, height)) or height == width
        assert max(side for _, _, side in found) == min(height, width)


def test_the_square_of_a_square_map_counts_twice() -> None:
    maps = torch.ones(1, 4, 1, 1, dtype=torch.float64)
    np.testing.assert_allclose(rmac(maps), 2 * over_norm(maps.flatten(1)), rtol=1e-12)


def test_regions_of_another_pooling() -> None:
    maps = some_maps()
    found = regional_vectors(maps, spoc)
    expected = [naive_global.regional(one, naive_global.spoc) for one in maps.numpy()]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


# Networks


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "gem"},
        {"pooling": "gem", "exponents": "channels"},
        {"pooling": "gem", "whitening": 7},
        {"pooling": "mac", "whitening": 128},
        {"pooling": "spoc", "regional": "sum"},
        {"pooling": "gem", "regional": "whitened", "whitening": 5},
        {"pooling": "mac", "local_whitening": True},
        {"pooling": "rmac", "whitening": 6},
        {"pooling": "crow"},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_the_network_behind_its_backbone_equals_its_twin(options: dict[str, object]) -> None:
    network = tiny_global(**options).double()
    maps = some_maps(128, 3, 4, seed=2)
    expected = [naive_pooled(network, found) for found in maps.numpy()]
    np.testing.assert_allclose(network.pooled(maps), expected, rtol=1e-9, atol=1e-12)


def naive_pooled(network: GlobalNetwork, found: np.ndarray) -> np.ndarray:
    options, layers = network.options, {key: value.numpy() for key, value in network.state_dict().items()}

    def layer(name: str, vector: np.ndarray) -> np.ndarray:
        return naive_global.linear(layers[f"{name}.weight"], layers[f"{name}.bias"], vector)

    def pool(part: np.ndarray) -> np.ndarray:
        if options.pooling != "gem":
            return TWINS[options.pooling](part)
        exponents = layers["exponent"].tolist()
        return naive_global.gem(part, exponents if len(exponents) > 1 else exponents[0])

    if options.local_whitening:
        locations = [[layer("local_whitening", found[:, y, x]) for x in range(4)] for y in range(3)]
        found = np.array(locations).transpose(2, 0, 1)
    if options.regional == "none":
        pooled = pool(found)
    else:
        parts = naive_global.regional(found, pool)
        if options.regional == "whitened":
            parts = [naive_global.over_norm(layer("regional_whitening", part)) for part in parts]
        pooled = np.sum(parts, axis=0)
    vector = naive_global.over_norm(pooled)
    return naive_global.over_norm(layer("whitening", vector)) if options.whitening else vector


@pytest.mark.parametrize(
    ("options", "power"),
    [
        ({}, 2.0),  # the exponent of GeM
        ({"pooling": "mac"}, 1.0),
        ({"whitening": 9}, 1.0),
        ({"regional": "sum"}, 1.0),
        ({"exponents": "channels"}, 1.0),
    ],
)
def test_scales_are_joined_by_the_rule_of_the_network(options: dict[str, object], power: float) -> None:
    network, pixels = tiny_global(**options), some_pixels()
    assert network.scale_power == power
    parts = [network(rescale(pixels, scale)).numpy() for scale in GEM_SCALES]
    expected = [naive_global.over_scales([part[image] for part in parts], power) for image in range(2)]
    found = network.descriptor(pixels, GEM_SCALES)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.norm(dim=1), 1, rtol=1e-6)
    np.testing.assert_allclose(network.descriptor(pixels), network(pixels), atol=1e-5)


def test_high_exponents_neither_overflow_nor_vanish() -> None:
    network, pixels = tiny_global(), some_pixels()
    network.exponent.data.fill_(100.0)  # type: ignore[union-attr]
    parts = [network(rescale(pixels, scale)).numpy() for scale in GEM_SCALES]
    expected = [naive_global.over_scales([part[image] for part in parts], 100.0) for image in range(2)]
    np.testing.assert_allclose(network.descriptor(pixels, GEM_SCALES), expected, atol=1e-5)
    np.testing.assert_allclose(gem(torch.full((1, 1, 2, 2), 1e3), 100.0), [[1e3]], rtol=1e-5)


def test_the_scales_meant_for_a_network() -> None:
    assert tiny_global().options.own_scales == GEM_SCALES == (1.0, math.sqrt(0.5), 0.5)
    assert tiny_global(whitening=4).options.own_scales == WHITENED_SCALES == (1.0, math.sqrt(2), math.sqrt(0.5))
    assert tiny_global(scales=(2.0,)).options.own_scales == (2.0,)


def test_scales_without_a_location_are_left_out_and_small_images_stretched() -> None:
    pixels = some_pixels(40, 60)
    assert [tuple(part.shape[-2:]) for part in rescaled(pixels, (2.0, 1.0, 0.5), 31)] == [(80, 120), (40, 60)]
    assert [tuple(part.shape[-2:]) for part in rescaled(pixels, (0.5, 0.25), 31)] == [(40, 60)]
    assert [tuple(part.shape[-2:]) for part in rescaled(pixels[:, :, :5], (2.0,), 31)] == [(31, 60)]
    assert [tuple(part.shape[-2:]) for part in rescaled(pixels, (0.5,), 20)] == [(20, 30)]
    network = tiny_global()
    np.testing.assert_array_equal(
        network.descriptor(pixels[:, :, :9], (1.0, 0.01)), network.descriptor(pixels[:, :, :9], (1.0,))
    )
    assert network.descriptor(pixels[:, :, :1, :1], GEM_SCALES).isfinite().all()


def test_a_projection_comes_last() -> None:
    network, pixels = tiny_global(), some_pixels()
    random = np.random.default_rng(3)
    mean, matrix = random.normal(size=128) / 50, random.normal(size=(6, 128))
    projected = with_projection(network, torch.from_numpy(mean), torch.from_numpy(matrix), "here", scales=(1.0, 0.5))
    assert projected.dim == 6 and projected.options.own_scales == (1.0, 0.5) and network.projection is None
    vectors = network.descriptor(pixels, GEM_SCALES).double().numpy()
    expected = [naive_global.unit(matrix @ (vector - mean)) for vector in vectors]
    np.testing.assert_allclose(projected.descriptor(pixels, GEM_SCALES).detach(), expected, atol=1e-5)
    with pytest.raises(InputError, match=r"here: the network already has a projection"):
        with_projection(projected, torch.zeros(6), torch.zeros(2, 6), "here")
    with pytest.raises(MismatchError, match=r"are \[127\] and \[6, 127\], but descriptors have 128 dimensions"):
        with_projection(network, torch.zeros(127), torch.zeros(6, 127), "here")
    with pytest.raises(InputError, match="NaN or infinity"):
        with_projection(network, torch.full((128,), math.nan), torch.zeros(6, 128), "here")


def test_the_global_descriptor_of_how_equals_its_twin_and_that_of_training() -> None:
    network, pixels, scales = tiny_network(seed=4), some_pixels(24, 32), (1.0, 0.5)
    with torch.no_grad():
        found = how_descriptor(network, pixels, scales)
        np.testing.assert_allclose(how_descriptor(network, pixels, (1.0,)), global_vector(network, pixels), atol=1e-5)
        parts = [network.maps(rescale(pixels, scale)) for scale in scales]
    layers = {key: value.detach().numpy() for key, value in network.reduction.named_parameters()}  # type: ignore[union-attr]
    expected = naive_global.how_global(
        [maps[0].numpy() for maps, _ in parts],
        [scores[0].numpy() for _, scores in parts],
        layers["weight"][:, :, 0, 0],
        layers["bias"],
    )
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


# Options


def test_options_are_read_back_from_their_json() -> None:
    options = GlobalOptions("resnet50", 1, "mac", regional="sum", projection=64, scales=(1.0, 0.5))
    assert GlobalOptions.from_json(options.to_json(), "here") == options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "alexnet"}, "backbone is 'alexnet'; choose one of resnet18"),
        ({"pooling": "max"}, "pooling is 'max'; choose one of gem, spoc, mac, rmac, crow"),
        ({"regional": "yes"}, "regional is 'yes'"),
        ({"exponents": "two"}, "exponents is 'two'"),
        ({"pooling": "crow", "regional": "sum"}, "crow has no regions"),
        ({"skip": 4}, r"skip is 4; expected 0 \(none\) to 3"),
        ({"whitening": -1}, "whitening is -1"),
        ({"projection": 9000}, "projection is 9000"),
        ({"scales": (0.0,)}, r"scales are \[0.0\]"),
        ({"scales": (math.nan,)}, r"scales are \[nan\]"),
    ],
)
def test_options_that_there_are_not(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(GlobalOptions("resnet18"), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"backbone": 1}', '{"mean": [0], "std": [1], "scales": [], "backbone": "resnet18"}',
             '{"mean": [0,0,0], "std": [1,1,1], "scales": [], "backbone": "resnet18", "skip": "x"}',
             '{"mean": [0,0,0], "std": [1,1,1], "scales": ["x"], "backbone": "resnet18"}',
             '{"mean": [0,0,0], "std": [1,1,1], "scales": [], "backbone": "resnet18", "surplus": 1}', "[" * 100_000]
)  # fmt: skip
def test_json_that_describes_no_network(text: str) -> None:
    with pytest.raises(DamagedError, match="here: its network options are not readable"):
        GlobalOptions.from_json(text, "here")
