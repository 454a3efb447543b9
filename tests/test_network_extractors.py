"""Extractors with a network: positions of keypoints, batches, too little memory, weights and recipes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from asmk_engine.errors import DamagedError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.extraction.attempts import TwoStepExtractor
from asmk_engine.extractors import PRESETS, extractor_from_recipe, load_extractor
from asmk_engine.extractors import network as extractors_network
from asmk_engine.extractors.how import How
from asmk_engine.extractors.network import BatchedExtractor, NetworkExtractor
from asmk_engine.extractors.presets import Preset
from asmk_engine.features import Features
from asmk_engine.images.decoding import View
from asmk_engine.networks.backbones import build_backbone, load_backbone
from asmk_engine.networks.checkpoints import save_checkpoint
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.networks.multiscale import describe, normalise_pixels
from asmk_engine.networks.registry import WEIGHTS
from asmk_engine.recipes import Recipe
from asmk_engine.storage.user_files import file_sha256
from tiny_networks import SHARED, picture, tiny_checkpoint, tiny_network, tiny_options

STRIDE = 4  # of the tiny network


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_checkpoint(tmp_path_factory.mktemp("weights") / "how.safetensors")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "delf.safetensors"
    return tiny_checkpoint(path, attention="learned", smoothing=1, reduction="post")


def assert_same(one: Features, other: Features) -> None:
    for key in ("descriptors", "keypoints", "scores"):
        np.testing.assert_array_equal(getattr(one, key), getattr(other, key))
    assert one.image_size == other.image_size


def assert_close(one: Features, other: Features) -> None:
    """Equal but for the last digits, in which a batch may differ from its images, and for the order of near ties."""
    assert len(one) == len(other) and one.image_size == other.image_size
    first, second = (np.lexsort(features.keypoints.T) for features in (one, other))
    np.testing.assert_array_equal(one.keypoints[first], other.keypoints[second])
    np.testing.assert_allclose(one.scores[first], other.scores[second], rtol=1e-4)
    ours, theirs = one.descriptors[first].astype(np.float32), other.descriptors[second].astype(np.float32)
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)


# --------------------------------------------------------------------------------------------------------- features


@pytest.mark.parametrize("name", ["how", "delf"])
def test_features_have_the_promised_form_and_order(name: str, weights: str, learned: str) -> None:
    extractor = load_extractor(name, weights=weights if name == "how" else learned, max_features=150)
    features = extractor.extract(picture(80, 96))
    assert features.descriptors.shape == (150, 8) and features.descriptors.dtype == np.float16
    assert features.keypoints.shape == (150, 3) and features.keypoints.dtype == np.float32
    assert features.scores.shape == (150,) and features.scores.dtype == np.float32
    assert (np.diff(features.scores) <= 0).all() and features.scores[-1] > 0
    assert features.image_size == (96, 80) and extractor.dim == 8
    if name == "how":
        assert features.scores[0] == 1
    else:
        lengths = np.linalg.norm(features.descriptors.astype(np.float32), axis=1)
        np.testing.assert_allclose(lengths, 1, atol=2e-3)


def test_features_are_those_of_the_network(weights: str) -> None:
    image, scales = picture(64, 72), (1.0, 0.5)
    found = How(weights=weights, scales=scales, max_features=90).extract(image)
    network = tiny_network()
    with torch.inference_mode():
        pixels = normalise_pixels(torch.from_numpy(image)[None], network.options)
        locations = describe(network, pixels, scales, 90)[0]
    np.testing.assert_allclose(found.descriptors, locations.descriptors, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(found.keypoints[:, :2], locations.positions, atol=1e-4)
    np.testing.assert_allclose(found.keypoints[:, 2], locations.sizes, rtol=1e-6)
    np.testing.assert_allclose(found.scores, locations.scores, rtol=1e-5)


def test_the_answer_is_the_same_every_time_and_in_every_way_an_image_is_given(tmp_path: Path, weights: str) -> None:
    image = picture(60, 75)
    Image.fromarray(image).save(tmp_path / "a.png")
    extractor = How(weights=weights)
    first = extractor.extract(image)
    for again in (extractor.extract(image), extractor.extract(tmp_path / "a.png"), How(weights=weights).extract(image)):
        assert_same(first, again)


def test_half_precision_is_another_recipe_and_near(weights: str) -> None:
    exact, rough = How(weights=weights, scales=[1.0]), How(weights=weights, scales=[1.0], precision="bf16")
    assert exact.recipe != rough.recipe
    one, other = exact.extract(picture(64, 64)), rough.extract(picture(64, 64))
    assert len(one) == len(other) and other.descriptors.dtype == np.float16
    assert one.scores == pytest.approx(other.scores, rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (300, 2), (4, 4)])
def test_an_image_too_small_for_any_location_has_no_features(shape: tuple[int, int], weights: str) -> None:
    features = How(weights=weights, scales=[1.0, 0.5]).extract(picture(*shape))
    assert features.descriptors.shape == (0, 8) and features.keypoints.shape == (0, 3)
    assert features.scores.shape == (0,) and features.image_size == shape[::-1]


def test_a_score_threshold_leaves_out_the_weak(learned: str) -> None:
    image = picture(64, 64)
    everything = load_extractor("delf", weights=learned).extract(image)
    middle = float(np.median(everything.scores))
    strong = load_extractor("delf", weights=learned, score_threshold=middle).extract(image)
    count = int((everything.scores >= middle).sum())
    assert 0 < count < len(everything) and len(strong) == count
    np.testing.assert_array_equal(strong.descriptors, everything.descriptors[:count])


# -------------------------------------------------------------------------------------------------------- keypoints


def moved(image: np.ndarray, right: int, down: int) -> np.ndarray:
    """The image on a larger grey canvas, this much from its left and upper edge."""
    canvas = np.full((image.shape[0] + 64, image.shape[1] + 64, 3), 120, np.uint8)
    canvas[down : down + image.shape[0], right : right + image.shape[1]] = image
    return canvas


@pytest.mark.parametrize(("right", "down"), [(8, 0), (0, 16), (40, 24)])
def test_keypoints_move_with_the_image(right: int, down: int, weights: str) -> None:
    """By multiples of the stride at the smaller scale; locations whose field lies inside the image see the same."""
    image, scales, reach = picture(96, 112), (1.0, 0.5), 28
    extractor = How(weights=weights, scales=scales, max_features=10_000)
    here, there = (by_place(extractor.extract(moved(image, *shift))) for shift in ((0, 0), (right, down)))
    inside = [place for place in here if reach <= place[0] < 112 - reach and reach <= place[1] < 96 - reach]
    assert len(inside) > 100 and {side for _, _, side in inside} == {4.0, 8.0}
    strongest = sorted(inside, key=lambda place: -here[place][1])
    matched = [(x + right, y + down, side) for x, y, side in strongest]
    assert all(place in there for place in matched)
    for before, after in zip(strongest, matched, strict=True):
        np.testing.assert_allclose(here[before][0], there[after][0], rtol=2e-3, atol=2e-3)
    order = sorted(matched, key=lambda place: -there[place][1])
    assert order[:20] == matched[:20]


def by_place(features: Features) -> dict[tuple[float, float, float], tuple[np.ndarray, float]]:
    """Descriptor and score of each keypoint."""
    rows = zip(features.keypoints.tolist(), features.descriptors.astype(np.float32), features.scores, strict=True)
    return {tuple(keypoint): (descriptor, float(score)) for keypoint, descriptor, score in rows}


@pytest.fixture(scope="module")
def brightness(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network that is the stronger the brighter a location's field is."""
    network = tiny_network()
    with torch.no_grad():
        for key, value in network.backbone.state_dict().items():
            value.fill_(0.0 if key.endswith("bias") else 1 / value[0].numel())
    path = tmp_path_factory.mktemp("weights") / "bright.safetensors"
    save_checkpoint(path, network, {})
    return str(path)


@pytest.mark.parametrize("max_side", [1024, 160, 100])
@pytest.mark.parametrize("scales", [(1.0,), (1.414,), (0.707,)])
@pytest.mark.parametrize("box", [None, (83.0, 41.0, 300.0, 230.0)])
def test_the_strongest_location_lies_where_the_bright_thing_is(
    max_side: int, scales: tuple[float, ...], box: tuple | None, brightness: str
) -> None:
    y, x = np.mgrid[:240, :320]
    image = np.repeat((250 * np.exp(-((x - 190) ** 2 + (y - 110) ** 2) / 450))[:, :, None], 3, 2).astype(np.uint8)
    found = How(weights=brightness, max_side=max_side, scales=scales).extract(image, box=box)
    pixel = max(1, 320 / max_side) / scales[0]  # of the original, per pixel that the network sees
    assert found.image_size == (320, 240)
    assert found.keypoints[0, 2] == pytest.approx(STRIDE * pixel, rel=0.02)
    assert found.keypoints[0, :2] == pytest.approx([190, 110], abs=0.6 * STRIDE * pixel)


def test_a_box_is_seen_at_the_size_it_has_in_the_whole_image(weights: str) -> None:
    """HOW shrinks a query by the factor of its whole image, and so by 2 here, though the box alone is small enough."""
    image = picture(160, 200)
    found = How(weights=weights, max_side=100, scales=[1.0]).extract(image, box=(40, 20, 120, 100))
    alone = How(weights=weights, max_side=40, scales=[1.0]).extract(np.ascontiguousarray(image[20:100, 40:120]))
    np.testing.assert_array_equal(found.descriptors, alone.descriptors)
    np.testing.assert_allclose(found.keypoints, alone.keypoints + np.array([40, 20, 0]), atol=1e-4)


# ---------------------------------------------------------------------------------------------------------- batches


def view(height: int, width: int, seed: int) -> View:
    return View(picture(height, width, seed), (width, height), (0, 0), (1.0, 1.0))


MIXED = [view(40, 48, 1), view(48, 40, 2), view(40, 48, 3), view(40, 48, 4), view(33, 33, 5), view(48, 40, 6)]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that pass through a network, as if it were on a GPU."""
    seen: list[int] = []
    run = NetworkExtractor._run

    def counted(self: NetworkExtractor, views: list[View]) -> list[Features]:
        seen.append(len(views))
        return run(self, views)

    monkeypatch.setattr(BatchedExtractor, "batch_size", 96)
    monkeypatch.setattr(NetworkExtractor, "_run", counted)
    return seen


def test_views_of_one_size_are_described_together_and_come_back_in_order(weights: str, batches: list[int]) -> None:
    extractor = How(weights=weights)
    assert isinstance(extractor, TwoStepExtractor)
    found = extractor.describe(MIXED)
    assert sorted(batches) == [1, 2, 3]
    for features, given in zip(found, MIXED, strict=True):
        assert_close(features, extractor.extract(given.pixels))
    assert extractor.describe([]) == []


def test_a_batch_holds_so_many_pixels(weights: str, batches: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = How(weights=weights)
    for pixels, sizes in ((4000, [2, 1]), (1, [1, 1, 1])):
        batches.clear()
        monkeypatch.setattr(extractors_network, "BATCH_PIXELS", pixels)
        extractor.describe([MIXED[0], MIXED[2], MIXED[3]])
        assert batches == sizes


def test_a_processor_describes_one_at_a_time(weights: str, batches: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BatchedExtractor, "batch_size", 1)
    How(weights=weights).describe(MIXED)
    assert batches == [1] * len(MIXED)


def test_where_memory_is_short_half_of_a_batch_is_tried(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    run = NetworkExtractor._run

    def short(self: NetworkExtractor, views: list[View]) -> list[Features]:
        tried.append(len(views))
        if len(views) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return run(self, views)

    monkeypatch.setattr(BatchedExtractor, "batch_size", 96)
    monkeypatch.setattr(NetworkExtractor, "_run", short)
    given = [view(40, 48, number) for number in range(7)]
    extractor = How(weights=weights)
    found = extractor.describe(given)
    assert tried == [7, 3, 1, 2, 4, 2, 2]
    for features, one in zip(found, given, strict=True):
        assert_close(features, extractor.extract(one.pixels))


def test_a_single_image_without_memory_is_an_error(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: NetworkExtractor, views: list[View]) -> list[Features]:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(NetworkExtractor, "_run", none)
    with pytest.raises(torch.OutOfMemoryError):
        How(weights=weights).extract(picture(40, 40))


# ---------------------------------------------------------------------------------------------- weights and recipes


def test_the_recipe_names_the_options_and_the_hash_of_the_weights(weights: str) -> None:
    extractor = load_extractor("how", weights=weights, max_features=77, scales=[1, 0.5])
    options = {"max_features": 77, "max_side": 1024, "scales": [1.0, 0.5], "precision": "fp32"}
    assert extractor.recipe == Recipe("how", options, file_sha256(weights))
    assert Recipe.from_json(extractor.recipe.to_json()) == extractor.recipe
    assert extractor.origin.make() == extractor
    assert How(weights=weights, device="cpu").recipe == How(weights=weights).recipe


def test_the_place_of_the_weights_changes_nothing_and_their_content_does(tmp_path: Path, weights: str) -> None:
    copied = shutil.copy(weights, tmp_path / "copied.safetensors")
    other = tiny_checkpoint(tmp_path / "other.safetensors", seed=1)
    assert How(weights=str(copied)).recipe == How(weights=weights).recipe
    assert How(weights=other).recipe != How(weights=weights).recipe


def test_a_recipe_makes_its_extractor_again_where_the_weights_are(
    tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASMK_ENGINE_CACHE", str(tmp_path / "cache"))
    recipe = Recipe.from_json(How(weights=weights, scales=[1.0]).recipe.to_json())
    found = extractor_from_recipe(recipe, Path(weights), device="cpu")
    assert found.recipe == recipe
    assert_same(found.extract(picture(50, 50)), How(weights=weights, scales=[1.0]).extract(picture(50, 50)))
    other = tiny_checkpoint(tmp_path / "other.safetensors", seed=1)
    for candidate in (None, Path(other), tmp_path / "none"):
        with pytest.raises(NotFoundError, match=r"need the network with sha256 .*give its file with --weights"):
            extractor_from_recipe(recipe, candidate)


def test_weights_are_asked_for() -> None:
    for name in ("how", "delf", "how-r18"):
        with pytest.raises(InputError, match=r"needs weights: give a network file with --weights, made by `asmk"):
            load_extractor(name)


def test_weights_that_cannot_be_used_are_told(tmp_path: Path, weights: str) -> None:
    with pytest.raises(NotFoundError, match="no such weight file"):
        _ = How(weights=str(tmp_path / "none")).recipe
    np.savez(tmp_path / "backbone.npz", a=np.zeros(3))
    with pytest.raises((FormatError, DamagedError), match=r"backbone\.npz"):
        _ = How(weights=str(tmp_path / "backbone.npz")).recipe
    raw = bytearray(Path(weights).read_bytes())
    raw[-2000] ^= 1
    (tmp_path / "altered.safetensors").write_bytes(raw)
    with pytest.raises(DamagedError, match=r"altered\.safetensors: bytes .* were altered"):
        _ = How(weights=str(tmp_path / "altered.safetensors")).recipe


def test_a_network_of_the_other_attention_is_refused_with_what_takes_it(weights: str, learned: str) -> None:
    with pytest.raises(MismatchError, match=r"learned attention, how needs norm; use --extractor delf"):
        _ = load_extractor("how", weights=learned).recipe
    with pytest.raises(MismatchError, match=r"norm attention, delf needs learned; use --extractor how"):
        _ = load_extractor("delf", weights=weights).recipe


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scales": []}, r"scales is \[\]; expected one or more numbers, each 0.01 to 8.0"),
        ({"scales": [1.0, 1]}, r"scales is \[1.0, 1.0\]; give each number once"),
        ({"scales": [9.0]}, r"scales is 9.0; expected 0.01 to 8.0"),
        ({"scales": "1.0"}, r"scales is '1.0'; expected one or more numbers"),
        ({"scales": [float("nan")]}, r"scales is nan; expected a number"),
        ({"precision": "fp8"}, r"precision is 'fp8'; choose one of fp32, bf16, fp16"),
        ({"max_features": 0}, r"max_features is 0"),
        ({"max_side": 15}, r"max_side is 15; expected 16 to 16384"),
        ({"threshold": 1}, r"how has no option 'threshold'; it has: weights \(a network file\), max_features"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, said: str, weights: str) -> None:
    with pytest.raises(InputError, match=said):
        load_extractor("how", **({"weights": weights} | options))


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "cuda:-1", "cuda:one"])
def test_a_device_that_there_is_not_is_told(device: str, weights: str) -> None:
    with pytest.raises(InputError, match=rf"device.* '{device}'"):
        _ = How(weights=weights, device=device).recipe


# ---------------------------------------------------------------------------------------------------------- presets


@pytest.mark.parametrize("name", ["how", "delf"])
def test_descriptors_in_single_precision_are_those_that_are_rounded_otherwise(
    name: str, weights: str, learned: str
) -> None:
    made = {"how": weights, "delf": learned}[name]
    half, single = (load_extractor(name, weights=made, dtype=dtype) for dtype in ("float16", "float32"))
    assert single.recipe.options == {**half.recipe.options, "dtype": "float32"} != half.recipe.options
    one, other = (extractor.extract(picture(90, 70)) for extractor in (half, single))
    assert other.descriptors.dtype == np.float32 and (other.descriptors != one.descriptors).any()
    np.testing.assert_array_equal(other.descriptors.astype(np.float16), one.descriptors)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_an_extractor_a_network_and_weights_that_there_are(name: str) -> None:
    preset = PRESETS[name]
    assert name.startswith(preset.extractor)
    with torch.device("meta"):
        assert build_backbone(preset.backbone, preset.skip).channels >= 128
    assert not preset.published or preset.published in _names(WEIGHTS)


def _names(entries: object) -> Sequence[str]:
    return [getattr(entry, "name", entry) for entry in entries]  # type: ignore[attr-defined]


def test_a_preset_takes_its_own_network_only(tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        MismatchError, match=r"squeezenet1_1 with skip 8, how-squeezenet needs squeezenet1_1 with skip 0"
    ):
        load_extractor("how-squeezenet", weights=weights)
    monkeypatch.setitem(PRESETS, "how-tiny", Preset("how", "squeezenet1_1", 8))
    extractor = load_extractor("how-tiny", weights=weights)
    assert extractor == load_extractor("how", weights=weights) and extractor.recipe.extractor == "how"


# ----------------------------------------------------------------------------------------------------- real weights


def test_squeezenet_of_imagenet_finds_the_same_features_every_time(tmp_path: Path) -> None:
    path = SHARED / "weights" / "squeezenet1.1.npz"
    images = sorted((SHARED / "photos" / "images").rglob("*.jpg"))
    if not path.is_file() or not images:
        pytest.skip("no weights here")
    network = LocalNetwork(LocalOptions("squeezenet1_1", reduction="none"))
    network.backbone = load_backbone(path, "squeezenet1_1")
    save_checkpoint(tmp_path / "net.safetensors", network, {})
    options = {"weights": str(tmp_path / "net.safetensors"), "max_side": 256, "max_features": 200}
    one, other = (load_extractor("how-squeezenet", **options).extract(images[0]) for _ in range(2))
    assert_same(one, other)
    assert len(one) == 200 and (one.descriptors >= 0).all() and one.scores[0] == 1
    width, height = one.image_size
    assert (one.keypoints[:, 0] < width).all() and (one.keypoints[:, 1] < height).all()
    assert len(np.unique(one.keypoints[:, 2])) > 2  # several scales


def test_the_options_of_the_tiny_network_are_those_of_its_file(weights: str) -> None:
    assert How(weights=weights).network.options == tiny_options()
