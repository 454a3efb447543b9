"""What networks attend to: every network against its twin, places in the photograph, boxes of masks, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import naive_attention as naive
from asmk_engine.extractors import load_extractor
from asmk_engine.features import Features
from asmk_engine.networks.backbones import build_backbone
from asmk_engine.networks.composed.network import ComposedNetwork
from asmk_engine.networks.composed.table import network_kind
from asmk_engine.networks.global_network import GlobalNetwork, GlobalOptions
from asmk_engine.networks.spatial_attention import activation_norms, scale_nearest_one, spatial_attention
from asmk_engine.pictures.attention_maps import ColourScale, draw_attention_maps, laid_over
from asmk_engine.pictures.photographs import ShownPhotograph
from asmk_engine.pictures.strokes import OUTLINE
from asmk_engine.regions.attention_maps import AttentionMap, feature_attention, mask_boxes
from test_composed import SMALL, SWITCHES, maps, small_head
from tiny_networks import arrays, randomised, tiny_composed

WITHOUT = [
    ("agem", {"attention5": False}),
    ("cider", {"localisation": False}),
    ("cvnet", {}),
    ("dplg", {"dot_product": False}),
    ("gem-ap", {}),
    ("glam", {"use_local": False, "use_global": False}),
    ("solar", {"attention4": False, "attention5": False}),
]
MORE: list[tuple[str, dict[str, Any]]] = [
    ("agem", {"attention4": True}),
    ("delg", {"code": 5, "hidden": 6}),
    ("token", {"decoders": 0}),
]


# ---- networks


@pytest.mark.parametrize(("height", "width"), [(5, 3), (1, 1)])
@pytest.mark.parametrize(
    ("name", "switches"), SWITCHES + MORE, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_a_head_attends_to_is_its_twin(name: str, switches: dict[str, Any], height: int, width: int) -> None:
    head = small_head(name, **switches)
    options = network_kind(name).options.from_content(SMALL.get(name, {}) | switches)
    early, five = maps(height, width)
    four = head.middle(early)
    found = head.attention_maps(early, four, five)
    given = [one[0].numpy() for one in (early, four, five)]
    twin = getattr(naive, name, lambda *_: [])
    expected = twin(*given, arrays(head), options)
    assert len(found) == len(expected)
    for one, values in zip(found, expected, strict=True):
        assert one.values.shape == (1, *values.shape) and one.meaning and one.title
        np.testing.assert_allclose(one.values[0].numpy(), values, rtol=1e-8, atol=1e-11)
        assert one.values.shape[1:] == {4: four, 5: five}[one.level].shape[2:]


@pytest.mark.parametrize(("name", "switches"), WITHOUT, ids=lambda value: value if isinstance(value, str) else "")
def test_networks_that_pool_all_places_alike_have_no_attention(name: str, switches: dict[str, Any]) -> None:
    early, five = maps(4, 4)
    assert small_head(name, **switches).attention_maps(early, early, five) == []


def test_the_masks_of_cider_are_those_it_multiplies_the_map_by() -> None:
    head: Any = small_head("cider", context="none", enhancement="none", masks=3, background_random=False)
    five = maps(9, 7)[1]
    (one,) = head.attention_maps(five, five, five)
    assert one.thresholds == head.localisation.options.own_thresholds == (0.25, 0.5, 0.75)
    shares = torch.nn.functional.softplus(head.localisation.weights)
    background = min(1.0, max(0.0, head.localisation.options.background_mean))
    masks = [torch.where(one.values < threshold, background, 1.0) for threshold in one.thresholds]
    mixed = sum(share * mask for share, mask in zip(shares / shares.sum(), masks, strict=True))
    torch.testing.assert_close(head.localisation(five), five * mixed.unsqueeze(1))  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["solar", "glam", "dplg", "token"])
def test_attention_that_is_received_is_one_on_average(name: str) -> None:
    early, five = maps(6, 5)
    found = small_head(name).attention_maps(early, early, five)
    for one in found:
        if "received" in one.meaning:
            assert float(one.values.mean()) == pytest.approx(1)
    assert any("received" in one.meaning for one in found)


def test_the_tokens_take_all_of_each_location() -> None:
    early, five = maps(6, 5)
    tokens = [one.values for one in small_head("token").attention_maps(early, early, five) if "token " in one.title]
    torch.testing.assert_close(sum(tokens), torch.ones_like(tokens[0]))


def test_the_weights_of_crow_are_those_of_its_sum() -> None:
    network = GlobalNetwork(GlobalOptions("squeezenet1_1", 8, pooling="crow")).eval()
    randomised(network)
    pixels = torch.randn(1, 3, 60, 50, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        (found,), sides = spatial_attention(network, pixels, 1.0)
        values = network.backbone(pixels)[0].double().numpy()
    sums = values.sum(0)
    assert sides == (60, 50)
    np.testing.assert_allclose(found.values[0], (sums / np.sqrt((sums**2).sum())) ** 0.5, rtol=1e-5)


def test_norms_of_activations_are_those_of_what_is_pooled() -> None:
    network = tiny_composed("gem-ap")
    pixels = torch.randn(1, 3, 60, 80, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert spatial_attention(network, pixels, 1.0)[0] == []
        (found,), _ = activation_norms(network, pixels, 1.0)
        five = network.maps(pixels)[1][0].double().numpy()
    expected = [[sum(value**2 for value in five[:, y, x]) ** 0.5 for x in range(five.shape[2])]
                for y in range(five.shape[1])]  # fmt: skip
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-5, atol=1e-4)


def test_attention_is_shown_at_the_scale_nearest_to_one() -> None:
    assert scale_nearest_one((1.0, 2**0.5, 2**-0.5)) == 1 and scale_nearest_one((0.5, 1.9, 4)) == 1.9


# ---- places


@pytest.mark.parametrize(
    ("name", "skip"),
    [("resnet18", 1), ("resnet50v2", 1), ("squeezenet1_1", 5), ("efficientnet_lite0", 2), ("efficientnet_lite3", 2)],
)
@pytest.mark.parametrize("side", [160, 173, 201])
def test_map_4_has_the_locations_of_the_backbone_that_ends_there(name: str, skip: int, side: int) -> None:
    """Those of the shorter backbone are measured in test_backbones."""
    backbone, shorter = build_backbone(name), build_backbone(name, skip)
    assert backbone.stride == 2 * shorter.stride
    assert backbone.early_offset_of(side) == shorter.offset_of(side)


def test_a_location_of_map_4_of_vgg_is_at_the_centre_of_what_it_sees() -> None:
    """With positive weights, and averages instead of maxima, a gradient is positive in the whole field."""
    backbone: Any = build_backbone("vgg16").double().requires_grad_(False)
    for parameter in backbone.parameters():
        parameter.abs_().add_(1e-3)
    layers = [torch.nn.AvgPool2d(2) if isinstance(one, torch.nn.MaxPool2d) else one for one in backbone.features]
    backbone.features = torch.nn.Sequential(*layers)
    pixels = torch.ones(1, 3, 136, 136, dtype=torch.float64, requires_grad=True)
    backbone.early(pixels)[0, :, 8, 8].sum().backward()
    seen = torch.nonzero(pixels.grad[0].sum(0)[68] > 0).flatten().tolist()  # type: ignore[index]
    assert seen[0] > 0 and seen[-1] < 135
    assert (seen[0] + seen[-1]) / 2 == backbone.early_offset_of(136) + 8 * backbone.stride / 2


def test_a_bright_spot_is_where_the_map_of_activations_has_it(network_file: Path) -> None:
    extractor: Any = load_extractor("cider", weights=str(network_file), max_side=300)
    (one,) = extractor.attention_maps(spotted(), activations=True)
    values = one.drawn((600, 400))
    row, column = np.unravel_index(int(np.argmax(values)), values.shape)
    assert abs(column - 450) < 70 and abs(row - 130) < 70
    assert one.image_size == (600, 400) and one.box == (0, 0, 600, 400)


def test_the_attention_of_a_region_is_that_of_its_pixels_at_its_place(network_file: Path) -> None:
    extractor: Any = load_extractor("cider", weights=str(network_file))
    scene, box = spotted(), (101, 53, 501, 341)
    (one,) = extractor.attention_maps(scene, box)
    (cut,) = extractor.attention_maps(np.ascontiguousarray(scene[53:341, 101:501]))
    np.testing.assert_allclose(one.values, cut.values, atol=1e-5)
    assert one.first == (cut.first[0] + 101, cut.first[1] + 53) and one.box == box and one.step == cut.step
    values = one.drawn((600, 400))
    inside = np.zeros((400, 600), bool)
    inside[53:341, 101:501] = True
    assert (np.isnan(values) != inside).all()


@pytest.fixture(scope="module")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from asmk_engine.networks.composed.checkpoints import save_composed_checkpoint

    network: ComposedNetwork = tiny_composed("cider")
    path = tmp_path_factory.mktemp("network") / "cider.safetensors"
    save_composed_checkpoint(path, network, {})
    return path


def spotted() -> np.ndarray:
    """A dark photograph with a noisy square around (450, 130)."""
    scene = np.full((400, 600, 3), 40, np.uint8)
    scene[100:160, 420:480] = np.random.default_rng(0).integers(0, 256, (60, 60, 3))
    return scene


# ---- boxes


def attention(values: Any, thresholds: tuple[float, ...] = (), size: tuple[int, int] = (60, 40)) -> AttentionMap:
    array = np.asarray(values, np.float32)
    step = size[0] / array.shape[1], size[1] / array.shape[0]
    first = step[0] / 2 - 0.5, step[1] / 2 - 0.5
    return AttentionMap("attention", array, "share", first, step, (0, 0, *size), size, thresholds)


small_maps = st.integers(1, 6).flatmap(
    lambda width: st.lists(
        st.lists(st.integers(0, 8).map(float), min_size=width, max_size=width), min_size=1, max_size=6
    )
)


@settings(max_examples=150, deadline=None)
@given(
    small_maps,
    st.lists(st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 2 / 3, 1.0]), max_size=3),
    st.tuples(st.floats(0, 20), st.floats(0, 20)),
    st.tuples(st.floats(3, 17), st.floats(3, 17)),
)
def test_the_boxes_of_masks_are_those_of_a_flood_fill(
    values: list[list[float]], thresholds: list[float], first: tuple[float, float], step: tuple[float, float]
) -> None:
    described, size = (5, 3, 77, 65), (90, 70)
    one = AttentionMap("", np.array(values, np.float32), "", first, step, described, size, tuple(thresholds))
    found = mask_boxes(one, None, None)
    expected = naive.boxes_of_masks(values, thresholds or [0.5], first, step, described)
    assert [(box.mask, pytest.approx(box.scored.score)) for box in found] == [(n, c) for _, c, n in expected]
    for ours, (box, confidence, number) in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.scored.box, box, atol=1e-6)
        assert confidence >= ours.threshold - 1e-6 and ours.threshold == (thresholds or [0.5])[number - 1]


def test_the_largest_components_are_kept_and_corners_connect() -> None:
    one = attention([[1, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 0, 1, 1]], size=(50, 30))
    boxes = mask_boxes(one, 0.5)
    assert [box.scored.box for box in boxes] == [(0, 0, 20, 20), (30, 20, 50, 30), (40, 0, 50, 10)]
    assert mask_boxes(one, 0.5, 1) == boxes[:1] and all(box.scored.score == 1 for box in boxes)
    (whole,) = mask_boxes(attention([[3, 3], [3, 3]]), 1.0)
    assert whole.scored.box == (0, 0, 60, 40), "equal values are all foreground, as in the network"
    (single,) = mask_boxes(attention([[0.2]], (0.1,)))
    assert single.scored.box == (0, 0, 60, 40) and single.scored.score == 1


def test_local_features_have_the_map_of_their_strengths() -> None:
    points = np.array([[150, 100, 60], [40, 40, 20]], np.float32)
    features = Features.from_descriptors(np.eye(2), points, np.array([1.0, 0.5]), (300, 200))
    one = feature_attention(features)
    assert one is not None and one.limits[1] == pytest.approx(1, abs=0.01)
    row, column = np.unravel_index(int(np.argmax(one.drawn((300, 200)))), (200, 300))
    assert abs(column - 150) < 6 and abs(row - 100) < 6
    assert feature_attention(features.strongest(0)) is None
    part = feature_attention(features, (100, 50, 290, 190))
    assert part is not None and np.isnan(part.drawn((300, 200))[0, 0]) and part.box == (100, 50, 290, 190)


# ---- pictures


def test_a_map_is_light_where_attention_is_and_grey_outside_of_what_was_described() -> None:
    pixels = np.full((40, 60, 3), 128, np.uint8)
    shown = laid_over(pixels, attention([[0, 1], [0, 0]])).astype(int)
    assert shown[5, 50].sum() > shown[35, 5].sum() + 100
    one = attention([[0, 1], [0, 0]])
    part = AttentionMap("", one.values, "", one.first, one.step, (0, 0, 30, 40), one.image_size)
    assert (laid_over(pixels, part)[:, 31:] == 128).all() and (laid_over(pixels, part)[:, :29] != 128).any()


def test_the_scale_is_logarithmic_where_few_locations_get_nearly_all() -> None:
    values = np.full((20, 20), 0.01)
    values[3, 4] = 300
    scale = ColourScale.of(attention(values))
    assert scale.is_logarithmic and (scale.low, scale.high) == (pytest.approx(0.3), 300) and "(log)" in str(scale)
    np.testing.assert_allclose(scale.shares(np.array([0.01, 0.3, 3, 300])), [0, 0, 1 / 3, 1], atol=1e-6)
    assert str(ColourScale.of(attention([[0.0, 1.0]], (0.5,)))) == "0 to 1"
    assert not ColourScale.of(attention([[2.0, 2.0]])).is_logarithmic
    assert ColourScale.of(attention([[2.0, 2.0]])).shares(np.array([2.0])) == [1]


def test_masks_are_drawn_with_boxes_and_without_thresholds_only_if_asked_for() -> None:
    photograph = ShownPhotograph(np.full((40, 60, 3), 128, np.uint8), (60, 40))
    plain = attention([[0, 1, 0], [0, 0, 0]])
    drawn = draw_attention_maps(photograph, [plain], "a.png", "solar")
    assert drawn.shape[1] == 2 * 16 + 2 * 480 + 12 and not has_outline(drawn)
    assert has_outline(draw_attention_maps(photograph, [plain], "a.png", "solar", 0.5))
    cider = draw_attention_maps(photograph, [attention([[0, 1, 0], [0, 0, 0]], (0.3, 0.6))], "a.png", "cider")
    assert has_outline(cider) and cider.shape[0] > 2 * 320
    many = draw_attention_maps(photograph, [plain] * 5, "a.png", "token")
    assert many.shape[1] == 2 * 16 + 3 * 480 + 2 * 12


def has_outline(drawn: np.ndarray) -> bool:
    return bool((np.abs(drawn.astype(int) - OUTLINE).max(axis=2) < 10).sum() > 100)
