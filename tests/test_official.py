"""Checkpoints of the official HOW code, made here with exactly its keys and shapes, in both of its formats."""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import naive_how
from asmk_engine.cli.weights import weights
from asmk_engine.errors import AsmkError, FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.networks.checkpoints import open_checkpoint
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.networks.official import read_official
from asmk_engine.storage.user_files import file_sha256

MEAN_STD = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]
SCALES = [2.0, 1.414, 1.0, 0.707, 0.5, 0.353, 0.25]
KINDS = {"how_r18": ("resnet18", 0, 122), "how_r50-": ("resnet50", 1, 260)}

State = dict[str, torch.Tensor]


def state_dict(backbone: str, skip: int, seed: int = 0) -> State:
    """Random tensors of the official names and shapes; running variances are positive."""
    generator = torch.Generator().manual_seed(seed)
    state: State = OrderedDict()
    for name, shape in naive_how.official_shapes(backbone, skip).items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            state[name] = 0.5 + torch.rand(shape, generator=generator)
        else:
            state[name] = 0.05 * torch.randn(shape, generator=generator)
    return state


def new_format(backbone: str, skip: int, state: State | None = None) -> dict[str, Any]:
    """What the training of HOW writes, as its train.py lists it."""
    runtime = {"mean_std": MEAN_STD, "image_size": 1024, "features_num": 1000, "scales": SCALES, "training_scales": [1]}
    scores: dict[str, Any] = defaultdict(list)
    scores["val_eccv20"] = [np.float64(0.85), {"epoch": 5}]
    return {
        "epoch": 15,
        "meta": {"architecture": backbone, "backbone_dim": 512, "outputdim": 128, "corercf_size": 32},
        "state_dict": state_dict(backbone, skip) if state is None else state,
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 5e-6}]},
        "best_score": np.float64(0.85),
        "scores": scores,
        "net_params": {
            "architecture": backbone,
            "pretrained": True,
            "skip_layer": skip,
            "dim_reduction": {"dim": 128},
            "smoothing": {"kernel_size": 3},
            "runtime": runtime,
        },
        "_version": "how/2020",
    }


def old_format(backbone: str, skip: int) -> dict[str, Any]:
    """The format before: everything in `meta`, and the reduction called `whiten`."""
    state = OrderedDict((key.replace("dim_reduction", "whiten"), v) for key, v in state_dict(backbone, skip).items())
    meta = {"architecture": backbone, "skip_layer": skip, "dim": 128, "feat_pool_k": 3}
    return {"epoch": 15, "meta": {**meta, "mean": MEAN_STD[0], "std": MEAN_STD[1]}, "state_dict": state}


FORMATS = {"how/2020": new_format, "how, before 2020": old_format}


def save(path: Path, content: Any, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_the_names_and_shapes_are_as_many_as_the_official_files_have(kind: str) -> None:
    backbone, skip, tensors = KINDS[kind]
    assert len(naive_how.official_shapes(backbone, skip)) == tensors


def naive_descriptors(state: State, locations: torch.Tensor) -> np.ndarray:
    """The reduction of a map [C, h, w] after 3 × 3 smoothing, location by location: W mean(locations) + b."""
    weight = state["dim_reduction.weight"][:, :, 0, 0].double().numpy()
    bias = state["dim_reduction.bias"].double().numpy()
    values = locations.double().numpy()
    _, height, width = values.shape
    found = np.empty((len(bias), height, width))
    for y in range(height):
        for x in range(width):
            around = values[:, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            found[:, y, x] = weight @ around.mean(axis=(1, 2)) + bias
    return found


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_takes_its_place(tmp_path: Path, kind: str, version: str) -> None:
    backbone, skip, _ = KINDS[kind]
    path = save(tmp_path / f"{kind}.pth", FORMATS[version](backbone, skip), legacy=version != "how/2020")
    network, origin = read_official(path)
    assert network.options == LocalOptions(backbone, skip) and not network.training
    assert origin == {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "format": version,
        "runtime": {"image_size": 1024, "features_num": 1000, "scales": SCALES, "training_scales": [1]},
    }
    state, ours = state_dict(backbone, skip), network.state_dict()
    assert torch.equal(ours["backbone.conv1.weight"], state["features.0.weight"])
    assert torch.equal(ours["backbone.bn1.running_var"], state["features.1.running_var"])
    last = 7 - skip
    assert torch.equal(ours[f"backbone.layer{last - 3}.1.conv2.weight"], state[f"features.{last}.1.conv2.weight"])
    assert torch.equal(ours["backbone.layer2.0.downsample.1.bias"], state["features.5.0.downsample.1.bias"])
    assert torch.equal(ours["reduction.weight"], state["dim_reduction.weight"])
    counted = [key for key in ours if not key.endswith("num_batches_tracked")]
    assert len(counted) == len([key for key in state if not key.endswith("num_batches_tracked")])


def naive_backbone(state: State, pixels: torch.Tensor) -> torch.Tensor:
    """ResNet-18 layer by layer, with the official names; the arithmetic of a convolution is left to torch."""
    functional = torch.nn.functional

    def normal(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance, weight, bias = (
            state[f"{name}.{part}"].double()[None, :, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def convolved(x: torch.Tensor, name: str, stride: int, padding: int) -> torch.Tensor:
        return functional.conv2d(x, state[f"{name}.weight"].double(), stride=stride, padding=padding)

    x = normal(convolved(pixels.double(), "features.0", 2, 3), "features.1").clamp(min=0)
    x = functional.max_pool2d(x, 3, 2, 1)
    for stage in range(4, 8):
        for block in range(2):
            name, stride = f"features.{stage}.{block}", 2 if stage > 4 and block == 0 else 1
            inner = normal(convolved(x, f"{name}.conv1", stride, 1), f"{name}.bn1").clamp(min=0)
            inner = normal(convolved(inner, f"{name}.conv2", 1, 1), f"{name}.bn2")
            if stride == 2:
                x = normal(convolved(x, f"{name}.downsample.0", 2, 0), f"{name}.downsample.1")
            x = (x + inner).clamp(min=0)
    return x[0]


def test_a_checkpoint_describes_as_its_layers_say(tmp_path: Path) -> None:
    state = state_dict("resnet18", 0)
    network, _ = read_official(save(tmp_path / "how_r18.pth", new_format("resnet18", 0, state)))
    pixels = torch.randn(1, 3, 97, 130, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        descriptors, scores = network(pixels)
        locations = naive_backbone(state, pixels)
    expected = naive_descriptors(state, locations)
    assert descriptors.shape[1:] == expected.shape == (128, 4, 5)
    np.testing.assert_allclose(descriptors[0].numpy(), expected, rtol=2e-3, atol=1e-5 * np.abs(expected).max())
    norms = (locations.square().sum(0) + 1e-10).sqrt()
    np.testing.assert_allclose(scores[0].numpy(), norms.numpy(), rtol=1e-4)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_network_without_smoothing_and_reduction(tmp_path: Path, legacy: bool) -> None:
    content = new_format("resnet18", 0)
    content["net_params"] |= {"dim_reduction": None, "smoothing": None}
    content["state_dict"] = {key: v for key, v in content["state_dict"].items() if not key.startswith("dim_")}
    network, _ = read_official(save(tmp_path / "f.pth", content, legacy))
    assert network.options == LocalOptions("resnet18", smoothing=1, reduction="none")


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch evil",)


def without(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in keys}


def parts(**values: Any) -> dict[str, Any]:
    content = new_format("resnet18", 0, {"features.0.weight": torch.zeros(64, 3, 7, 7)})
    content["net_params"] |= values
    return content


RUNTIME: dict[str, Any] = parts()["net_params"]["runtime"]
BROKEN: list[tuple[Any, type[AsmkError], str]] = [
    ({**parts(), "scores": Evil()}, FormatError, "not weights that can be read safely"),
    ([1, 2], FormatError, "has no state_dict"),
    ({"conv1.weight": torch.zeros(1)}, FormatError, "has no state_dict"),
    ({**parts(), "_version": "fire/2021"}, FormatError, "'fire/2021'"),
    (without(parts(), "net_params"), FormatError, "no net_params"),
    (parts(runtime=None), FormatError, "no net_params with a runtime"),
    (without(old_format("resnet18", 0), "meta"), FormatError, "its meta lacks architecture"),
    ({"state_dict": {}, "meta": {"architecture": "resnet18", "dim": 128}}, FormatError, "meta lacks skip_layer, feat"),
    (parts(architecture="vgg16"), InputError, "its backbone is 'vgg16'"),
    (parts(architecture=["resnet18"]), InputError, "its backbone is"),
    (parts(skip_layer="two"), FormatError, "cannot be read"),
    (parts(skip_layer=9), InputError, "skip is 9"),
    (parts(dim_reduction={"dim": 1 << 40}), InputError, "dim is"),
    (parts(smoothing={"kernel_size": 4}), InputError, "smoothing is 4"),
    (parts(smoothing={}, dim_reduction=[1]), FormatError, "cannot be read"),
    (parts(runtime={**RUNTIME, "mean_std": [[1, 2], [3, 4, 5]]}), FormatError, "cannot be read"),
    (parts(runtime={**RUNTIME, "scales": "all"}), FormatError, "runtime has no scales"),
    (parts(), MismatchError, "missing backbone.layer1.0.bn1.bias"),
    ({**parts(), "state_dict": {"features.0.weight": "text"}}, FormatError, "contains no state dict"),
]


@pytest.mark.parametrize(("content", "kind", "said"), BROKEN, ids=range(len(BROKEN)))
def test_another_or_broken_checkpoint_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, kind: type[AsmkError], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "f.pth", content)
    with pytest.raises(kind) as error:
        read_official(path)
    text = str(error.value)
    assert said in text and str(path) in text and "\n" not in text, text
    assert not (tmp_path / "evil").exists()


def test_tensors_too_many_or_of_other_shapes_are_named(tmp_path: Path) -> None:
    state = state_dict("resnet18", 0)
    state["features.9.weight"] = torch.zeros(1)
    state["whiten.bias"] = state.pop("dim_reduction.bias")[:64]
    with pytest.raises(MismatchError) as error:
        read_official(save(tmp_path / "f.pth", new_format("resnet18", 0, state)))
    assert "surplus features.9.weight" in str(error.value) and "reduction.bias is [64]" in str(error.value)


@pytest.mark.parametrize("data", [b"", b"not a checkpoint", b"PK\x03\x04 cut", b"\x80\x02]."])
def test_what_is_no_file_of_torch(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "f.pth"
    with pytest.raises(NotFoundError):
        read_official(path)
    path.write_bytes(data)
    with pytest.raises(FormatError):
        read_official(path)


def test_an_altered_checkpoint_is_an_error_that_a_caller_can_act_upon(tmp_path: Path) -> None:
    content = parts()
    content["state_dict"] = {"features.1.weight": torch.zeros(64)}
    whole = save(tmp_path / "whole.pth", content, legacy=True).read_bytes()
    rng, path = np.random.default_rng(0), tmp_path / "f.pth"
    for place in rng.choice(len(whole) - 300, 120, replace=False).tolist():
        path.write_bytes(whole[:place] + bytes([int(rng.integers(256))]) + whole[place + int(rng.integers(1, 4)) :])
        with pytest.raises(AsmkError) as error:
            read_official(path)
        assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_stand_ins_do_not_outlive_the_reading(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    read_official(save(tmp_path / "f.pth", new_format("resnet18", 0)))
    assert set(torch.serialization.get_safe_globals()) == before  # torch lists a set, in any order


def convert(*arguments: object) -> Any:
    return CliRunner().invoke(weights, ["convert", *map(str, arguments)])


def test_a_converted_checkpoint_is_the_same_network(tmp_path: Path) -> None:
    path, output = save(tmp_path / "how_r18.pth", old_format("resnet18", 0)), tmp_path / "made" / "how_r18.safetensors"
    done = convert(path, "-o", output)
    assert done.exit_code == 0, done.exception
    assert "resnet18, 128 dimensions, how, before 2020" in done.output and file_sha256(output) in done.output
    network, origin = open_checkpoint(output)
    expected, official = read_official(path)
    assert network.options == expected.options and origin == json.loads(json.dumps(official))
    ours, theirs = network.state_dict(), expected.state_dict()
    same = [torch.equal(ours[key], theirs[key]) for key in theirs if not key.endswith("num_batches_tracked")]
    assert all(same) and len(same) == 102


def test_a_network_of_another_ending_is_not_written(tmp_path: Path) -> None:
    error = convert(tmp_path / "f.pth", "-o", tmp_path / "out.pth").exception
    assert isinstance(error, InputError) and ".safetensors" in str(error)
