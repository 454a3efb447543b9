"""Checkpoints of the GeM family, synthesised with the published keys and shapes, and what they are converted to."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import naive_global
from asmk_engine.cli.weights import weights
from asmk_engine.errors import FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.extractors import load_extractor
from asmk_engine.networks.global_checkpoints import open_global_checkpoint
from asmk_engine.networks.global_network import GlobalNetwork, GlobalOptions
from asmk_engine.networks.official_global import projections, read_content, read_official_global
from tiny_networks import randomised

# The children of torchvision's ResNet, by their numbers in the checkpoints.
CHILDREN = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def published_name(name: str, regional: bool = False) -> str:
    """What the code of the GeM family calls a tensor."""
    others = {"exponent": "pool.rpool.p" if regional else "pool.p"}
    layers = {"whitening": "whiten", "regional_whitening": "pool.whiten", "local_whitening": "lwhiten"}
    first, _, rest = name.partition(".")
    if first in layers:
        return f"{layers[first]}.{rest}"
    if first != "backbone" or rest.startswith("features."):
        return others.get(name, rest)
    child, _, last = rest.partition(".")
    return f"features.{CHILDREN[child]}.{last}"


def published(network: GlobalNetwork, **changes: Any) -> dict[str, Any]:
    """A checkpoint of the network, as the code writes it."""
    options = network.options
    regional = options.regional != "none"
    meta = {
        "architecture": options.backbone,
        "local_whitening": options.local_whitening,
        "pooling": "gemmp" if options.exponents == "channels" else options.pooling,
        "regional": regional,
        "whitening": bool(options.whitening),
        "mean": MEAN,
        "std": STD,
        "outputdim": network.dim,
    }
    state = {published_name(key, regional): value for key, value in network.state_dict().items()}
    return {"meta": {**meta, **changes}, "state_dict": state}


def small(**options: Any) -> GlobalNetwork:
    """The smallest architecture that the code knows, with random weights."""
    network = GlobalNetwork(GlobalOptions("squeezenet1_1", **options))
    randomised(network)
    if network.exponent is not None:
        network.exponent.data.fill_(2.75)
    return network.requires_grad_(False)


def saved(path: Path, content: dict[str, Any], zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def assert_same(one: GlobalNetwork, other: GlobalNetwork) -> None:
    expected, found = one.state_dict(), other.state_dict()
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "zipped"),
    [
        ({}, True),
        ({"whitening": 512}, False),
        ({"exponents": "channels"}, True),
        ({"pooling": "mac"}, True),
        ({"pooling": "rmac", "whitening": 512}, True),
        ({"regional": "whitened", "whitening": 512, "local_whitening": True}, True),
        ({"pooling": "spoc", "regional": "sum"}, True),
    ],
)
def test_networks_of_every_kind_are_read(options: dict[str, Any], zipped: bool, tmp_path: Path) -> None:
    network = small(**options)
    found, origin = read_official_global(saved(tmp_path / "a.pth", published(network), zipped))
    assert found.options == network.options and origin["file"] == "a.pth" and not found.training
    assert_same(network, found)


def test_older_files_without_newer_keys_are_read(tmp_path: Path) -> None:
    content = published(small())
    del content["meta"]["regional"], content["meta"]["local_whitening"]
    assert read_official_global(saved(tmp_path / "a.pth", content))[0].options.regional == "none"


@pytest.mark.parametrize(
    ("architecture", "tensors", "channels"),
    [("vgg16", 27, 512), ("resnet50", 268, 2048), ("resnet101", 523, 2048), ("resnet152", 778, 2048)],
)
def test_the_published_architectures_have_the_published_tensors(architecture: str, tensors: int, channels: int) -> None:
    with torch.device("meta"):
        network = GlobalNetwork(GlobalOptions(architecture, whitening=0 if architecture == "vgg16" else 2048))
    names = [published_name(key) for key in network.state_dict() if not key.endswith("num_batches_tracked")]
    # Convolutions and five tensors of each normalisation but its counter; p; the weight and bias of the whitening.
    assert len(set(names)) == tensors and "pool.p" in names and network.dim == channels
    assert ("features.28.bias" if architecture == "vgg16" else "features.7.2.conv3.weight") in names
    assert ("whiten.weight" in names) == (architecture != "vgg16")


@pytest.mark.parametrize("backbone", ["resnet18", "vgg16"])
def test_other_backbones_are_read(backbone: str, tmp_path: Path) -> None:
    network = GlobalNetwork(GlobalOptions(backbone)).requires_grad_(False)
    found, _ = read_official_global(saved(tmp_path / "a.pth", published(network)))
    assert_same(network, found)


# Whitenings learned apart


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", ["<f8", "<f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_whitening_learned_apart_is_taken_along(dtype: str, order: str, zipped: bool, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    mean, matrix = random.normal(size=(512, 1)) / 30, random.normal(size=(7, 512))
    stored = {"m": mean.astype(dtype), "P": np.asarray(matrix.astype(dtype), order=order)}  # type: ignore[call-overload]
    content = published(small(), Lw={"retrieval-SfM-120k": {"ss": {}, "ms": stored}})
    content["scores"] = collections.defaultdict(list, {"ap": [np.float64(0.5)]})
    path = saved(tmp_path / "a.pth", content, zipped)
    assert set(projections(read_content(path))) == {"retrieval-SfM-120k/ss", "retrieval-SfM-120k/ms"}
    plain, _ = read_official_global(path)
    found, origin = read_official_global(path, "retrieval-SfM-120k/ms")
    assert plain.options.projection == 0 and found.dim == 7 and origin["projection"] == "retrieval-SfM-120k/ms"
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        vector = plain.descriptor(pixels)[0].double().numpy()
        expected = naive_global.unit(matrix @ (vector - mean[:, 0]))
        np.testing.assert_allclose(found.descriptor(pixels)[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("learned", "error", "message"),
    [
        ({}, FormatError, "cannot be read"),
        ({"m": np.zeros(512), "P": np.array([{}])}, FormatError, "cannot be read"),
        ({"m": np.zeros(512), "P": np.zeros((3, 512), np.int64)}, FormatError, "cannot be read"),
        ({"m": "text", "P": 3}, FormatError, "found str, expected an array"),
        ({"m": np.zeros(511), "P": np.zeros((3, 512))}, MismatchError, "descriptors have 512 dimensions"),
        ({"m": np.full(512, np.nan), "P": np.zeros((3, 512))}, InputError, "NaN"),
    ],
)
def test_broken_whitenings_are_refused(learned: Any, error: type, message: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", published(small(), Lw={"set": {"ms": learned}}))
    with pytest.raises(error, match=message) as caught:
        read_official_global(path, "set/ms")
    assert "\n" not in str(caught.value) and "a.pth" in str(caught.value)


def test_an_unknown_whitening_is_told_from_those_there_are(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", published(small(), Lw={"set": {"ms": {}}}))
    with pytest.raises(InputError, match="has no separately learned whitening 'other'; it has: set/ms"):
        read_official_global(path, "other")
    with pytest.raises(InputError, match="it has: none"):
        read_official_global(saved(tmp_path / "b.pth", published(small(), Lw=3)), "other")


# Files that are something else


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"architecture": "alexnet"}, InputError, "its backbone is 'alexnet'; known are resnet18"),
        ({"architecture": "resnet50v2"}, InputError, "its backbone is 'resnet50v2'"),
        ({"pooling": "attention"}, InputError, "its pooling is 'attention'; known are gem"),
        ({"mean": [1, 2]}, FormatError, "cannot be read"),
        ({"std": None}, FormatError, "cannot be read"),
        ({"architecture": "resnet34"}, MismatchError, "missing backbone.bn1.bias"),
        ({"local_whitening": True}, MismatchError, "missing local_whitening.bias"),
        ({"pooling": "mac"}, MismatchError, "surplus exponent"),
    ],
)
def test_other_networks_are_refused(changes: dict[str, Any], error: type, message: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", published(small(), **changes))
    with pytest.raises(error, match=message) as caught:
        read_official_global(path)
    assert "\n" not in str(caught.value) and "a.pth" in str(caught.value)


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    content = published(small())
    content["state_dict"]["features.0.weight"] = torch.zeros(64, 3, 7, 7)
    content["state_dict"]["surplus"] = torch.zeros(1)
    del content["state_dict"]["pool.p"]
    with pytest.raises(MismatchError, match=r"3 tensors .*backbone.features.0.we.*missing exponent; surplus surplus"):
        read_official_global(saved(tmp_path / "a.pth", content))
    content = published(small())
    content["state_dict"]["pool.p"] = torch.tensor([-3.0])
    with pytest.raises(InputError, match="a GeM exponent is not greater than 0"):
        read_official_global(saved(tmp_path / "a.pth", content))


def test_files_of_another_kind(tmp_path: Path) -> None:
    for content in ({"state_dict": {}}, [1], {"meta": {"pooling": "gem"}}, {"meta": {}, "state_dict": {}}):
        with pytest.raises(FormatError, match="not a checkpoint of the GeM family"):
            read_official_global(saved(tmp_path / "a.pth", content))  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="no such weight file"):
        read_official_global(tmp_path / "none.pth")


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "made").mkdir, ())

    with pytest.raises(FormatError, match="not weights that can be read safely"):
        read_official_global(saved(tmp_path / "a.pth", published(small(), Lw=Hostile())))
    assert not (tmp_path / "made").exists()


# In use


def test_a_checkpoint_is_used_as_it_is_or_converted(tmp_path: Path) -> None:
    path, image = saved(tmp_path / "a.pth", published(small(whitening=512))), np.full((64, 80, 3), 99, np.uint8)
    extractor = load_extractor("gem", weights=str(path))
    assert extractor.recipe.options["scales"] == [1.0, 2**0.5, 0.5**0.5]
    output = tmp_path / "b.safetensors"
    done = CliRunner().invoke(weights, ["convert", str(path), "-o", str(output)], catch_exceptions=False)
    assert done.exit_code == 0 and "squeezenet1_1, 512 dimensions, cnnimageretrieval-pytorch" in done.stderr
    converted = load_extractor("gem-squeezenet", weights=str(output))
    np.testing.assert_array_equal(extractor.extract(image).descriptors, converted.extract(image).descriptors)
    assert open_global_checkpoint(output)[1]["format"] == "cnnimageretrieval-pytorch"
    with pytest.raises(InputError, match="has no separately learned whitening 'x'"):
        read_official_global(path, "x")
    refused = CliRunner().invoke(weights, ["convert", str(path), "-o", str(output), "--projection", "x"])
    assert isinstance(refused.exception, InputError)
