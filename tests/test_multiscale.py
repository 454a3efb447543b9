"""The strongest locations over many scales: on maps that are made for the test, and against loops in float64."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import naive_networks as naive
from asmk_engine.errors import InputError
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.locations import SCALES, LocalDescriptors
from asmk_engine.networks.multiscale import describe, normalise_pixels
from tiny_networks import picture, tiny_network, tiny_options

Field = Callable[[int, int], torch.Tensor]


def constructed(
    field: Field, *, stride: int = 4, offset: float = 3, attention: str = "norm", least_side: int = 1
) -> Any:
    """A network with one location for each `stride` pixels, which holds its row, its column and the height of its map.

    field  the scores [B, h, w] for a height and width
    """

    def maps(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = (side // stride for side in pixels.shape[-2:])
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        locations = torch.stack([rows, columns, torch.full_like(rows, height)]).float()
        return locations.expand(len(pixels), 3, height, width), field(height, width).expand(len(pixels), height, width)

    backbone = SimpleNamespace(
        stride=stride, offset=offset, least_side=least_side, channels=3, offset_of=lambda side: offset
    )
    options = SimpleNamespace(attention=attention, side_multiple=1)
    return SimpleNamespace(maps=maps, backbone=backbone, options=options, reduce=lambda locations: locations)


def noise(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(height).random((1, height, width))).float()


def blank(height: int, width: int, count: int = 1) -> torch.Tensor:
    return torch.zeros(count, 3, height, width)


def expected(network: Any, size: tuple[int, int], scales: tuple[float, ...], count: int, **options: Any) -> list:
    """What the twin makes of the constructed maps of an image of this height and width."""
    seen = []
    for scale in scales:
        height, width = (max(1, int(side * scale)) for side in size)
        locations, scores = network.maps(blank(height, width))
        seen.append((locations[0].numpy(), scores[0].double().numpy(), (width, height)))
    stride, offset = network.backbone.stride, network.backbone.offset
    return naive.strongest(seen, size[::-1], stride=stride, offset=offset, count=count, **options)


def assert_equal(found: LocalDescriptors, twin: list) -> None:
    assert len(found.scores) == len(twin)
    for number, (location, score, x, y, side) in enumerate(twin):
        np.testing.assert_array_equal(found.descriptors[number], location)
        assert found.scores[number] == pytest.approx(score, rel=1e-6)
        np.testing.assert_allclose(found.positions[number], [x, y], rtol=1e-6, atol=1e-4)
        assert found.sizes[number] == pytest.approx(side, rel=1e-6)


# ------------------------------------------------------------------------------------------------ constructed maps


@pytest.mark.parametrize("count", [1, 17, 100, 10_000])
@pytest.mark.parametrize("scales", [(1.0,), SCALES, (0.5, 2.0)])
def test_the_strongest_locations_of_all_scales_come_first(scales: tuple[float, ...], count: int) -> None:
    network = constructed(noise)
    found = describe(network, blank(37, 50), scales, count)[0]
    twin = expected(network, (37, 50), scales, count, relative=True)
    assert_equal(found, twin)
    assert found.scores[0] == 1  # the greatest of all scales, not of each
    if count == 100 and scales == SCALES:
        assert (found.scores == 1).sum() == 1 and len({location[2] for location in found.descriptors.tolist()}) > 2


def test_equal_locations_come_by_scale_then_row_then_column() -> None:
    network = constructed(lambda height, width: torch.ones(1, height, width))
    found = describe(network, blank(16, 24), (1.0, 2.0, 0.5), 1000)[0]
    places = [tuple(location) for location in found.descriptors.tolist()]
    scales = [(4, 6), (8, 12), (2, 3)]
    assert places == [(row, column, h) for h, w in scales for row in range(h) for column in range(w)]
    assert_equal(found, expected(network, (16, 24), (1.0, 2.0, 0.5), 1000, relative=True))


def test_ties_at_the_last_place_go_to_the_first_scale() -> None:
    network = constructed(lambda height, width: torch.full((1, height, width), 2.0))
    found = describe(network, blank(16, 16), (0.5, 1.0), 6)[0]
    assert [tuple(location) for location in found.descriptors.tolist()] == [
        (0, 0, 2), (0, 1, 2), (1, 0, 2), (1, 1, 2), (0, 0, 4), (0, 1, 4)
    ]  # fmt: skip


def test_only_scores_of_the_norm_are_divided_by_the_greatest() -> None:
    for attention, relative in (("norm", True), ("learned", False)):
        network = constructed(lambda height, width: 8 * noise(height, width), attention=attention)
        found = describe(network, blank(24, 24), (1.0, 0.5), 20)[0]
        assert_equal(found, expected(network, (24, 24), (1.0, 0.5), 20, relative=relative))


def test_weak_locations_are_left_out_by_their_score_as_it_leaves_the_attention() -> None:
    network = constructed(lambda height, width: 8 * noise(height, width), attention="learned")
    found = describe(network, blank(32, 40), (1.0, 0.5), 60, least_score=6.0)[0]
    assert_equal(found, expected(network, (32, 40), (1.0, 0.5), 60, relative=False, least=6.0))
    assert 0 < len(found.scores) < 60 and found.scores.min() >= 6
    none = describe(network, blank(32, 40), (1.0, 0.5), 60, least_score=9.0)[0]
    assert none.descriptors.shape == (0, 3) and none.positions.shape == (0, 2)


def test_a_location_as_strong_as_the_threshold_stays() -> None:
    network = constructed(lambda height, width: torch.full((1, height, width), 0.5), attention="learned")
    assert len(describe(network, blank(8, 8), (1.0,), 10, least_score=0.5)[0].scores) == 4


@pytest.mark.parametrize(("stride", "offset"), [(16, 15), (32, 0), (16, 7.5)])
def test_positions_are_in_pixels_of_the_image_before_it_was_resampled(stride: int, offset: float) -> None:
    network = constructed(noise, stride=stride, offset=offset)
    scales = (2.0, 1.0, 0.707)
    found = describe(network, blank(101, 131), scales, 1000)[0]
    assert_equal(found, expected(network, (101, 131), scales, 1000, relative=True))


def test_scales_at_which_the_image_has_no_location_are_passed_over() -> None:
    network = constructed(noise, least_side=24)  # as many as there are at half the size
    found = describe(network, blank(48, 64), (1.0, 0.5, 0.4), 1000)[0]
    assert_equal(found, expected(network, (48, 64), (1.0, 0.5), 1000, relative=True))


@pytest.mark.parametrize("attention", ["norm", "learned"])
def test_an_image_without_any_location_has_no_features(attention: str) -> None:
    network = tiny_network(attention=attention)
    for found in describe(network, blank(3, 50, count=2), (1.0, 0.5)):
        assert found.descriptors.shape == (0, 8) and found.scores.shape == (0,)
        assert found.positions.shape == (0, 2) and found.sizes.shape == (0,)


def test_each_image_of_a_batch_has_its_own_order_and_its_own_greatest() -> None:
    def field(height: int, width: int) -> torch.Tensor:
        return torch.cat([noise(height, width), 5 * noise(height, width).flip(2)])

    both = describe(constructed(field), blank(20, 28, count=2), (1.0, 0.5), 12)
    for number in range(2):
        network = constructed(lambda height, width, n=number: field(height, width)[n : n + 1])
        assert_equal(both[number], expected(network, (20, 28), (1.0, 0.5), 12, relative=True))


# ------------------------------------------------------------------------------------------------------ whole network


def test_pixels_are_normalised_by_channel() -> None:
    image = picture(5, 7)
    options = tiny_options(mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    found = normalise_pixels(torch.from_numpy(image)[None], options)
    assert found.shape == (1, 3, 5, 7) and found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    for row, column, channel in np.ndindex(5, 7, 3):
        expected = (int(image[row, column, channel]) / 255 - options.mean[channel]) / options.std[channel]
        assert found[0, channel, row, column].item() == pytest.approx(expected, abs=1e-6)


def whole_twin(network: LocalNetwork, image: np.ndarray, scales: tuple[float, ...], count: int) -> list:
    """From pixels to the strongest locations, all of it by loops in float64."""
    weights = {key: value.double().numpy() for key, value in network.state_dict().items()}
    backbone = {key.removeprefix("backbone."): value for key, value in weights.items()}
    mean, std = (np.array(values)[:, None, None] for values in (network.options.mean, network.options.std))
    normalised = (image.transpose(2, 0, 1) / 255 - mean) / std
    seen = []
    for scale in scales:
        resampled = naive.resampled(normalised, scale)
        found = naive.squeezenet(resampled, backbone, network.options.skip)
        seen.append((naive.smoothed(found, 3), naive.norm_attention(found), resampled.shape[:0:-1]))
    size = (image.shape[1], image.shape[0])
    kept = naive.strongest(seen, size, stride=4, offset=3, count=count, relative=True)
    weight, bias = weights["reduction.weight"][:, :, 0, 0], weights["reduction.bias"]
    return [(naive.reduced(location, weight, bias), *rest) for location, *rest in kept]


def test_a_whole_image_is_described_as_by_loops() -> None:
    network, image, scales = tiny_network(), picture(34, 45), (1.414, 1.0, 0.5)
    with torch.inference_mode():
        pixels = normalise_pixels(torch.from_numpy(image)[None], network.options)
        found = describe(network, pixels, scales, 40)[0]
    twin = whole_twin(network, image, scales, 40)
    np.testing.assert_allclose(found.descriptors, [entry[0] for entry in twin], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.scores, [entry[1] for entry in twin], rtol=1e-5)
    np.testing.assert_allclose(found.positions, [entry[2:4] for entry in twin], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.sizes, [entry[4] for entry in twin], rtol=1e-5)


def test_half_precision_is_near_and_an_unknown_one_is_refused() -> None:
    network = tiny_network()
    pixels = normalise_pixels(torch.from_numpy(picture(48, 48))[None], network.options)
    with torch.inference_mode():
        exact = describe(network, pixels, (1.0,), 1000)[0]
        rough = describe(network, pixels, (1.0,), 1000, precision="bf16")[0]
    assert exact.descriptors.dtype == rough.descriptors.dtype == rough.scores.dtype == np.float32

    def by_place(locations: LocalDescriptors) -> torch.Tensor:
        return torch.from_numpy(locations.descriptors[np.lexsort(locations.positions.T)])

    one, other = by_place(exact), by_place(rough)
    assert not torch.equal(one, other)
    assert torch.nn.functional.cosine_similarity(one, other).min() > 0.99
    with pytest.raises(InputError, match="precision is 'fp8'; choose one of fp32, bf16, fp16"):
        describe(network, pixels, (1.0,), precision="fp8")
