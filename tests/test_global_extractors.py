"""Extractors of whole-image descriptors: what they return, the files they open, whitening learned from their sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import naive_global
from asmk_engine.cli.extract import extract
from asmk_engine.errors import AsmkError, DamagedError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.extractors import extractor_from_recipe, load_extractor
from asmk_engine.extractors.network import BatchedExtractor
from asmk_engine.features import Features, FeatureSet
from asmk_engine.images.decoding import View, view_image
from asmk_engine.networks import checkpoints
from asmk_engine.networks.backbone_names import MOST_SKIP
from asmk_engine.networks.backbones import build_backbone
from asmk_engine.networks.global_checkpoints import (
    Completion,
    find_backbone,
    open_global_checkpoint,
    open_global_network,
    save_global_checkpoint,
)
from asmk_engine.networks.global_network import GEM_SCALES, POOLINGS, GlobalNetwork, GlobalOptions, rescaled
from asmk_engine.networks.multiscale import normalise_pixels
from asmk_engine.networks.tensor_files import kind_of_network
from asmk_engine.storage.user_files import file_sha256
from tiny_networks import SHARED, randomised, tiny_checkpoint

WHOLE = (*POOLINGS, "how-global")


def tiny_global(seed: int = 0, **options: object) -> GlobalNetwork:
    """A network of 128 channels at stride 4 with random weights."""
    network = GlobalNetwork(GlobalOptions(**({"backbone": "squeezenet1_1", "skip": 8} | options)))  # type: ignore[arg-type]
    randomised(network, seed)
    if network.exponent is not None:
        network.exponent.data.fill_(2.5)
    return network.requires_grad_(False)


@pytest.fixture
def backbone_file(tmp_path: Path) -> str:
    """Weights of a backbone alone, as torchvision publishes them, with a piece of its classifier."""
    state = randomised(build_backbone("squeezenet1_1", 8)).state_dict()
    torch.save({**state, "classifier.1.weight": torch.zeros(3, 2, 1, 1)}, tmp_path / "backbone.pth")
    return str(tmp_path / "backbone.pth")


@pytest.fixture
def network_file(tmp_path: Path) -> str:
    """A local network, of which the backbone is taken, or the whole by how-global."""
    return tiny_checkpoint(tmp_path / "local.safetensors")


def photograph(height: int = 60, width: int = 84, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(6):
        Image.fromarray(photograph(48 + 8 * (number % 2), 64, number)).save(tmp_path / f"photos/{number}.png")
    return tmp_path / "photos"


def assert_same(one: Features, other: Features, tolerance: float = 0.0) -> None:
    np.testing.assert_allclose(one.descriptors, other.descriptors, atol=tolerance)
    np.testing.assert_array_equal(one.keypoints, other.keypoints)
    assert one.image_size == other.image_size


# What they return


@pytest.mark.parametrize("name", WHOLE)
def test_one_descriptor_of_unit_length_at_the_centre(name: str, network_file: str) -> None:
    extractor = load_extractor(name, weights=network_file, max_side=42)
    features = extractor.extract(photograph())
    assert features.descriptors.shape == (1, extractor.dim) and features.descriptors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features.descriptors), 1, rtol=1e-6)
    np.testing.assert_allclose(features.keypoints, [[41.5, 29.5, 84]], rtol=1e-6)
    assert features.scores.tolist() == [1] and features.image_size == (84, 60)
    assert extractor.recipe.is_global and extractor.recipe.extractor == name
    assert_same(features, extractor.extract(photograph()))


@pytest.mark.parametrize("name", WHOLE)
def test_a_box_is_described_as_the_image_cut_to_it(name: str, network_file: str) -> None:
    extractor = load_extractor(name, weights=network_file)
    boxed, cut = extractor.extract(photograph(), (10, 20, 60, 50)), extractor.extract(photograph()[20:50, 10:60])
    np.testing.assert_allclose(boxed.descriptors, cut.descriptors, atol=1e-6)
    np.testing.assert_allclose(boxed.keypoints, [[34.5, 34.5, 50]])


@pytest.mark.parametrize("name", POOLINGS)
def test_descriptors_equal_their_twins(name: str, network_file: str) -> None:
    extractor: Any = load_extractor(name, weights=network_file)
    with torch.no_grad():
        pixels = normalise_pixels(torch.from_numpy(photograph())[None], extractor.network.options)
        maps = [extractor.network.backbone(part)[0].double().numpy() for part in rescaled(pixels, GEM_SCALES, 1)]
    vectors = [naive_global.over_norm(getattr(naive_global, name)(found)) for found in maps]
    expected = naive_global.over_scales(vectors, 3.0 if name == "gem" else 1.0)
    np.testing.assert_allclose(extractor.extract(photograph()).descriptors, [expected], atol=1e-5)


@pytest.mark.parametrize("name", ["gem", "how-global"])
def test_views_of_several_sizes_are_described_in_their_order(
    name: str, network_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BatchedExtractor, "batch_size", 8)
    extractor: Any = load_extractor(name, weights=network_file)
    views = [view_image(photograph(40 + 8 * (number % 2), 48, number), 1024) for number in range(5)]
    for one, view in zip(extractor.describe(views), views, strict=True):
        assert_same(one, extractor.extract(view.pixels), 1e-5)
    assert extractor.describe([]) == []


def test_where_memory_ends_half_of_the_images_are_tried(network_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor: Any = load_extractor("gem", weights=network_file)
    whole, sizes = type(extractor)._run, []

    def limited(self: Any, views: list[View]) -> list[Features]:
        sizes.append(len(views))
        if len(views) > 2:
            raise torch.OutOfMemoryError("no more")
        return whole(self, views)

    monkeypatch.setattr(BatchedExtractor, "batch_size", 8)
    monkeypatch.setattr(type(extractor), "_run", limited)
    found = extractor.describe([view_image(photograph(seed=number), 1024) for number in range(5)])
    assert sizes == [5, 2, 3, 1, 2]
    for number, one in enumerate(found):
        assert_same(one, extractor.extract(photograph(seed=number)), 1e-5)


@pytest.mark.parametrize("name", WHOLE)
def test_tiny_and_black_images_have_a_finite_descriptor(name: str, network_file: str) -> None:
    extractor = load_extractor(name, weights=network_file)
    for pixels in (photograph(1, 1), photograph(3, 200), np.zeros((40, 40, 3), np.uint8)):
        assert np.isfinite(extractor.extract(pixels).descriptors).all()


def test_half_precision_is_near(network_file: str) -> None:
    for name in ("gem", "how-global"):
        exact = load_extractor(name, weights=network_file).extract(photograph()).descriptors
        half = load_extractor(name, weights=network_file, precision="bf16").extract(photograph()).descriptors
        assert 0.99 < (exact @ half.T).item() < 1.00001 and half.dtype == np.float32


def test_a_feature_set_is_extracted_and_found_again(photographs: Path, backbone_file: str, tmp_path: Path) -> None:
    extractor: Any = load_extractor("spoc", weights=backbone_file)
    found = extractor.extract_folder(photographs, tmp_path / "features", workers=0)
    assert len(found) == 6 and found.dim == 128 and found.recipe == extractor.recipe
    for name, features in found.images():
        assert_same(features, extractor.extract(photographs / name))


# Options and recipes


@pytest.mark.parametrize(
    ("name", "options"), [("gem", {"exponent": 4.0}), ("rmac", {}), ("mac", {"scales": (1.0, 0.5)}), ("how-global", {})]
)
def test_the_recipe_makes_an_equal_extractor(name: str, options: dict[str, Any], network_file: str) -> None:
    extractor = load_extractor(name, weights=network_file, **options)
    recipe = type(extractor.recipe).from_json(extractor.recipe.to_json())
    again = extractor_from_recipe(recipe, Path(network_file))
    assert again.recipe == extractor.recipe
    assert_same(again.extract(photograph()), extractor.extract(photograph()))


def test_recipes_hold_the_scales_that_are_used_and_nothing_without_effect(tmp_path: Path, backbone_file: str) -> None:
    recipe = load_extractor("gem", weights=backbone_file).recipe
    sizes = {"max_side": 1024, "precision": "fp32"}
    assert recipe.options == {**sizes, "exponent": 3.0, "skip": 0, "scales": list(GEM_SCALES)}
    assert recipe.weights == file_sha256(backbone_file)
    save_global_checkpoint(tmp_path / "own.safetensors", tiny_global(scales=(1.0, 0.7)), {})
    own = load_extractor("gem", weights=str(tmp_path / "own.safetensors"))
    assert own.recipe.options == {**sizes, "scales": [1.0, 0.7]}
    assert load_extractor("gem", weights=str(own.weights), scales=[2.0]).recipe.options["scales"] == [2.0]  # type: ignore[attr-defined]


def test_exponents_change_gem_and_nothing_else_has_one(backbone_file: str) -> None:
    three, four = (load_extractor("gem", weights=backbone_file, exponent=p).extract(photograph()) for p in (3.0, 4.0))
    assert not np.allclose(three.descriptors, four.descriptors, atol=1e-4)
    with pytest.raises(InputError, match=r"mac has no option 'exponent'; it has: .*default the network's own"):
        load_extractor("mac", weights=backbone_file, exponent=3.0)


@pytest.mark.parametrize("name", WHOLE)
def test_weights_are_asked_for(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} needs weights"):
        load_extractor(name)


def test_presets_demand_their_backbone(backbone_file: str, network_file: str) -> None:
    with pytest.raises(
        MismatchError, match="its backbone is squeezenet1_1 with skip 7, gem-squeezenet needs squeezenet1_1"
    ):
        load_extractor("gem-squeezenet", weights=backbone_file)
    with pytest.raises(MismatchError, match="with learned attention, how-global needs norm"):
        tiny_checkpoint(Path(network_file), attention="learned")
        assert load_extractor("how-global", weights=network_file).dim


# Files


@pytest.mark.parametrize("options", [{}, {"pooling": "mac", "regional": "whitened", "whitening": 5, "projection": 3}])
def test_a_network_is_written_and_opened(options: dict[str, Any], tmp_path: Path) -> None:
    network, path = tiny_global(**options), tmp_path / "a.safetensors"
    digest = save_global_checkpoint(path, network, {"made": "here"})
    opened, origin = open_global_checkpoint(path)
    assert digest == file_sha256(path) and origin == {"made": "here"} and opened.options == network.options
    for key, value in network.state_dict().items():
        torch.testing.assert_close(opened.state_dict()[key], value, rtol=0, atol=0)
    again = tmp_path / "b.safetensors"
    assert save_global_checkpoint(again, opened, origin) == digest


def test_altered_cut_and_other_files_are_refused(tmp_path: Path, network_file: str) -> None:
    path = tmp_path / "a.safetensors"
    save_global_checkpoint(path, tiny_global(), {})
    whole = path.read_bytes()
    path.write_bytes(whole[:-200] + bytes([whole[-200] ^ 1]) + whole[-199:])
    with pytest.raises(DamagedError, match=r"a.safetensors: .* altered"):
        open_global_checkpoint(path)
    path.write_bytes(whole[:1000])
    with pytest.raises(DamagedError):
        open_global_checkpoint(path)
    with pytest.raises(FormatError, match="not a global network"):
        open_global_checkpoint(network_file)
    network = tiny_global()
    network.exponent.data.fill_(-1)  # type: ignore[union-attr]
    save_global_checkpoint(path, network, {})
    with pytest.raises(DamagedError, match="a GeM exponent is not greater than 0"):
        open_global_checkpoint(path)
    checkpoints.write_network(path, "asmk-engine global network", build_backbone("squeezenet1_1", 9),
                              GlobalOptions("squeezenet1_1", 9).to_json(), {})  # fmt: skip
    with pytest.raises(MismatchError, match=r"missing backbone.features.0.weight; .*missing exponent"):
        open_global_checkpoint(path)


def test_a_complete_network_is_not_completed_otherwise(tmp_path: Path) -> None:
    path = str(tmp_path / "a.safetensors")
    save_global_checkpoint(path, tiny_global(), {})
    assert open_global_network(path, Completion())[1]
    assert open_global_network(path, Completion("gem", 8, 2.5))[0].options.skip == 8
    for completion in (Completion("gem", 1), Completion("gem", 0, 2.0)):
        with pytest.raises(InputError, match="a complete network has its own skip and exponent"):
            open_global_network(path, completion)
    with pytest.raises(MismatchError, match="a network with gem pooling, expected mac; use --extractor gem"):
        assert load_extractor("mac", weights=path).dim


def test_every_backbone_is_found_by_its_tensors() -> None:
    with torch.device("meta"):
        for name in ("resnet18", "resnet50", "resnet101", "squeezenet1_1", "vgg16", "resnet50v2"):
            for skip in {0, min(1, MOST_SKIP[name])}:
                state = build_backbone(name, skip).state_dict()
                assert find_backbone({**state, "fc.bias": torch.zeros(5)}, 0, "here") == (name, skip)
        whole = build_backbone("resnet18").state_dict()
        assert find_backbone(whole, 2, "here") == ("resnet18", 2)
        cut = {key: value[:1] for key, value in whole.items() if value.ndim}
        for wrong in ({}, {**whole, "surplus": torch.zeros(1)}, cut):
            with pytest.raises(MismatchError, match="fit no known backbone"):
                find_backbone(wrong, 0, "here")


@pytest.mark.parametrize(("file", "skip"), [("squeezenet1.1.npz", 0), ("resnet50v2_stage1-3.npz", 1)])
def test_published_backbones_describe_a_photograph(file: str, skip: int) -> None:
    path = SHARED / "weights" / file
    if not path.is_file():
        pytest.skip("no published weights here")
    network, complete = open_global_network(path, Completion("rmac"))
    assert network.options.skip == skip and not complete
    features = load_extractor("rmac", weights=str(path), scales=(1.0,)).extract(photograph(64, 64))
    assert features.descriptors.shape == (1, network.dim)


def test_files_that_hold_no_network(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(FormatError, match="not weights that can be read safely"):
        open_global_network(tmp_path / "text.pth", Completion())
    with pytest.raises(NotFoundError, match="no such weight file"):
        open_global_network(tmp_path / "none.pth", Completion())
    with pytest.raises(NotFoundError, match="no such weight file"):
        open_global_network(tmp_path / "none.npz", Completion())
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(FormatError, match="contains no state dict"):
        open_global_network(tmp_path / "list.pth", Completion())


# The command


def test_the_command_keeps_a_complete_network_beside_the_features(
    photographs: Path, backbone_file: str, network_file: str, tmp_path: Path
) -> None:
    def extracted(name: str, *options: object) -> FeatureSet:
        arguments = [photographs, "-o", tmp_path / f"{name}.features", "--workers", 0, *options]
        done = CliRunner().invoke(extract, [str(argument) for argument in arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return FeatureSet.open(tmp_path / f"{name}.features")

    for name, file in (("crow", backbone_file), ("gem", network_file), ("how-global", network_file)):
        found = extracted(name, "--extractor", name, "--weights", file)
        beside = tmp_path / f"{name}.network.safetensors"
        assert found.recipe.weights == file_sha256(beside) and found.recipe.extractor == name
        assert kind_of_network(beside) in ("asmk-engine global network", checkpoints.KIND)
        assert_same(found.read("0.png"), load_extractor(name, weights=file).extract(photographs / "0.png"), 1e-6)
        Image.fromarray(photograph(seed=9)).save(photographs / f"{name}.png")
        assert f"{name}.png" in extracted(name)  # by the recipe, with the network that lies there


def test_the_command_refuses_options_that_are_not_of_the_extractor(
    photographs: Path, backbone_file: str, tmp_path: Path
) -> None:
    for options, message in (
        (["--extractor", "gem"], "gem needs weights"),
        (["--extractor", "mac", "--weights", backbone_file, "--exponent", "3"], "mac has no option 'exponent'"),
        (["--extractor", "gem", "--weights", backbone_file, "--max-features", "3"], "gem has no option 'max_features'"),
        (["--extractor", "gem", "--weights", str(tmp_path / "none.pth")], "no such weight file"),
        (["--extractor", "how-global", "--weights", backbone_file], "backbone.pth"),
    ):
        done = CliRunner().invoke(extract, [str(photographs), "-o", str(tmp_path / "x"), *options])
        assert isinstance(done.exception, AsmkError) and message in str(done.exception), done.output
