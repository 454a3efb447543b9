"""Checkpoints of SOLAR, DIR, DOLG, CVNet and Token, synthesised with the published names and shapes, and their use."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import official_files as official
from asmk_engine.cli.weights import weights
from asmk_engine.errors import FormatError, InputError, MismatchError, NotFoundError
from asmk_engine.extractors import load_extractor
from asmk_engine.extractors.presets import PRESETS
from asmk_engine.networks.composed.checkpoints import HeadCompletion, open_composed_checkpoint, open_composed_network
from asmk_engine.networks.composed.network import ComposedNetwork
from asmk_engine.networks.composed.official import layout_of, read_official_composed
from asmk_engine.networks.composed.table import NETWORKS
from asmk_engine.networks.registry import WEIGHTS
from asmk_engine.recipes import COMPOSED_EXTRACTORS
from tiny_networks import picture

FILES: list[tuple[str, str, dict[str, Any], str, int]] = [
    ("SOLAR", "solar", {}, "resnet101", 2048),
    ("dirtorch", "dirtorch", {}, "resnet101", 2048),
    ("DOLG", "dolg", {}, "resnet101", 512),
    ("DOLG", "dolg", {"backbone": "resnet50", "aspp": True, "learned": False}, "resnet50", 512),
    ("CVNet", "cvnet", {}, "resnet101", 2048),
    ("CVNet", "cvnet", {"backbone": "resnet50"}, "resnet50", 2048),
    ("Token", "token", {}, "resnet101", 1024),
]
NETWORK = {"SOLAR": "solar", "dirtorch": "gem-ap", "DOLG": "dolg", "CVNet": "cvnet", "Token": "token"}
SAME = {
    "SOLAR": {
        "features.conv1.0.weight": "backbone.conv1.weight",
        "features.conv1.1.running_var": "backbone.bn1.running_var",
        "features.conv2_x.2.0.downsample.0.weight": "backbone.layer1.0.downsample.0.weight",
        "features.conv4_x.22.conv3.weight": "backbone.layer3.22.conv3.weight",
        "features.soa4.f.0.weight": "head.attention4.query.0.weight",
        "features.soa5.g.1.bias": "head.attention5.key.1.bias",
        "features.soa5.h.bias": "head.attention5.value.bias",
        "features.soa4.v.weight": "head.attention4.output.weight",
        "pool.p": "head.pool.exponent",
        "whiten.weight": "head.whitening.weight",
    },
    "dirtorch": {
        "conv1.weight": "backbone.conv1.weight",
        "bn1.running_mean": "backbone.bn1.running_mean",
        "layer3.22.bn3.weight": "backbone.layer3.22.bn3.weight",
        "adpool.p": "head.pool.exponent",
        "fc.bias": "head.whitening.bias",
    },
    "DOLG": {
        "globalmodel.stem.bn.weight": "backbone.bn1.weight",
        "globalmodel.s1.b1.proj.weight": "backbone.layer1.0.downsample.0.weight",
        "globalmodel.s2.b1.bn.running_mean": "backbone.layer2.0.downsample.1.running_mean",
        "globalmodel.s3.b6.f.a.weight": "backbone.layer3.5.conv1.weight",
        "globalmodel.s4.b3.f.b_bn.bias": "backbone.layer4.2.bn2.bias",
        "globalmodel.s4.b3.f.c.weight": "backbone.layer4.2.conv3.weight",
        "localmodel.conv1.weight": "head.local.convolution.weight",
        "localmodel.bn.running_var": "head.local.norm.running_var",
        "localmodel.conv2.bias": "head.local.attention.bias",
        "localmodel.aspp.aspp.3.weight": "head.local.pyramid.branches.3.weight",
        "localmodel.aspp.im_pool.1.bias": "head.local.pyramid.average.0.bias",
        "localmodel.aspp.conv_after.0.weight": "head.local.pyramid.joint.0.weight",
        "pool_g.p": "head.pool.exponent",
        "fc_t.weight": "head.reduction.weight",
        "fc.weight": "head.fusion.weight",
    },
    "CVNet": {
        "encoder_q.stem.conv.weight": "backbone.conv1.weight",
        "encoder_q.s4.b1.f.c_bn.weight": "backbone.layer4.0.bn3.weight",
        "encoder_q.head.pool.p": "head.pool.exponent",
        "encoder_q.head.fc.weight": "head.whitening.weight",
    },
    "Token": {
        "backbone.block1.1.bias": "backbone.bn1.bias",
        "backbone.block5.2.conv1.weight": "backbone.layer4.2.conv1.weight",
        "tr.query": "head.queries",
        "tr.token_norm.0.weight": "head.tokens.0.weight",
        "tr.token_norm.1.bias": "head.tokens.1.bias",
        "tr.encoder.0.attn.proj.weight": "head.encoders.0.attention.output.weight",
        "tr.encoder.0.bn.running_mean": "head.encoders.0.norm.running_mean",
        "tr.encoder.0.mlp.bias": "head.encoders.0.linear.bias",
        "tr.decoder.1.cross_attn.q.weight": "head.decoders.1.cross_attention.query.weight",
        "tr.decoder.0.self_attn.v.bias": "head.decoders.0.self_attention.value.bias",
        "tr.decoder.1.bn1.weight": "head.decoders.1.cross_norm.weight",
        "tr.decoder.1.bn2.weight": "head.decoders.1.self_norm.weight",
        "tr.decoder.0.mlp.fc1.weight": "head.decoders.0.perceptron.0.weight",
        "tr.decoder.0.mlp.fc2.bias": "head.decoders.0.perceptron.3.bias",
        "tr.conv.1.weight": "head.reduction.1.weight",
        "tr.proj.1.running_var": "head.fusion.1.running_var",
    },
}


def saved(path: Path, content: dict[str, Any]) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(("code", "make", "options", "backbone", "dim"), FILES)
def test_every_tensor_finds_its_place(
    code: str, make: str, options: dict[str, Any], backbone: str, dim: int, tmp_path: Path
) -> None:
    shapes = getattr(official, make)(**options)
    path = saved(tmp_path / "file.pth", official.content(code, shapes))
    found, origin = read_official_composed(path)
    assert (found.options.network, found.options.backbone, found.dim) == (NETWORK[code], backbone, dim)
    assert found.options.untrained_seed is None and not found.training
    assert origin == {"file": "file.pth", "format": code}
    ours, theirs = found.state_dict(), official.state(shapes)
    for name, here in SAME[code].items():
        if name in shapes:
            torch.testing.assert_close(ours[here], theirs[name], rtol=0, atol=0)
    used = [name for name in shapes if not name.startswith(("desc_cls", "classifier", "conv2ds", "cv_learner"))]
    values = sorted(theirs[name].flatten()[0].item() for name in used if not name.endswith("num_batches_tracked"))
    kept = (key for key in ours if not key.endswith("num_batches_tracked"))
    assert sorted(ours[key].flatten()[0].item() for key in kept) == pytest.approx(values, abs=1e-9)


def small(code: str) -> dict[str, Any]:
    """The content of a file on the smallest backbone that the layout allows."""
    backbone = "resnet50" if code in ("DOLG", "CVNet") else "resnet18"
    make = {"SOLAR": "solar", "dirtorch": "dirtorch", "DOLG": "dolg", "CVNet": "cvnet", "Token": "token"}[code]
    return official.content(code, getattr(official, make)(backbone))


def tensors_of(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content.get("state_dict", content.get("model_state", content))
    return found


@pytest.mark.parametrize("code", NETWORK)
def test_every_tensor_that_does_not_fit_is_named(code: str, tmp_path: Path) -> None:
    content = small(code)
    tensors = tensors_of(content)
    prefix = "module." if code == "dirtorch" else ""
    lost, bent = [prefix + name for name in SAME[code] if prefix + name in tensors and name != "adpool.p"][:2]
    del tensors[lost]
    tensors[bent] = torch.zeros(3)
    tensors[f"{prefix}who.knows"] = torch.zeros(2)
    with pytest.raises(MismatchError) as refused:
        read_official_composed(saved(tmp_path / "file.pth", content))
    message = str(refused.value)
    names = [SAME[code][name.removeprefix(prefix)] for name in (lost, bent)]
    assert f"missing {names[0]}" in message and f"{names[1]} is [3], expected" in message
    assert "surplus who.knows" in message and "3 tensors do not fit" in message and "\n" not in message


@pytest.mark.parametrize(
    ("code", "wrap"),
    [
        ("CVNet", lambda tensors: {"model_state": tensors}),
        ("DOLG", lambda content: dict(content["model_state"])),
        ("Token", lambda tensors: {"state_dict": {f"module.{name}": one for name, one in tensors.items()}}),
    ],
)
def test_wrappers_may_be_there_or_not(code: str, wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    content = small(code)
    assert read_official_composed(saved(tmp_path / "a.pth", wrap(content)))[0].options.network == NETWORK[code]


@pytest.mark.parametrize("code", ["DOLG", "CVNet"])
def test_the_channels_of_images_in_bgr_order_are_turned_round(code: str, tmp_path: Path) -> None:
    content = small(code)
    first = "globalmodel.stem.conv.weight" if code == "DOLG" else "encoder_q.stem.conv.weight"
    bgr = torch.randn(64, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    tensors_of(content)[first] = bgr
    network: Any = read_official_composed(saved(tmp_path / "a.pth", content))[0]
    torch.testing.assert_close(network.backbone.conv1.weight.data, bgr[:, [2, 1, 0]], rtol=0, atol=0)
    assert network.options.mean == (0.485, 0.456, 0.406)
    pixels = torch.randn(1, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    theirs = torch.nn.functional.conv2d(pixels.flip(1), bgr, stride=2, padding=3)
    torch.testing.assert_close(network.backbone.conv1(pixels), theirs, rtol=1e-4, atol=1e-5)


def test_older_files_of_solar_have_a_factor_that_is_not_used(tmp_path: Path) -> None:
    content = small("SOLAR")
    content["state_dict"]["features.soa4.gamma"] = torch.zeros(1)
    assert read_official_composed(saved(tmp_path / "a.pth", content))[0].options.network == "solar"


def test_solar_with_one_attention(tmp_path: Path) -> None:
    content = small("SOLAR")
    for name in [name for name in content["state_dict"] if ".soa4." in name]:
        del content["state_dict"][name]
    head: Any = read_official_composed(saved(tmp_path / "a.pth", content))[0].options.head
    assert (head.attention4, head.attention5, head.divisor5) == (False, True, 2)


@pytest.mark.parametrize(
    ("code", "change", "message"),
    [
        ("SOLAR", {"meta": {**official.META, "pooling": "mac"}}, "its pooling is 'mac'; known here is only gem"),
        ("SOLAR", {"meta": {**official.META, "regional": True}}, "it has regional"),
        ("dirtorch", {"model_options": {"pooling": "gem", "norm_features": True}}, "it has norm_features"),
    ],
)
def test_networks_with_other_layers_are_refused(
    code: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        read_official_composed(saved(tmp_path / "a.pth", small(code) | change))


def test_what_is_not_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not a checkpoint of SOLAR, DIR, DOLG, CVNet or Token"):
        read_official_composed(saved(tmp_path / "a.pth", {"state_dict": {"conv1.weight": torch.zeros(1)}}))
    with pytest.raises(NotFoundError):
        read_official_composed(tmp_path / "missing.pth")
    content = small("SOLAR")
    content["meta"]["mean"] = [0.1, 0.2]
    with pytest.raises(FormatError, match="its mean and std cannot be read"):
        read_official_composed(saved(tmp_path / "b.pth", content))
    content["meta"] = {**official.META, "std": [0.0, 1.0, 1.0]}
    with pytest.raises(InputError, match="std is"):
        read_official_composed(saved(tmp_path / "e.pth", content))
    content["state_dict"]["pool.p"] = torch.zeros(1).to_sparse()
    with pytest.raises(FormatError, match="contains no state dict"):
        read_official_composed(saved(tmp_path / "f.pth", content))
    content = small("Token")
    for name in [name for name in content if name.startswith("backbone.block4.1")]:
        del content[name]
    with pytest.raises(FormatError, match="its third stage has 1 blocks"):
        read_official_composed(saved(tmp_path / "c.pth", content))
    content = small("CVNet")
    content["encoder_q.head.pool.p"] = torch.zeros(1)
    with pytest.raises(InputError, match="a GeM exponent is not greater than 0"):
        read_official_composed(saved(tmp_path / "d.pth", content))
    assert layout_of([1]) is None and layout_of({"a": 1}) is None


def test_a_model_of_tensorflow_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "delg").mkdir()
    (tmp_path / "delg/saved_model.pb").write_bytes(b"")
    (tmp_path / "r50delg_gldv2clean_20200914.tar.gz").write_bytes(b"")
    for path in (tmp_path / "delg", tmp_path / "r50delg_gldv2clean_20200914.tar.gz"):
        with pytest.raises(FormatError, match=r"a TensorFlow SavedModel; .* train delg here with"):
            open_composed_network(path, HeadCompletion("delg"))
        with pytest.raises(FormatError, match="a TensorFlow SavedModel"):
            read_official_composed(path)
        refused = CliRunner().invoke(weights, ["convert", str(path), "-o", str(tmp_path / "a.safetensors")])
        assert refused.exit_code != 0 and "TensorFlow" in str(refused.exception) + refused.output


# ---- the whitenings of DIR


class PCA:
    """What scikit-learn's PCA looks like in a pickle."""

    def __init__(self, seed: int, dim: int = 2048, kept: int = 4) -> None:
        rng = np.random.default_rng(seed)
        self.mean_, self.components_ = rng.normal(size=dim), rng.normal(size=(kept, dim))
        self.explained_variance_ = rng.uniform(0.5, 2, kept)
        self.whiten, self.n_components, self.noise_variance_ = True, None, np.float64(0.1)


@pytest.fixture(params=["sklearn.decomposition.pca", "sklearn.decomposition._pca"])
def pickled_pca(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[PCA]:
    """The class under the name that scikit-learn gives it, which is gone when the file is read."""
    monkeypatch.setattr(PCA, "__module__", request.param)
    for name in ("sklearn", "sklearn.decomposition", request.param):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[request.param].PCA = PCA  # type: ignore[attr-defined]
    return PCA


def test_the_whitening_of_dir_is_appended_with_its_power(pickled_pca: type[PCA], tmp_path: Path) -> None:
    pca = pickled_pca(0)
    path = saved(tmp_path / "a.pt", small("dirtorch") | {"pca": {"Landmarks_clean": pca, "Other": pickled_pca(1)}})
    network, origin = read_official_composed(path)
    assert network.dim == 4 and origin["projection"] == "Landmarks_clean/0.25"
    x = np.random.default_rng(2).normal(size=2048)
    expected = (pca.components_ @ (x - pca.mean_)) / pca.explained_variance_**0.25
    projection: Any = network.projection
    with torch.no_grad():
        found = projection(torch.from_numpy(x).float()[None])[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    assert read_official_composed(path, "none")[0].dim == 2048
    assert read_official_composed(path, "Other/0.5")[1]["projection"] == "Other/0.5"
    for wanted, message in (("Third", "has no learned whitening 'Third'; it has: Landmarks_clean, Other"),
                            ("Other/x", "the power of the whitening is 'x'")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            read_official_composed(path, wanted)


def test_one_whitening_without_a_name_is_the_default(pickled_pca: type[PCA], tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", small("dirtorch") | {"pca": pickled_pca(0)})
    assert read_official_composed(path)[1]["projection"] == "pca/0.25"


def test_whitenings_that_do_not_fit_are_refused(pickled_pca: type[PCA], tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="the whitening 'pca' has"):
        read_official_composed(saved(tmp_path / "a.pt", small("dirtorch") | {"pca": pickled_pca(0, 7)}))
    broken = pickled_pca(0)
    broken.explained_variance_[0] = 0
    with pytest.raises(InputError, match="contains NaN or infinity"):
        read_official_composed(saved(tmp_path / "b.pt", small("dirtorch") | {"pca": broken}))
    del broken.mean_
    with pytest.raises(FormatError, match="its whitening cannot be read"):
        read_official_composed(saved(tmp_path / "c.pt", small("dirtorch") | {"pca": broken}))
    with pytest.raises(FormatError, match="its whitenings cannot be read"):
        read_official_composed(saved(tmp_path / "d.pt", small("dirtorch") | {"pca": {}}))
    with pytest.raises(InputError, match="has no learned whitening 'a'; leave it out"):
        read_official_composed(saved(tmp_path / "e.pt", small("dirtorch")), "a")
    assert read_official_composed(tmp_path / "e.pt", "none")[0].dim == 2048


# ---- what uses them


@pytest.mark.parametrize("code", ["SOLAR", "CVNet"])
def test_weights_convert_writes_a_network_file(code: str, tmp_path: Path) -> None:
    path, place = saved(tmp_path / "a.pth", small(code)), tmp_path / "a.safetensors"
    done = CliRunner().invoke(weights, ["convert", str(path), "-o", str(place)])
    assert done.exit_code == 0, done.output
    network, origin = open_composed_checkpoint(place)
    assert network.options.network == NETWORK[code] and origin["format"] == code
    assert f"{network.dim} dimensions, {code}, sha256" in done.output


def test_an_official_file_is_weights_of_its_extractor(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", small("Token"))
    extractor = load_extractor("token", weights=str(path))
    assert "untrained_seed" not in extractor.recipe.options
    assert extractor.extract(picture(40, 50)).descriptors.shape == (1, 1024)
    network, complete = open_composed_network(path, HeadCompletion("token"))
    assert complete and isinstance(network, ComposedNetwork)
    with pytest.raises(MismatchError, match="a network of token, expected solar"):
        open_composed_network(path, HeadCompletion("solar"))


def test_presets_prepare_images_as_the_official_codes(tmp_path: Path) -> None:
    presets = {name: preset for name, preset in PRESETS.items() if preset.extractor in COMPOSED_EXTRACTORS}
    assert {preset.extractor for preset in presets.values()} == set(NETWORK.values())
    for name, preset in presets.items():
        assert preset.published == name and WEIGHTS[name].kind == "global" and preset.skip == 0
        assert preset.defaults.get("max_side", 1024) == NETWORKS[preset.extractor].max_side
    path = saved(tmp_path / "a.pth", small("CVNet"))
    extractor: Any = load_extractor("cvnet-resnet50", weights=str(path))
    assert extractor.max_side == 16384
    assert extractor.own_scales == pytest.approx((1, 2**0.5, 0.5**0.5))
    assert extractor.network.options.kind.resampling == "area"
    assert load_extractor("cvnet-resnet50", weights=str(path), max_side=512).max_side == 512  # type: ignore[attr-defined]
