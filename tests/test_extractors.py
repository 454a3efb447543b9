"""RootSIFT against its twin and known places; options, recipes and the errors a user meets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import naive
from asmk_engine.errors import InputError, MismatchError
from asmk_engine.extractors import EXTRACTORS, Extractor, extractor_from_recipe, load_extractor
from asmk_engine.extractors.rootsift import RootSift, rootsift
from asmk_engine.features import Features, FeatureSet, check_features
from asmk_engine.recipes import COMPOSED_EXTRACTORS, Recipe


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.clip(128 + 300 * smooth, 0, 255).astype(np.uint8)


def with_blobs(height: int, width: int, *blobs: tuple[float, float, float]) -> np.ndarray:
    """A grey image with bright round blobs: x, y and radius of each."""
    y, x = np.mgrid[:height, :width]
    grey = sum(180 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * radius**2)) for cx, cy, radius in blobs)
    return np.repeat((30 + grey).astype(np.uint8)[:, :, None], 3, axis=2)


def assert_same(one: Features, other: Features) -> None:
    for key in ("descriptors", "keypoints", "scores"):
        np.testing.assert_array_equal(getattr(one, key), getattr(other, key))
    assert one.image_size == other.image_size


def nearest(features: Features, x: float, y: float) -> np.ndarray:
    distances = np.hypot(features.keypoints[:, 0] - x, features.keypoints[:, 1] - y)
    return features.keypoints[distances.argmin()]


def test_rootsift_equals_its_twin_and_zeros_stay_zeros() -> None:
    raw = np.random.default_rng(0).integers(0, 256, (20, 128)).astype(np.float32)
    raw[3] = 0
    found = rootsift(raw)
    np.testing.assert_allclose(found, [naive.rootsift(row) for row in raw.tolist()], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(np.delete(found, 3, axis=0), axis=1), 1, rtol=1e-6)
    assert not found[3].any()
    assert rootsift(np.zeros((0, 128), np.float32)).shape == (0, 128)


def test_features_have_the_promised_form_and_order() -> None:
    features = load_extractor("rootsift", max_features=200).extract(textured(240, 320))
    assert features.descriptors.shape == (200, 128) and features.descriptors.dtype == np.float16
    assert features.keypoints.shape == (200, 4) and features.keypoints.dtype == np.float32
    assert features.scores.dtype == np.float32
    assert (np.diff(features.scores) <= 0).all() and features.scores[-1] > 0
    assert features.image_size == (320, 240)
    norms = np.linalg.norm(features.descriptors.astype(np.float32), axis=1)
    np.testing.assert_allclose(norms, 1, atol=2e-3)


def test_descriptors_in_single_precision_are_those_that_are_rounded_otherwise(tmp_path: Path) -> None:
    """And only then does the recipe name the type, so that earlier recipes stay equal."""
    half, single = RootSift(max_features=150), RootSift(max_features=150, dtype="float32")
    assert "dtype" not in half.recipe.options and single.recipe.options == {**half.recipe.options, "dtype": "float32"}
    assert extractor_from_recipe(single.recipe) == single and extractor_from_recipe(half.recipe) == half
    image = textured(240, 320)
    exact = single.extract(image).descriptors
    assert exact.dtype == np.float32
    np.testing.assert_array_equal(exact.astype(np.float16), half.extract(image).descriptors)
    Image.fromarray(image).save(tmp_path / "a.png")
    stored = single.extract_folder(tmp_path / "a.png", tmp_path / "f", workers=1)
    np.testing.assert_array_equal(stored.read("a.png").descriptors, exact)
    with pytest.raises(MismatchError):
        half.extract_folder(tmp_path / "a.png", tmp_path / "f", workers=0)
    with pytest.raises(InputError, match="dtype is 'float64'; choose one of float16, float32"):
        RootSift(dtype="float64")


def test_fewer_features_are_the_first_of_more() -> None:
    image = textured(240, 320)
    many, few = RootSift(max_features=400).extract(image), RootSift(max_features=150).extract(image)
    np.testing.assert_array_equal(few.scores, many.scores[:150])
    inside = many.scores[:150] > many.scores[149]
    np.testing.assert_array_equal(few.descriptors[inside], many.descriptors[:150][inside])


def test_the_answer_is_the_same_every_time_and_for_any_number_of_threads() -> None:
    image, before = textured(300, 400), cv2.getNumThreads()
    try:
        found = []
        for threads in (1, 2, 2):
            cv2.setNumThreads(threads)
            found.append(RootSift().extract(image))
    finally:
        cv2.setNumThreads(before)
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])


@pytest.mark.parametrize("max_side", [400, 200, 150])
def test_keypoints_lie_where_the_thing_is_in_the_original(max_side: int) -> None:
    blobs = [(101.0, 60.0, 5.0), (260.5, 199.25, 8.0)]
    features = RootSift(max_side=max_side).extract(with_blobs(300, 400, *blobs))
    for x, y, radius in blobs:
        found = nearest(features, x, y)
        assert found[:2] == pytest.approx([x, y], abs=0.15)
        # SIFT's blob of standard deviation r responds at sigma = r; its diameter is 2 sigma.
        assert found[2] == pytest.approx(2 * radius, rel=0.2)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_angles_turn_with_the_image(quarters: int) -> None:
    """A place (x, y) is at (y, w - 1 - x) after a quarter turn to the left, which takes 90 degrees from an angle."""
    image = textured(240, 240)
    one, other = RootSift().extract(image), RootSift().extract(np.ascontiguousarray(np.rot90(image, quarters)))
    x, y = one.keypoints[:, 0], one.keypoints[:, 1]
    for _ in range(quarters):
        x, y = y, 239 - x
    found = 0
    for place, angle in zip(np.stack([x, y], 1), one.keypoints[:, 3], strict=True):
        near = np.linalg.norm(other.keypoints[:, :2] - place, axis=1) < 0.5
        off = other.keypoints[near, 3] - (angle - quarters * np.pi / 2)
        found += bool((np.abs(np.angle(np.exp(1j * off))) < 0.05).any())
    assert len(one) > 100 and found > 0.9 * len(one)


def test_a_box_gives_the_features_of_its_part_in_original_pixels() -> None:
    image = with_blobs(300, 400, (101, 60, 5), (260, 200, 8))
    extractor = RootSift(max_side=200)
    whole, part = extractor.extract(image), extractor.extract(image, box=(200, 150, 330, 260))
    assert part.image_size == (400, 300)
    assert nearest(part, 260, 200) == pytest.approx(nearest(whole, 260, 200), abs=0.2)
    assert (part.keypoints[:, 0] >= 200).all() and (part.keypoints[:, 0] <= 330).all()
    assert (part.keypoints[:, 1] >= 150).all() and (part.keypoints[:, 1] <= 260).all()


def test_a_file_and_its_pixels_have_the_same_features(tmp_path: Path) -> None:
    image = textured(120, 160)
    Image.fromarray(image).save(tmp_path / "a.png")
    extractor = load_extractor()
    assert_same(extractor.extract(tmp_path / "a.png"), extractor.extract(image))
    assert_same(extractor.extract(str(tmp_path / "a.png")), extractor.extract(image))


@pytest.mark.parametrize(
    "image",
    [
        np.full((200, 300, 3), 90, np.uint8),
        textured(1, 1),
        textured(15, 15),
        textured(3, 900),
        textured(2, 5000),
        textured(40, 40)[:, :, 0] * 0,
    ],
    ids=["flat", "one pixel", "tiny", "thin", "thin and long", "black"],
)
def test_images_without_texture_have_no_features(image: np.ndarray) -> None:
    features = load_extractor().extract(image)
    assert len(features) == 0
    assert features.descriptors.shape == (0, 128) and features.keypoints.shape == (0, 4)
    assert features.image_size == (image.shape[1], image.shape[0])


def test_a_lower_contrast_threshold_finds_more_in_pale_images() -> None:
    pale = (120 + textured(300, 400) / 6).astype(np.uint8)
    counts = [len(RootSift(contrast_threshold=threshold).extract(pale)) for threshold in (0.04, 0.02, 0.01)]
    assert counts[0] < counts[1] < counts[2]


def test_the_recipe_records_every_option_and_makes_the_extractor_again() -> None:
    extractor = load_extractor("rootsift", max_features=77, edge_threshold=12)
    assert extractor.recipe == Recipe(
        "rootsift", {"max_features": 77, "max_side": 1024, "contrast_threshold": 0.02, "edge_threshold": 12.0}
    )
    assert Recipe.from_json(extractor.recipe.to_json()) == extractor.recipe
    assert extractor_from_recipe(Recipe.from_json(extractor.recipe.to_json())) == extractor
    assert extractor.origin.make() == extractor


def test_equal_options_give_equal_recipes_however_they_are_typed() -> None:
    plain = RootSift(max_features=500, edge_threshold=10.0, contrast_threshold=0.5)
    typed = RootSift(max_features=np.int64(500), edge_threshold=10, contrast_threshold=np.float32(0.5))
    assert plain.recipe.to_json() == typed.recipe.to_json()


def test_unknown_extractors_and_options_are_refused_with_what_there_is() -> None:
    with pytest.raises(InputError, match=r"unknown extractor 'surf'; choose one of .*how, .*rootsift"):
        load_extractor("surf")
    with pytest.raises(
        InputError, match=r"no option 'max_feature'; it has: max_features \(1 to 1000000, default 2000\), max"
    ):
        load_extractor("rootsift", max_feature=10)
    with pytest.raises(InputError, match=r"\[superpoint\] cannot be extracted here \(there is no extractor 'sup"):
        extractor_from_recipe(Recipe("superpoint"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_features": 0}, "max_features is 0; expected 1 to 1000000"),
        ({"max_features": 10.5}, "max_features is 10.5; expected a whole number, 1 to 1000000"),
        ({"max_features": True}, "max_features is True"),
        ({"max_side": 8}, "max_side is 8; expected 16 to 16384"),
        ({"contrast_threshold": -0.1}, "contrast_threshold is -0.1; expected 0.0 to 1.0"),
        ({"contrast_threshold": "low"}, "contrast_threshold is 'low'; expected a number"),
        ({"edge_threshold": float("nan")}, "edge_threshold is nan; expected a number"),
    ],
)
def test_values_out_of_range_are_refused_with_the_range(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_extractor("rootsift", **options)


def made(name: str, folder: Path) -> Extractor:
    """The extractor of that name; one that needs a network gets a small one."""
    if name == "rootsift":
        return load_extractor(name)
    from tiny_networks import tiny_checkpoint, tiny_composed_checkpoint

    if name in COMPOSED_EXTRACTORS or name == "delg-local":
        network = name.removesuffix("-local")
        return load_extractor(name, weights=tiny_composed_checkpoint(folder / "net.safetensors", network))
    attention = {"attention": "learned", "reduction": "post"} if name == "delf" else {}
    return load_extractor(name, weights=tiny_checkpoint(folder / "net.safetensors", **attention))


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_every_extractor_keeps_the_protocol(name: str, tmp_path: Path) -> None:
    extractor = made(name, tmp_path)
    features = extractor.extract(textured(100, 120))
    assert len(features) > 0 and features.descriptors.shape[1] == extractor.dim
    check_features("features", features, extractor.dim)
    assert features.image_size == (120, 100)
    assert extractor.recipe.extractor == name
    assert (extractor.recipe.weights is None) == (name == "rootsift")
    assert extractor.origin.make().recipe == extractor.recipe
    part = extractor.extract(textured(100, 120), box=(20, 10, 110, 90))
    assert part.image_size == (120, 100) and len(part) > 0
    (tmp_path / "photos").mkdir()
    Image.fromarray(textured(100, 120)).save(tmp_path / "photos/a.png")
    photos = extractor.extract_folder(tmp_path / "photos", tmp_path / "set", workers=0)
    assert isinstance(photos, FeatureSet) and photos.recipe == extractor.recipe
    assert_same(photos.read("a.png"), features)


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_every_recipe_makes_its_extractor_again(name: str, tmp_path: Path) -> None:
    extractor = made(name, tmp_path)
    again = extractor_from_recipe(Recipe.from_json(extractor.recipe.to_json()), tmp_path / "net.safetensors")
    assert again.recipe == extractor.recipe
    assert_same(again.extract(textured(60, 80)), extractor.extract(textured(60, 80)))
