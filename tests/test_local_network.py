"""Local networks against loops in float64: attention, smoothing, reduction, scales, and their options."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import naive_networks as naive
from asmk_engine.errors import DamagedError, InputError
from asmk_engine.networks.global_network import how_descriptor
from asmk_engine.networks.local import LocalNetwork, norm_attention, rescale, smooth, unit_length
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.training.vectors import global_vector
from tiny_networks import arrays, tiny_network, tiny_options

CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    """Non-negative maps, half of them zeros, as they leave a backbone."""
    return torch.from_numpy(np.maximum(np.random.default_rng(seed).normal(size=shape), 0))


def pixels(height: int, width: int, count: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 3, height, width)))


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def twin(network: LocalNetwork, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The smoothed map, the descriptors and the scores of one image, layer by layer as the paper orders them."""
    weights, options = arrays(network), network.options
    backbone = {key.removeprefix("backbone."): value for key, value in weights.items() if key.startswith("backbone.")}
    found = naive.squeezenet(image, backbone, options.skip)
    learned = options.attention == "learned"
    scores = naive.learned_attention(found, weights) if learned else naive.norm_attention(found)
    smoothed = naive.smoothed(found, options.smoothing)
    if options.reduction == "none":
        return smoothed, smoothed, scores
    weight, bias = weights["reduction.weight"][:, :, 0, 0], weights["reduction.bias"]
    descriptors = np.zeros((options.dim, *scores.shape))
    for row, column in np.ndindex(scores.shape):
        location = smoothed[:, row, column]
        if options.reduction in ("post", "post-whitening"):
            descriptors[:, row, column] = naive.unit(naive.reduced(naive.unit(location), weight, bias))
        else:
            descriptors[:, row, column] = naive.reduced(location, weight, bias)
    return smoothed, descriptors, scores


SWITCHES = [
    {},
    {"smoothing": 1},
    {"smoothing": 5, "dim": 3},
    {"reduction": "none"},
    {"reduction": "post"},
    {"reduction": "post-whitening"},
    {"attention": "learned"},
    {"attention": "learned", "smoothing": 1, "reduction": "post", "dim": 4},
]


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda switches: " ".join(map(str, switches.values())) or "HOW")
def test_a_network_is_its_twin_layer_by_layer(switches: dict) -> None:
    network = tiny_network(**switches).double()
    x = pixels(29, 38)
    smoothed, descriptors, scores = twin(network, x[0].numpy())
    found, attention = network.maps(x.clone())
    np.testing.assert_allclose(numbers(found)[0], smoothed, **CLOSE)
    np.testing.assert_allclose(numbers(attention)[0], scores, rtol=1e-6)  # the attention is in single precision
    made, attention = network(x.clone())
    assert made.shape == (1, network.dim, *scores.shape) and attention.shape == (1, *scores.shape)
    np.testing.assert_allclose(numbers(made)[0], descriptors, **CLOSE)


def test_the_map_is_not_negative_and_an_image_of_a_batch_is_described_as_if_alone() -> None:
    network = tiny_network()
    batch = pixels(40, 56, count=3).float()
    found, scores = network(batch)
    assert (network.backbone(batch) >= 0).all() and (scores > 0).all()
    for number in range(3):
        alone = network(batch[number : number + 1])
        torch.testing.assert_close(found[number], alone[0][0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(scores[number], alone[1][0], rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ layers


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (7, 4)])
def test_the_attention_is_the_norm_of_each_location(shape: tuple[int, int]) -> None:
    x = maps(2, 6, *shape)
    x[0, :, 0, 0] = 0
    found = numbers(norm_attention(x))
    for image in range(2):
        np.testing.assert_allclose(found[image], naive.norm_attention(x[image].numpy()), rtol=1e-6)
    assert found[0, 0, 0] == pytest.approx(1e-5)  # the root of 1e-10, not zero


@pytest.mark.parametrize("side", [1, 3, 5, 9])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 3), (6, 7)])
def test_locations_at_the_border_average_only_what_is_there(shape: tuple[int, int], side: int) -> None:
    x = maps(2, 3, *shape)
    found = numbers(smooth(x, side))
    for image in range(2):
        np.testing.assert_allclose(found[image], naive.smoothed(x[image].numpy(), side), **CLOSE)


def test_the_border_of_a_level_map_stays_level() -> None:
    """With zeros counted at the border a corner would fall to 4 / 9."""
    assert (smooth(torch.ones(1, 1, 4, 5), 3) == 1).all()


@pytest.mark.parametrize("scale", [2.0, 1.414, 1.0, 0.707, 0.5, 0.353, 0.25, 0.01])
@pytest.mark.parametrize("shape", [(1, 1), (7, 10), (12, 5)])
def test_resampling_is_bilinear_with_corners_not_aligned(shape: tuple[int, int], scale: float) -> None:
    x = pixels(*shape)
    np.testing.assert_allclose(numbers(rescale(x, scale))[0], naive.resampled(x[0].numpy(), scale), **CLOSE)


def test_a_scale_of_one_is_the_image_itself() -> None:
    x = pixels(9, 11)
    assert rescale(x, 1.0) is x


def test_sides_are_rounded_down() -> None:
    assert rescale(pixels(99, 101), 0.353).shape == (1, 3, 34, 35)
    assert rescale(pixels(99, 101), 1.414).shape == (1, 3, 139, 142)


def test_unit_length_leaves_zeros() -> None:
    vectors = maps(5, 4, seed=1) + 0.1
    vectors[2] = 0
    np.testing.assert_allclose(unit_length(vectors), [naive.unit(row) for row in vectors.numpy()], **CLOSE)
    assert unit_length(torch.zeros(0, 4)).shape == (0, 4)


# ----------------------------------------------------------------------------------------------------- global vector


@pytest.mark.parametrize("switches", [{}, {"attention": "learned"}, {"reduction": "none", "smoothing": 1}])
@pytest.mark.parametrize("scales", [(1.0,), (1.414, 1.0, 0.5)])
def test_the_global_descriptor_sums_score_times_descriptor(switches: dict, scales: tuple[float, ...]) -> None:
    network, x = tiny_network(**switches), pixels(40, 33, count=2).float()
    found = numbers(how_descriptor(network, x, scales))
    for image in range(2):
        seen = [twin(network, naive.resampled(x[image].numpy(), scale))[1:] for scale in scales]
        np.testing.assert_allclose(found[image], naive.global_descriptor(seen), rtol=1e-4, atol=1e-5)
    if scales == (1.0,):
        np.testing.assert_allclose(numbers(global_vector(network, x)), found, rtol=1e-4, atol=1e-5)


def test_training_sees_no_reduction_that_comes_after_it() -> None:
    network, x = tiny_network(reduction="post"), pixels(33, 33).float()
    smoothed, _, scores = twin(network, x[0].numpy())
    expected = naive.global_descriptor([(smoothed, scores)])
    np.testing.assert_allclose(numbers(global_vector(network, x))[0], expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_backbone_and_the_learned_attention() -> None:
    network = tiny_network(attention="learned")
    global_vector(network, pixels(33, 33).float()).sum().backward()
    parts = {name.split(".")[0] for name, value in network.named_parameters() if value.grad is not None}
    assert parts == {"backbone", "attention", "reduction"}


# ----------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backbone": "lenet"}, "backbone is 'lenet'; choose one of resnet18"),
        ({"attention": "none"}, "attention is 'none'; choose one of norm, learned"),
        ({"reduction": "pca"}, "reduction is 'pca'; choose one of network, post, post-whitening, none"),
        ({"smoothing": 2}, "smoothing is 2; expected an odd window side"),
        ({"smoothing": 0}, "smoothing is 0; expected a whole number, 1 to"),
        ({"smoothing": 3.0}, "smoothing is 3.0"),
        ({"skip": 11}, "skip is 11; expected a whole number, 0 to 10, for squeezenet1_1"),
        ({"skip": -1}, "skip is -1"),
        ({"skip": True}, "skip is True"),
        ({"dim": 0}, "dim is 0; expected a whole number, 1 to 4096, for squeezenet1_1"),
        ({"dim": 4097}, "dim is 4097"),
        ({"std": (0.2, 0.0, 0.2)}, "std is .0.2, 0.0, 0.2.; expected three numbers greater than 0"),
        ({"mean": (0.5, 0.5)}, "mean is .0.5, 0.5.; expected three numbers"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean is"),
    ],
)
def test_options_that_there_are_not_are_refused(options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        tiny_options(**options)


@pytest.mark.parametrize("switches", SWITCHES)
def test_options_come_back_from_their_json(switches: dict) -> None:
    options = tiny_options(**switches, mean=(0.1, 0.2, 0.3))
    assert LocalOptions.from_json(options.to_json(), "here") == options


GOOD = json.loads(LocalOptions("resnet18").to_json())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "3",
        "{}",
        "[" * 100_000,
        "9" * 5000,
        json.dumps(GOOD | {"backbone": ["resnet18"]}),
        json.dumps(GOOD | {"skip": "1"}),
        json.dumps(GOOD | {"skip": 99}),
        json.dumps(GOOD | {"dim": 128.5}),
        json.dumps(GOOD | {"dim": 10**30}),
        json.dumps(GOOD | {"smoothing": None}),
        json.dumps(GOOD | {"smoothing": 10**9 + 1}),
        json.dumps(GOOD | {"mean": None}),
        json.dumps(GOOD | {"mean": [1, 2]}),
        json.dumps(GOOD | {"std": [1, 10**400, 1]}),
        json.dumps(GOOD | {"std": [1, 0, 1]}),
        json.dumps(GOOD | {"another": 1}),
        json.dumps({key: value for key, value in GOOD.items() if key != "trunk"}),  # the stored name of the backbone
    ],
    ids=lambda text: text[:30],
)
def test_a_description_that_was_altered_is_told_with_its_file(text: str) -> None:
    with pytest.raises(DamagedError, match=r"^here: its network options are not readable") as error:
        LocalOptions.from_json(text, "here")
    assert "\n" not in str(error.value)
