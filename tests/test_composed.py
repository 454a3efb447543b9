"""Composed networks: every head against its slow twin, sizes, properties that the papers state, parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import naive_composed as naive
from asmk_engine.networks.backbones import BACKBONES, build_backbone
from asmk_engine.networks.composed.cider import clipped_expectation, least_to_most
from asmk_engine.networks.composed.enhancement import efficient_kernel
from asmk_engine.networks.composed.head import Head
from asmk_engine.networks.composed.network import (
    ComposedNetwork,
    default_options,
)
from asmk_engine.networks.composed.resampling import overlaps, resampled
from asmk_engine.networks.composed.table import NETWORKS, network_kind
from asmk_engine.networks.global_network import GlobalNetwork, GlobalOptions
from tiny_networks import arrays, picture, randomised, tiny_composed

CHANNELS = (8, 12)
SMALL: dict[str, dict[str, Any]] = {"token": {"width": 8, "attention_heads": 2, "tokens": 3}}
TWINS = {"gem-ap": naive.gem_and_linear, "cvnet": naive.gem_and_linear, "delg": naive.gem_and_linear}
SWITCHES: list[tuple[str, dict[str, Any]]] = [
    ("agem", {}),
    ("agem", {"attention4": True, "attention5": False, "mask": "places"}),
    ("agem", {"attention5": False}),
    ("cider", {"context": "none", "localisation": False}),
    ("cider", {"enhancement": "se", "pooling": "gap", "background_random": False}),
    ("cider", {"enhancement": "non-local", "context": "aspp", "masks": 3, "gradient": "product"}),
    ("cider", {"enhancement": "gather-excite", "context": "none", "final_norm": True, "dim": 5}),
    ("cider", {"enhancement": "none", "thresholds": (0.1, 0.5, 0.9, 1.0), "whitening": False}),
    ("cvnet", {}),
    ("delg", {"dim": 7}),
    ("dolg", {"dim": 9}),
    ("dolg", {"pyramid": True, "dilations": (1, 2), "learned_exponent": False}),
    ("dplg", {}),
    ("dplg", {"fields": False, "local_kernel": 3}),
    ("dplg", {"dot_product": False, "normalised": False, "widths": (3, 1, 0), "pooled_width": 5}),
    ("dplg", {"fields": False, "dot_product": False}),
    ("gem-ap", {"dim": 6}),
    ("glam", {"kernel": 5, "width": 3}),
    ("glam", {"use_local": False}),
    ("glam", {"use_global": False, "dim": 4}),
    ("solar", {}),
    ("solar", {"attention4": False, "divisor5": 3, "dim": 5}),
    ("token", {"dim": 6}),
    ("token", {"encoders": 2, "decoders": 1}),
]


def small_head(name: str, **switches: Any) -> Head:
    """A head on few channels, in float64, with random weights everywhere."""
    kind = network_kind(name)
    head = kind.head(CHANNELS, kind.options.from_content(SMALL.get(name, {}) | switches)).double()
    randomised(head)
    for key, tensor in head.named_parameters():
        if key.endswith("exponent"):
            tensor.data.fill_(2.5)
    return head.requires_grad_(False)


def maps(height: int, width: int, seed: int = 0, count: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Map 4 and map 5, not negative, of a number of images; map 5 has half as many locations a side, rounded up."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (CHANNELS[0], height, width), (CHANNELS[1], -(-height // 2), -(-width // 2))
    four, five = (torch.rand((count, *size), generator=generator, dtype=torch.float64) * 2 for size in sizes)
    return (four - 0.5).clamp(min=0), (five - 0.5).clamp(min=0)


def twin(name: str, head: Head, options: Any, four: torch.Tensor, five: torch.Tensor) -> np.ndarray:
    w = arrays(head)
    middle = getattr(naive, f"{name}_middle", lambda found, w, o: found)
    describe = TWINS.get(name) or getattr(naive, name)
    return describe(middle(four[0].numpy(), w, options), five[0].numpy(), w, options)


# ---- heads


@pytest.mark.parametrize(("height", "width"), [(5, 3), (1, 1)])
@pytest.mark.parametrize(("name", "switches"), SWITCHES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_head_is_its_twin(name: str, switches: dict[str, Any], height: int, width: int) -> None:
    head = small_head(name, **switches)
    options = network_kind(name).options.from_content(SMALL.get(name, {}) | switches)
    four, five = maps(height, width)
    found = head(head.middle(four), five)
    assert found.shape == (1, head.dim)
    np.testing.assert_allclose(found[0].numpy(), twin(name, head, options, four, five), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["solar", "agem"])
def test_what_the_late_layers_get_is_the_twin_of_map_4(name: str) -> None:
    head = small_head(name, attention4=True)
    options = network_kind(name).options.from_content({"attention4": True})
    four = maps(4, 3)[0]
    expected = getattr(naive, f"{name}_middle")(four[0].numpy(), arrays(head), options)
    np.testing.assert_allclose(head.middle(four)[0].numpy(), expected, rtol=1e-9, atol=1e-11)


def test_the_local_branch_of_delg_is_its_twin() -> None:
    head: Any = small_head("delg", code=5, hidden=6)
    found = head.local(maps(4, 3)[0])
    codes, scores, rebuilt, attended = naive.delg_local(maps(4, 3)[0][0].numpy(), arrays(head))
    for ours, expected in (
        (found.codes, codes),
        (found.scores, scores),
        (found.reconstruction, rebuilt),
        (found.attended, attended),
    ):
        np.testing.assert_allclose(ours[0].numpy(), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_images_of_a_batch_do_not_affect_each_other(name: str) -> None:
    head = small_head(name)
    four, five = maps(4, 5, count=3)
    together = head(head.middle(four), five)
    for image in range(3):
        one = slice(image, image + 1)
        torch.testing.assert_close(together[one], head(head.middle(four[one]), five[one]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["agem", "cider", "cvnet", "delg", "gem-ap", "solar", "token"])
def test_the_order_of_locations_does_not_matter_where_no_convolution_sees_neighbours(name: str) -> None:
    switches = {"agem": {"attention5": False}, "cider": {"context": "none"}}.get(name, {})
    head = small_head(name, **switches)
    four, five = maps(6, 8)
    order = torch.randperm(five.shape[2] * five.shape[3], generator=torch.Generator().manual_seed(1))
    mixed = five.flatten(2)[:, :, order].unflatten(2, five.shape[2:])
    torch.testing.assert_close(head(four, mixed), head(four, five), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["dolg", "dplg"])
def test_the_order_of_local_vectors_does_not_matter(name: str) -> None:
    head = small_head(name, **({"fields": False} if name == "dplg" else {}))
    four, five = maps(6, 8)
    torch.testing.assert_close(head(four.flip(2, 3), five.flip(3)), head(four, five), rtol=1e-9, atol=1e-12)


def test_an_untrained_attention_of_solar_changes_nothing() -> None:
    head: Any = network_kind("solar").head(CHANNELS, network_kind("solar").options())
    four, five = (one.float() for one in maps(5, 4))
    torch.testing.assert_close(head.middle(four), four, rtol=0, atol=0)
    torch.testing.assert_close(head.eval().attention5(five), five, rtol=0, atol=0)


def test_the_local_part_of_dolg_is_orthogonal_to_the_global_one() -> None:
    head: Any = small_head("dolg")
    four, five = maps(5, 4)
    seen: list[torch.Tensor] = []
    head.fusion.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    head(four, five)
    whole, local = seen[0].split(CHANNELS[0], 1)
    assert abs((whole * local).sum().item()) < 1e-12 < local.norm().item()
    torch.testing.assert_close(whole, head.reduction(head.pool(five)))


def test_dot_product_fusion_with_one_location_adds_its_value() -> None:
    head: Any = small_head("dplg", fields=False)
    four, five = maps(1, 1)
    whole = head.reduction(head.pool(five))
    value = head.dot_product.value(head.fields(four)).flatten(1)
    torch.testing.assert_close(head(four, five), head.fusion(whole + value))


def test_without_its_attentions_solar_is_gem_with_a_linear_layer() -> None:
    network = tiny_composed("solar", attention4=False, attention5=False)
    other = GlobalNetwork(GlobalOptions("squeezenet1_1", whitening=512), network.backbone)
    other.whitening.load_state_dict(network.head.whitening.state_dict())  # type: ignore[union-attr,operator]
    other.exponent.data.fill_(2.5)  # type: ignore[union-attr]
    pixels = torch.randn(1, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(pixels), other(pixels), rtol=1e-5, atol=1e-6)


def test_the_attention_of_delg_is_trained_without_the_backbone() -> None:
    for stop in (True, False):
        head: Any = small_head("delg", stop_gradient=stop).requires_grad_(True)
        four = maps(4, 4)[0].requires_grad_(True)
        found = head.local(four)
        (found.attended.sum() + functional.mse_loss(found.reconstruction, four.detach())).backward()
        assert (four.grad is None) == stop
        assert head.local_branch.encoder.weight.grad.abs().sum() > 0


def test_a_location_of_token_is_shared_out_completely() -> None:
    """The four sums over all locations are one sum: shares are a softmax over tokens, not over locations."""
    head: Any = small_head("token", encoders=0, decoders=0)
    seen: list[torch.Tensor] = []
    head.tokens.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    four, five = maps(6, 6)
    head(four, five)
    torch.testing.assert_close(seen[0].sum(1), head.reduction(five).sum((-2, -1)))


def test_token_leaves_out_values_and_layers_in_training_only() -> None:
    head: Any = small_head("token", dropout=0.5)
    torch.manual_seed(0)
    given = torch.ones(4000, 2, 3)
    dropped = head.encoders[0].drop.train()(given)
    assert {tuple(one.flatten().tolist()) for one in dropped} == {(0.0,) * 6, (2.0,) * 6}
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    four, five = maps(6, 6, count=2)
    torch.testing.assert_close(head.eval()(four, five), head(four, five), rtol=0, atol=0)
    assert not torch.equal(head.train()(four, five), head(four, five))


def test_equal_attention_of_cider_is_all_foreground_and_one_mask_at_zero_changes_nothing() -> None:
    equal = torch.full((2, 1, 3, 4), 0.7)
    assert (least_to_most(equal) == 1).all()
    found = least_to_most(torch.arange(12.0).reshape(1, 1, 3, 4))
    assert found.min() == 0 and found.max() == 1
    head: Any = small_head("cider", masks=1, thresholds=(0.0,))
    five = maps(6, 6)[1]
    torch.testing.assert_close(head.localisation(five), five)


def test_the_background_of_cider_is_random_in_training_and_its_expectation_otherwise() -> None:
    head: Any = small_head("cider", thresholds=(1.0,))
    five = torch.ones(1, CHANNELS[1], 300, 300, dtype=torch.float64)
    five[:, :, 0, 0] = 2
    described = head.localisation(five)[0, 0]
    expected = clipped_expectation(0.1, 0.9)
    head.localisation.attention.weight.data.abs_()
    described = head.localisation(five)[0, 0, 1:]
    assert described.min() == described.max() == pytest.approx(expected)
    torch.manual_seed(0)
    drawn = head.localisation.train()(five)[0, 0, 1:]
    assert drawn.min() == 0 and drawn.max() == 1 and drawn.std() > 0.3
    assert drawn.mean().item() == pytest.approx(expected, abs=0.01)
    assert clipped_expectation(0.4, 0) == 0.4 and clipped_expectation(2, 0) == 1
    assert expected == pytest.approx(naive.background_of(head.localisation.options), abs=1e-6)


@pytest.mark.parametrize(("gradient", "trained"), [("straight-through", True), ("product", True), ("none", False)])
def test_whether_the_attention_of_cider_is_trained(gradient: str, trained: bool) -> None:
    head: Any = small_head("cider", gradient=gradient, background_random=False).requires_grad_(True)
    head(*maps(8, 8)).square().sum().backward()
    grad = head.localisation.attention.weight.grad
    assert (grad is not None and grad.abs().sum().item() > 0) == trained
    assert head.localisation.weights.grad.abs().sum() > 0


def test_the_kernel_of_efficient_channel_attention() -> None:
    assert [efficient_kernel(channels) for channels in (64, 256, 512, 2048)] == [3, 5, 5, 7]


# ---- networks


def without_weights(name: str, backbone: str, **switches: Any) -> ComposedNetwork:
    with torch.device("meta"):
        return ComposedNetwork(default_options(name, backbone, **switches))


@pytest.mark.parametrize("backbone", ["resnet18", "resnet101", "squeezenet1_1", "efficientnet_lite0"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_stands_on_every_backbone(name: str, backbone: str) -> None:
    network = without_weights(name, backbone)
    with torch.device("meta"):
        map4, map5 = network.maps(torch.zeros(2, 3, 97, 130))
        assert network(torch.zeros(2, 3, 97, 130)).shape == (2, network.dim)
        assert network(torch.zeros(2, 3, 2048, 1537)).shape == (2, network.dim)
    assert map4.shape[1] == network.backbone.early_channels and map5.shape[1] == network.backbone.channels
    for side, small in zip(map4.shape[2:], map5.shape[2:], strict=True):
        assert side // 2 <= small <= -(-side // 2)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_early_and_late_layers_are_the_backbone(backbone: str) -> None:
    found = randomised(build_backbone(backbone))
    pixels = torch.randn(1, 3, 65, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(found.late(found.early(pixels)), found(pixels))  # type: ignore[operator]
        assert found.early(pixels).shape[1] == found.early_channels  # type: ignore[operator]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("height", "width"), [(17, 17), (65, 33), (1, 40), (3, 3)])
def test_any_size_gives_a_unit_vector(name: str, height: int, width: int) -> None:
    network = tiny_composed(name)
    pixels = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    found = network.descriptor(pixels, (1.0, 0.5))
    assert found.shape == (1, network.dim) and found.norm().item() == pytest.approx(1, abs=1e-5)
    assert network.descriptor(pixels, (1.0, 0.5), "bf16").dtype == torch.float32


def convolved(inputs: int, outputs: int, side: int = 1, bias: bool = True, groups: int = 1) -> int:
    """Number of parameters of a convolution or a linear layer."""
    return inputs * outputs * side**2 // groups + (outputs if bias else 0)


def in_the_papers() -> dict[str, int]:
    """Numbers of parameters of the heads on ResNet-50 and ResNet-101, layer by layer from the papers: C4 1024, C5 2048.

    A normalisation has two parameters for each channel, GeM one if p is learned.
    """
    whitening = convolved(2048, 2048)
    second_order = {c: 3 * convolved(c, m) + convolved(m, c) + 2 * 2 * m for c, m in ((1024, 256), (2048, 1024))}
    attention = 4 * convolved(1024, 1024)
    encoder = attention + 2 * 1024 + convolved(1024, 1024)
    decoder = 2 * attention + 2 * 2 * 1024 + convolved(1024, 2048) + convolved(2048, 1024)
    fields = sum(convolved(1024, 256, k) + convolved(256, 256, 3) + 2 * 2 * 256 for k in (1, 3, 5))
    fields += convolved(1024, 256) + convolved(1024, 1024)
    glam_places = convolved(2048, 512) + 3 * convolved(512, 512, 3) + convolved(2048, 1)
    selective = 2 * (convolved(2048, 2048, 3, False, 32) + 2 * 2048)
    selective += convolved(2048, 128, 1, False) + 2 * 128 + 2 * convolved(128, 2048)
    return {
        "agem": convolved(2048, 512, 1, False) + convolved(512, 512, 3, False) + 2048 + convolved(512, 2048) + 1,
        "cider": 7 + selective + convolved(2048, 1) + 2 + 1 + whitening,
        "cvnet": 1 + whitening,
        "delg": whitening + convolved(1024, 128) + convolved(128, 1024) + convolved(1024, 512) + 2 * 512 + 513,
        "dolg": 1 + convolved(2048, 1024) + convolved(1024, 1024) + 2048 + convolved(1024, 1) + convolved(2048, 512),
        "dplg": convolved(2048, 1024) + fields + 3 * convolved(1024, 1024) + convolved(1024, 512),
        "gem-ap": 1 + whitening,
        "glam": 3 * 3 + glam_places + 3 * convolved(2048, 512) + convolved(512, 2048) + 3 + 1 + convolved(2048, 512),
        "solar": sum(second_order.values()) + 1 + whitening,
        "token": convolved(2048, 1024) + 2048 + encoder + 4 * 1024 + convolved(1024, 1024) + 2 * 1024
        + 2 * decoder + convolved(4096, 1024) + 2 * 1024,
    }  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_number_of_parameters_is_that_of_the_papers_layers(name: str) -> None:
    network = without_weights(name, "resnet101")
    head = sum(one.numel() for one in network.head.parameters())
    assert head == in_the_papers()[name] == network_kind(name).parameters
    assert sum(one.numel() for one in network.backbone.parameters()) == 42_500_160


def test_the_dilated_convolutions_of_dolg_have_the_widths_of_its_code() -> None:
    shapes = {
        key: tuple(value.shape) for key, value in without_weights("dolg", "resnet50", pyramid=True).state_dict().items()
    }
    assert [shapes[f"head.local.pyramid.branches.{n}.weight"] for n in range(4)] == [
        (512, 1024, side, side) for side in (1, 3, 3, 3)
    ]
    assert shapes["head.local.pyramid.average.0.weight"] == (512, 1024, 1, 1)
    assert shapes["head.local.pyramid.joint.0.weight"] == (1024, 2560, 1, 1)


def test_scales_are_averaged_and_those_without_a_location_left_out() -> None:
    network = tiny_composed("solar")
    pixels = torch.randn(2, 3, 90, 70, generator=torch.Generator().manual_seed(0))
    small = functional.interpolate(pixels, size=(45, 35), mode="bilinear", align_corners=False)
    mean = functional.normalize(network(pixels) + network(small), dim=-1)
    torch.testing.assert_close(network.descriptor(pixels, (1.0, 0.5)), mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(network.descriptor(pixels, (1.0, 0.05)), network(pixels), atol=1e-5, rtol=1e-4)


def test_scales_of_gem_ap_are_joined_by_the_signed_power_of_its_code() -> None:
    network = tiny_composed("gem-ap")
    pixels = torch.randn(1, 3, 90, 70, generator=torch.Generator().manual_seed(0))
    small = functional.interpolate(pixels, size=(45, 35), mode="bilinear", align_corners=False)
    cubes = [vector.double() ** 3 for vector in (network(pixels), network(small))]
    mean = (cubes[0] + cubes[1]) / 2
    expected = functional.normalize(mean.sign() * mean.abs() ** (1 / 3), dim=-1).float()
    torch.testing.assert_close(network.descriptor(pixels, (1.0, 0.5)), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_of_the_convolutions_changes_little(name: str) -> None:
    network = tiny_composed(name)
    pixels = torch.randn(1, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    one, other = (network.descriptor(pixels, (1.0,), precision) for precision in ("fp32", "bf16"))
    assert (one * other).sum().item() > 0.99


def test_a_projection_follows_the_scales() -> None:
    network = tiny_composed("cvnet")
    options = dataclasses.replace(network.options, projection=5)
    projected = randomised(ComposedNetwork(options, network.backbone))
    projected.head.load_state_dict(network.head.state_dict())  # type: ignore[union-attr]
    pixels = torch.randn(1, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = functional.normalize(projected.projection(network.descriptor(pixels)), dim=-1)  # type: ignore[operator]
        torch.testing.assert_close(projected.descriptor(pixels), expected, atol=1e-6, rtol=1e-4)  # type: ignore[operator]
    assert projected.dim == 5


# ---- resampling


@pytest.mark.parametrize(("rule", "kind"), [("linear", "INTER_LINEAR"), ("area", "INTER_AREA")])
@pytest.mark.parametrize("scale", [0.3535, 0.5, 0.7071])
def test_images_are_shrunk_as_opencv_does(rule: str, kind: str, scale: float) -> None:
    import cv2

    photo = picture(61, 90).astype(np.float32)
    size = (round(90 * scale), round(61 * scale))
    expected = cv2.resize(photo, size, interpolation=getattr(cv2, kind))
    given = torch.from_numpy(photo).permute(2, 0, 1)[None]
    (found,) = resampled(given, [scale], 1, rule)
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), expected, atol=0.02)


def test_images_are_enlarged_by_bilinear_interpolation_and_kept_at_scale_1() -> None:
    pixels = torch.randn(1, 3, 11, 15, generator=torch.Generator().manual_seed(0))
    larger = functional.interpolate(pixels, size=(16, 21), mode="bilinear", align_corners=False)
    for rule in ("linear", "area"):
        found = resampled(pixels, [1.4142, 1.0], 1, rule)
        torch.testing.assert_close(found[0], larger)
        assert found[1] is pixels
    assert resampled(pixels, [1.4142], 1, "tensor")[0].shape[2:] == (15, 21)
    assert resampled(pixels, [0.1], 30, "area")[0].shape[2:] == (30, 30)


def test_the_shares_of_areas() -> None:
    found = overlaps(5, 2)
    np.testing.assert_allclose(found.numpy() * 2.5, [[1, 1, 0.5, 0, 0], [0, 0, 0.5, 1, 1]])
