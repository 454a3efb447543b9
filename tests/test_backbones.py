"""Backbones against loops in float64, their names against published ones, and every file that weights come in."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import naive_networks as naive
from asmk_engine.errors import AsmkError, DamagedError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.networks.backbone import Backbone
from asmk_engine.networks.backbone_names import MOST_SKIP
from asmk_engine.networks.backbones import BACKBONES, build_backbone, load_backbone, load_tensors, read_tensors
from asmk_engine.networks.resnet import BasicBlock, Bottleneck
from asmk_engine.networks.resnet_v2 import PreActivation
from asmk_engine.networks.squeezenet import Fire
from tiny_networks import SHARED, arrays, randomised

SMALLEST = {"backbone": "squeezenet1_1", "skip": 10}  # one convolution and a pool


def within(name: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors under the name of a block."""
    return {f"{name}.{key}": value for key, value in tensors.items()}


def pixels(height: int, width: int, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(1, channels, height, width)))


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def without_weights(name: str, skip: int) -> Backbone:
    """A backbone that knows its shapes and computes nothing."""
    with torch.device("meta"):
        return build_backbone(name, skip).eval()


# ------------------------------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize(
    ("module", "twin", "inputs", "stride"),
    [
        (lambda: BasicBlock(6, 6, 1), naive.basic_block, 6, 1),
        (lambda: BasicBlock(6, 8, 2), naive.basic_block, 6, 2),
        (lambda: Bottleneck(8, 2, 1), naive.bottleneck, 8, 1),
        (lambda: Bottleneck(6, 4, 1), naive.bottleneck, 6, 1),
        (lambda: Bottleneck(6, 4, 2), naive.bottleneck, 6, 2),
        (lambda: PreActivation(8, 8, 1, project=False), naive.pre_activation, 8, 1),
        (lambda: PreActivation(6, 8, 2, project=True), naive.pre_activation, 6, 2),
    ],
    ids=["basic", "basic, projected", "bottleneck", "wider", "bottleneck, strided", "v2", "v2, projected"],
)
@pytest.mark.parametrize("side", [(1, 1), (5, 6), (4, 7)])
def test_a_residual_block_is_its_twin(
    module: Callable[[], nn.Module], twin: Callable, inputs: int, stride: int, side: tuple[int, int]
) -> None:
    block = randomised(module().double())
    x = pixels(*side, channels=inputs)
    expected = twin(x[0].numpy(), within("block", arrays(block)), "block", stride)
    np.testing.assert_allclose(block(x.clone())[0].detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("learning", [False, True])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("side", [(1, 1), (5, 6)])
def test_a_fire_module_is_its_twin(side: tuple[int, int], count: int, learning: bool) -> None:
    block = randomised(Fire(6, 3, 8).double())
    x = torch.cat([pixels(*side, channels=6, seed=number) for number in range(count)])
    given = x.clone()
    with torch.set_grad_enabled(learning):
        found = block(given)
    assert found.requires_grad == learning and torch.equal(given, x)
    for image in range(count):
        expected = naive.fire(x[image].numpy(), within("block", arrays(block)), "block")
        np.testing.assert_allclose(found[image].detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def twin_of(name: str, x: np.ndarray, weights: naive.Weights, skip: int) -> np.ndarray:
    if name == "squeezenet1_1":
        return naive.squeezenet(x, weights, skip)
    if name == "resnet50v2":
        return naive.resnet50v2(x, weights, skip)
    if name == "vgg16":
        return naive.vgg16(x, weights)
    return naive.resnet(x, weights, name, skip)


@pytest.mark.parametrize(
    ("name", "skip", "height", "width"),
    [
        ("resnet18", 0, 41, 33),
        ("resnet18", 2, 20, 32),
        ("resnet34", 1, 17, 24),
        ("resnet50", 1, 24, 33),
        ("resnet101", 3, 16, 17),
        ("resnet50v2", 1, 24, 33),
        ("resnet50v2", 3, 16, 17),
        ("vgg16", 0, 17, 35),
        ("squeezenet1_1", 0, 49, 38),
        ("squeezenet1_1", 4, 33, 36),
        ("squeezenet1_1", 9, 17, 20),
    ],
)
def test_a_backbone_is_its_twin(name: str, skip: int, height: int, width: int) -> None:
    backbone = randomised(build_backbone(name, skip).double())
    x = pixels(height, width)
    expected = twin_of(name, x[0].numpy(), arrays(backbone), skip)
    with torch.inference_mode():
        described = backbone(x.clone())[0].numpy()
    for found in (described, backbone(x)[0].detach().numpy()):
        assert found.shape == expected.shape and found.shape[0] == backbone.channels and (found > 0).any()
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


# --------------------------------------------------------------------------------------------------- names and sizes


@pytest.mark.parametrize("name", naive.DEPTHS)
@pytest.mark.parametrize("skip", [0, 1, 3])
def test_a_residual_network_has_the_names_and_shapes_of_torchvision(name: str, skip: int) -> None:
    assert shapes(without_weights(name, skip)) == naive.resnet_shapes(name, skip)


def test_squeezenet_has_the_names_and_shapes_of_torchvision() -> None:
    published = naive.squeezenet_shapes()
    assert shapes(without_weights("squeezenet1_1", 0)) == published
    cut = shapes(without_weights("squeezenet1_1", 3))  # places 0 to 9
    assert cut == {key: shape for key, shape in published.items() if int(key.split(".")[1]) < 10}


def test_vgg16_has_the_names_and_shapes_of_torchvision() -> None:
    assert shapes(without_weights("vgg16", 0)) == naive.vgg16_shapes()


@pytest.mark.parametrize(
    ("name", "skip", "tensors"), [("resnet18", 0, 120), ("resnet50", 1, 258)], ids=["HOW R18", "HOW R50-"]
)
def test_how_checkpoints_hold_as_many_tensors_less_the_two_of_the_reduction(name: str, skip: int, tensors: int) -> None:
    assert len(shapes(without_weights(name, skip))) == tensors


@pytest.mark.parametrize(
    ("name", "published", "classifier"),
    [
        ("resnet18", 11_689_512, 512 * 1000 + 1000),
        ("resnet34", 21_797_672, 512 * 1000 + 1000),
        ("resnet50", 25_557_032, 2048 * 1000 + 1000),
        ("resnet101", 44_549_160, 2048 * 1000 + 1000),
        ("resnet152", 60_192_808, 2048 * 1000 + 1000),
        ("vgg16", 138_357_544, (512 * 7 * 7 + 1) * 4096 + 4097 * 4096 + 4097 * 1000),
        ("squeezenet1_1", 1_235_496, 512 * 1000 + 1000),
    ],
)
def test_the_number_of_parameters_is_the_published_one_less_the_classifier(
    name: str, published: int, classifier: int
) -> None:
    count = sum(parameter.numel() for parameter in without_weights(name, 0).parameters())
    assert count == published - classifier


def locations(backbone: Backbone, height: int, width: int) -> tuple[int, ...]:
    return tuple(backbone(torch.empty(1, 3, height, width, device="meta")).shape)


EVERY_CUT = [(name, skip) for name in BACKBONES for skip in range(MOST_SKIP[name] + 1)]


@pytest.mark.parametrize(("name", "skip"), EVERY_CUT)
def test_channels_and_stride_are_those_of_the_map(name: str, skip: int) -> None:
    backbone = without_weights(name, skip)
    _, channels, height, width = locations(backbone, 640, 512)
    _, _, taller, wider = locations(backbone, 640 + 5 * backbone.stride, 512 + 3 * backbone.stride)
    assert channels == backbone.channels
    assert (taller - height, wider - width) == (5, 3)


@pytest.mark.parametrize(("name", "skip"), EVERY_CUT)
def test_the_least_side_is_that_of_the_smallest_image_with_a_location(name: str, skip: int) -> None:
    backbone = without_weights(name, skip)
    assert min(locations(backbone, backbone.least_side, backbone.least_side)) == 1
    if backbone.least_side > 1:
        with pytest.raises(RuntimeError):
            locations(backbone, backbone.least_side - 1, 100)


@pytest.mark.parametrize(
    ("name", "skip", "location"),
    [("resnet18", 0, 8), ("resnet18", 3, 10), ("resnet50", 1, 10), ("resnet50v2", 1, 10), ("vgg16", 0, 7),
     ("squeezenet1_1", 0, 10), ("squeezenet1_1", 5, 10), ("squeezenet1_1", 10, 10)],
)  # fmt: skip
def test_the_receptive_field_of_a_location_is_centred_at_offset_plus_stride(
    name: str, skip: int, location: int
) -> None:
    check_receptive_field(name, skip, location)


@pytest.mark.parametrize(
    ("skip", "location", "further"),
    [(0, 18, 13), (1, 13, 0), (1, 13, 7), (2, 13, 1), (3, 8, 0), (3, 8, 5), (4, 8, 2), (4, 8, 1)],
)
def test_the_receptive_field_depends_on_the_size_where_the_padding_does(
    skip: int, location: int, further: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clamp at 6 would hide what grows, so it is taken away here."""
    relu = torch.nn.functional.relu
    monkeypatch.setattr("asmk_engine.networks.efficientnet_lite.functional.relu6", relu)
    check_receptive_field("efficientnet_lite0", skip, location, further)


def check_receptive_field(name: str, skip: int, location: int, further: int = 0) -> None:
    """With positive weights a location grows when any pixel of its field does: its edges are found by halving.

    further  pixels by which the image is wider than twice the location
    """
    backbone = build_backbone(name, skip).double().eval()
    for parameter in backbone.parameters():
        parameter.data = torch.full_like(parameter, 1 / parameter[0].numel() if parameter.ndim == 4 else 1.0)
    height, width = backbone.least_side, (2 * location + 1) * backbone.stride + further
    plain = torch.ones(1, 3, height, width, dtype=torch.float64)

    def grows(begin: int, end: int) -> bool:
        brighter = plain.clone()
        brighter[..., begin:end] += 1e15  # much, for what is left of it at the edge of a field
        return bool(backbone(brighter)[0, 0, 0, location] > before * (1 + 1e-9))

    with torch.inference_mode():
        before = backbone(plain)[0, 0, 0, location]
        first = _least(lambda pixel: grows(0, pixel + 1), width)
        last = width - 1 - _least(lambda pixel: grows(width - 1 - pixel, width), width)
    assert first > 0 and last < width - 1
    assert (first + last) / 2 == backbone.offset_of(width) + backbone.stride * location


def _least(holds: Callable[[int], bool], most: int) -> int:
    """The smallest number below `most` of which something holds that holds of all greater ones."""
    low, high = 0, most - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def test_what_there_is_not_is_refused_with_what_there_is() -> None:
    with pytest.raises(InputError, match="unknown backbone 'lenet'; choose one of resnet18, resnet34"):
        build_backbone("lenet")
    for skip in (-1, 4):
        with pytest.raises(InputError, match=rf"skip is {skip}; expected 0 to 3 for resnet18"):
            build_backbone("resnet18", skip)


# ------------------------------------------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def small() -> dict[str, torch.Tensor]:
    """The tensors of a backbone of one convolution, as torchvision would publish them."""
    return dict(randomised(build_backbone(SMALLEST["backbone"], SMALLEST["skip"])).state_dict())


def save(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **{key: value.numpy() for key, value in tensors.items()})
    elif path.suffix == ".safetensors":
        save_safetensors(path, tensors)
    else:
        torch.save(tensors, path)
    return path


def save_safetensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """The published layout: the length of a JSON header, the header, the arrays."""
    import json

    header, data = {}, b""
    for key, value in tensors.items():
        raw = value.float().contiguous().numpy().tobytes()
        header[key] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("name", ["a.pth", "a.npz", "a.safetensors", "a.bin"])
def test_weights_are_read_from_every_kind_of_file(name: str, tmp_path: Path, small: dict) -> None:
    found = load_backbone(save(tmp_path / name, small), **{"name": SMALLEST["backbone"], "skip": SMALLEST["skip"]})
    assert not found.training
    for key, value in found.state_dict().items():
        torch.testing.assert_close(value, small[key], rtol=0, atol=0)


def test_a_state_dict_may_stand_beside_other_things_and_be_of_halves(tmp_path: Path, small: dict) -> None:
    halves = {key: value.half() for key, value in small.items()}
    torch.save({"state_dict": halves, "epoch": 3}, tmp_path / "a.pth")
    found = read_tensors(tmp_path / "a.pth")
    assert found.keys() == small.keys() and all(value.dtype == torch.float32 for value in found.values())


def test_the_classifier_and_the_stages_cut_off_may_stand_in_the_file(tmp_path: Path) -> None:
    whole = randomised(build_backbone("resnet18"))
    state = whole.state_dict() | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "a.pth")
    cut = load_backbone(tmp_path / "a.pth", "resnet18", 3)
    torch.testing.assert_close(cut.state_dict()["layer1.1.bn2.weight"], state["layer1.1.bn2.weight"])


def test_every_tensor_that_does_not_fit_is_named(tmp_path: Path, small: dict) -> None:
    """Two of each fault: none may hide behind another."""
    backbone = build_backbone("squeezenet1_1", 9)
    given = dict(randomised(build_backbone("squeezenet1_1", 9)).state_dict())
    del given["features.0.bias"], given["features.3.squeeze.bias"]
    given |= {"extra.one": torch.zeros(1), "extra.two": torch.zeros(2)}
    given["features.3.expand1x1.bias"] = torch.zeros(5)
    given["features.3.expand3x3.weight"] = torch.zeros(64, 16, 1, 1)
    expected = [
        "w.pth: 6 tensors do not fit", "missing features.0.bias", "missing features.3.squeeze.bias",
        "surplus extra.one", "surplus extra.two", "features.3.expand1x1.bias is [5], expected [64]",
        "features.3.expand3x3.weight is [64, 16, 1, 1], expected [64, 16, 3, 3]", "give weights of this",
    ]  # fmt: skip
    for call in (
        lambda: load_tensors(backbone, given, "w.pth", "give weights of this"),
        lambda: _load(tmp_path, given),
    ):
        with pytest.raises(MismatchError) as error:
            call()
        assert "\n" not in str(error.value)
        missing = [part for part in expected[:-1] if part not in str(error.value)]
        assert not missing, str(error.value)


def _load(folder: Path, given: dict[str, torch.Tensor]) -> object:
    return load_backbone(save(folder / "w.pth", given), "squeezenet1_1", 9)


def test_counters_of_batches_are_not_asked_for() -> None:
    backbone = build_backbone("resnet18", 3)
    state = {key: value for key, value in backbone.state_dict().items() if "num_batches" not in key}
    load_tensors(backbone, state, "here")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_refused(small: dict, value: float) -> None:
    backbone = build_backbone("squeezenet1_1", 10)
    bias = small["features.0.bias"].clone()
    bias[7] = value
    with pytest.raises(InputError, match=r"here: features.0.bias contains NaN or infinity"):
        load_tensors(backbone, small | {"features.0.bias": bias}, "here")


class Bomb:
    """Runs code where it is unpickled without care."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.place,))


def test_code_in_a_file_of_weights_is_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": Bomb(tmp_path / "ran")}}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    np.savez(tmp_path / "c.npz", a=np.array([Bomb(tmp_path / "ran")], object))
    for name in ("a.pth", "b.pth", "c.npz"):
        with pytest.raises((FormatError, DamagedError)) as error:
            read_tensors(tmp_path / name)
        assert "\n" not in str(error.value) and str(error.value).startswith(f"{tmp_path / name}: ")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{}, {"a": 1}, [1, 2], {"state_dict": {"a": "text"}}, torch.zeros(3)])
def test_what_is_no_state_dict_is_told(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(FormatError, match="contains no state dict"):
        read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["a.pth", "a.npz", "a.safetensors"])
def test_what_is_no_file_of_weights_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFoundError, match="no such weight file"):
        read_tensors(tmp_path / name)
    for content in (b"", b"PK\x03\x04", b"plain words, no weights", bytes(300)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises((FormatError, DamagedError)) as error:
            read_tensors(tmp_path / name)
        assert "\n" not in str(error.value) and str(tmp_path / name) in str(error.value)


def test_an_npz_that_holds_something_else_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "words.npz", names=np.array(["a", "b"]))
    np.savez(tmp_path / "complex.npz", names=np.array([1 + 2j]))
    np.save(tmp_path / "plain.npy", np.zeros(3))
    (tmp_path / "plain.npy").rename(tmp_path / "array.npz")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as file:
        file.writestr("a.txt", "words")
    for path in sorted(tmp_path.glob("*.npz")):
        with pytest.raises((DamagedError, FormatError)) as error:
            read_tensors(path)
        assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "compressed.npz"])
def test_altered_files_are_refused_or_read_and_nothing_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    tensors = {"features.0.bias": torch.arange(64.0), "features.0.weight": torch.zeros(4, 3)}
    if name.startswith("compressed"):
        np.savez_compressed(path, **{key: value.numpy() for key, value in tensors.items()})
    else:
        save(path, tensors)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        altered = bytearray(content)
        for place in rng.integers(0, len(altered), rng.integers(1, 4)):
            altered[place] = rng.integers(256)
        path.write_bytes(bytes(altered[: rng.integers(1, len(altered)) if rng.random() < 0.2 else None]))
        try:
            read_tensors(path)
        except AsmkError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 50


# ---------------------------------------------------------------------------------------------------- real weights


def published(name: str) -> Path:
    path = SHARED / "weights" / name
    if not path.is_file():
        pytest.skip(f"no {name} here")
    return path


def photographs(count: int, side: int) -> list[torch.Tensor]:
    """Photographs as the networks take them."""
    found = sorted((SHARED / "photos" / "images").rglob("*.jpg"))[::7][:count]
    if len(found) < count:
        pytest.skip("no photographs here")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = []
    for path in found:
        with Image.open(path) as image:
            array = np.asarray(image.convert("RGB").resize((side, side)), np.float64) / 255
        pixels.append(torch.from_numpy((array - mean) / std).permute(2, 0, 1)[None].float())
    return pixels


@torch.inference_mode()
def test_squeezenet_of_imagenet_loads_whole_and_tells_photographs_apart() -> None:
    path = published("squeezenet1.1.npz")
    backbone = load_backbone(path, "squeezenet1_1")
    with np.load(path) as file:
        for ours, theirs in [("features.0.weight", "conv0_weight"), ("features.12.expand3x3.bias", "conv24_bias"),
                             ("features.6.expand1x1.weight", "conv8_weight")]:  # fmt: skip
            np.testing.assert_array_equal(backbone.state_dict()[ours].numpy(), file[f"squeezenet0_{theirs}"])
    maps = [backbone(x) for x in photographs(3, 160)]
    assert all(found.shape == (1, 512, 9, 9) and (found >= 0).all() for found in maps)
    empty = [float((found == 0).float().mean()) for found in maps]
    assert all(0.5 < share < 0.98 for share in empty)  # most channels are silent in most locations


@torch.inference_mode()
def test_resnet_v2_of_imagenet_loads_whole_and_keeps_its_statistics() -> None:
    """Means and deviations of stage 3 over photographs are about those that batch normalisation recorded."""
    backbone = load_backbone(published("resnet50v2_stage1-3.npz"), "resnet50v2", 1)
    seen: list[torch.Tensor] = []
    backbone.norm.register_forward_pre_hook(lambda module, given: seen.append(given[0][0].flatten(1)))
    for x in photographs(6, 224):
        assert backbone(x).shape == (1, 1024, 14, 14)
    values = torch.cat(seen, 1)
    means = np.corrcoef(values.mean(1), backbone.norm.running_mean)[0, 1]
    deviations = np.corrcoef(values.std(1), backbone.norm.running_var.sqrt())[0, 1]
    assert means > 0.93 and deviations > 0.85


def test_the_published_files_do_not_fit_another_backbone() -> None:
    path = published("squeezenet1.1.npz")
    with pytest.raises(MismatchError, match=r"missing bn1\.bias.*give ImageNet weights of resnet18"):
        load_backbone(path, "resnet18")
    with pytest.raises(MismatchError, match=r"missing layer4"):
        load_backbone(published("resnet50v2_stage1-3.npz"), "resnet50v2", 0)
