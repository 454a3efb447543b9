"""CVNet-Rerank: every layer and the whole network against twins in float64; files; the official checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import naive_correlation as naive
from asmk_engine.errors import DamagedError, FormatError, InputError, MismatchError
from asmk_engine.networks.backbones import build_backbone
from asmk_engine.networks.reranking import centre_pivot
from asmk_engine.networks.reranking.centre_pivot import CentrePivotConvolution
from asmk_engine.networks.reranking.checkpoints import (
    open_rerank_checkpoint,
    open_rerank_network,
    save_rerank_checkpoint,
)
from asmk_engine.networks.reranking.codes import decode_levels, encode_levels
from asmk_engine.networks.reranking.correlation import correlated, unit_levels
from asmk_engine.networks.reranking.encoder import CorrelationEncoder, EncoderUnit
from asmk_engine.networks.reranking.network import RerankNetwork, RerankOptions, seeded_rerank_network
from asmk_engine.networks.reranking.pyramid import FeaturePyramid, level_sides

SMALL = RerankOptions("squeezenet1_1", 6, 2)


def arrays(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def doubled(module: Any, seed: int = 0) -> Any:
    """The module in float64, with drawn weights and biases everywhere."""
    torch.manual_seed(seed)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.3)
    return module.double().eval()


@pytest.mark.parametrize("sides", [(1, 1), (4, 5), (7, 3)])
def test_the_pyramid(sides: tuple[int, int]) -> None:
    module = doubled(FeaturePyramid(3, 4, 3))
    maps = drawn(1, 3, *sides)
    expected = naive.pyramid(maps[0].numpy(), [one.weight.detach().numpy() for one in module.levels])
    for found, level in zip(module(maps), expected, strict=True):
        assert np.allclose(found[0].detach().numpy(), level, atol=1e-12)


def test_sides_are_rounded_as_published() -> None:
    assert level_sides((64, 48), 3) == [(32, 24), (45, 34), (64, 48)]
    assert level_sides((33, 1), 3) == [(16, 1), (23, 1), (33, 1)] and level_sides((9, 9), 1) == [(9, 9)]


@pytest.mark.parametrize("sides", [((1, 1), (2, 3)), ((3, 4), (3, 4)), ((5, 2), (4, 3))])
def test_the_correlations(sides: tuple[tuple[int, int], tuple[int, int]]) -> None:
    levels = [[drawn(1, 5, *size, seed=seed) for size in level_sides(one, 3)] for seed, one in enumerate(sides)]
    levels[0][0][:, :, 0, 0] = 0  # a hidden place
    query, key = (unit_levels(one) for one in levels)
    expected = naive.correlations(*([level[0].numpy() for level in one] for one in levels))
    of_query = correlated(query.flatten(3), key).unflatten(0, sides[0]).permute(2, 0, 1, 3, 4)
    assert np.allclose(of_query.numpy(), expected, atol=1e-7)
    of_key = correlated(key.flatten(3), query).unflatten(0, sides[1]).unflatten(2, (3, 3))
    assert np.allclose(of_key.permute(3, 2, 4, 5, 0, 1).flatten(0, 1).numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("sides", [(1, 1, 1, 1), (3, 4, 2, 3), (4, 1, 3, 3)])
def test_a_convolution_is_a_naive_one_in_four_dimensions(kernel: int, stride: int, sides: tuple[int, ...]) -> None:
    module = doubled(CentrePivotConvolution(2, 3, kernel, stride))
    maps = drawn(2, 2, *sides)
    found = module(maps).detach().numpy()
    named = arrays(module)
    whole = naive.centre_pivot_kernel(named["query.weight"], named["key.weight"])
    for one, image in zip(found, maps.numpy(), strict=True):
        expected = naive.convolved4(image, whole, named["query.bias"] + named["key.bias"], stride)
        assert np.allclose(one, expected, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 200, 1 << 24])
@pytest.mark.parametrize("batch", [(1, 1), (1, 3), (3, 1), (2, 2)])
def test_correlations_are_convolved_in_parts(batch: tuple[int, int], chunk: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(centre_pivot, "CHUNK_VALUES", chunk)
    module = doubled(CentrePivotConvolution(4, 5, 5, 2))
    query, key = drawn(batch[0], 2, 3, 4, 3), drawn(batch[1], 2, 3, 3, 5, seed=1)
    whole = torch.einsum("bsdhw,btdij->bsthwij", query.expand(max(batch), -1, -1, -1, -1),
                         key.expand(max(batch), -1, -1, -1, -1)).clamp(min=0).flatten(1, 2)  # fmt: skip
    assert torch.allclose(module.of_correlations(query, key), module(whole), atol=1e-12)


def test_a_unit_normalises_groups_of_channels() -> None:
    unit, maps = doubled(EncoderUnit(2, 8, 3, 1)), drawn(1, 2, 3, 2, 2, 3)
    named = arrays(unit)
    before = unit.convolution(maps)[0].detach().numpy()
    expected = np.maximum(naive.group_normalised(before, named["norm.weight"], named["norm.bias"]), 0)
    assert np.allclose(unit(maps)[0].detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("sides", [((2, 3), (3, 2)), ((1, 1), (4, 3))])
def test_the_encoder(sides: tuple[tuple[int, int], tuple[int, int]]) -> None:
    module = doubled(CorrelationEncoder(2))
    levels = [[drawn(1, 4, *size, seed=seed) for size in level_sides(one, 2)] for seed, one in enumerate(sides)]
    found = module(*(unit_levels(one) for one in levels))[0].detach().numpy()
    maps = naive.correlations(*([level[0].numpy() for level in one] for one in levels))
    assert np.allclose(found, naive.logits(maps, arrays(module)), atol=1e-6)


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18", "resnet50"])
def test_maps_are_those_before_the_last_relu(name: str) -> None:
    backbone = build_backbone(name, RerankOptions(name).skip).eval()
    pixels = drawn(1, 3, 40, 56).float()
    with torch.no_grad():
        found = backbone.unrectified(pixels)
        assert backbone.stride == 16 and (found < 0).any() and torch.equal(found.clamp(min=0), backbone(pixels))


def test_backbones_without_such_a_map_are_refused() -> None:
    with pytest.raises(InputError, match="before its last ReLU"):
        build_backbone("vgg16").unrectified(torch.zeros(1, 3, 32, 32))
    with pytest.raises(InputError, match="last 1, 4 or 7 parts"):
        build_backbone("squeezenet1_1", 4).unrectified(torch.zeros(1, 3, 64, 64))
    with pytest.raises(InputError, match="have one of resnet18"):
        RerankOptions("vgg16")


def test_codes_keep_directions() -> None:
    levels = [drawn(1, 32, 4, 5), torch.zeros(1, 32, 1, 1, dtype=torch.float64)]
    codes = encode_levels(levels)
    assert [code.dtype for code in codes] == [np.int8, np.int8] and np.abs(codes[0]).max(-1).min() == 127
    back = decode_levels(codes)
    assert torch.cosine_similarity(back[0].double(), levels[0]).min() > 0.999 and not back[1].any()
    assert [code.tolist() for code in encode_levels(back)] == [code.tolist() for code in codes]


def test_the_backbone_never_trains() -> None:
    network = RerankNetwork(SMALL).train()
    assert network.training and network.encoder.training and not network.backbone.training


def test_files(tmp_path: Path) -> None:
    network = seeded_rerank_network(SMALL)
    save_rerank_checkpoint(tmp_path / "n.safetensors", network, {"file": "x"})
    found, origin = open_rerank_checkpoint(tmp_path / "n.safetensors")
    assert origin == {"file": "x"} and found.options == SMALL and not found.training
    again = open_rerank_network(tmp_path / "n.safetensors")[0]
    for one in (found, again):
        assert all(torch.equal(value, one.state_dict()[key]) for key, value in network.state_dict().items())
    with pytest.raises(InputError, match="not made with untrained_seed 3"):
        open_rerank_network(tmp_path / "n.safetensors", 3)
    with pytest.raises(InputError, match="not made with width 9"):
        open_rerank_network(tmp_path / "n.safetensors", width=9)
    for text in ("[]", "{}", '{"mean": [1], "std": [1]}', '{"backbone": "vgg16", "mean": [0,0,0], "std": [1,1,1]}'):
        with pytest.raises(DamagedError, match="options are not readable"):
            RerankOptions.from_json(text, "here")
    for bad in ({"width": 0}, {"levels": 6}, {"levels": True}, {"untrained_seed": -1}, {"std": (0.0, 1.0, 1.0)}):
        with pytest.raises(InputError):
            RerankOptions(**bad)  # type: ignore[arg-type]


def test_a_backbone_is_completed_only_with_a_seed(tmp_path: Path) -> None:
    backbone = build_backbone("squeezenet1_1")
    np.savez(tmp_path / "s.npz", **arrays(backbone))
    with pytest.raises(InputError, match="has no layers for re-ranking"):
        open_rerank_network(tmp_path / "s.npz")
    found, again, other = (open_rerank_network(tmp_path / "s.npz", seed, width=8)[0] for seed in (1, 1, 2))
    assert found.options.untrained_seed == 1 and found.options.width == 8
    assert torch.equal(found.backbone.features[12].squeeze.weight, backbone.features[12].squeeze.weight)
    first = found.encoder.classifier[0].weight
    assert torch.equal(first, again.encoder.classifier[0].weight)
    assert not torch.equal(first, other.encoder.classifier[0].weight)


def official(network: RerankNetwork) -> dict[str, torch.Tensor]:
    """A checkpoint of the official layout, by the list of its names, with the tensors of a network."""
    stages = {}
    for key, value in network.state_dict().items():
        parts = key.split(".")
        if key.startswith("backbone.layer"):
            stage, block, *layer = parts[1].removeprefix("layer"), int(parts[2]) + 1, *parts[3:-1]
            theirs = {"downsample.0": "proj", "downsample.1": "bn"}.get(".".join(layer))
            if theirs is None:
                letter = "abc"[int(layer[0][-1]) - 1]
                theirs = f"f.{letter}" + ("_bn" if layer[0].startswith("bn") else "")
            stages[f"encoder_q.s{stage}.b{block}.{theirs}.{parts[-1]}"] = value
        elif key.startswith("backbone."):
            stages[f"encoder_q.stem.{'conv' if 'conv' in parts[1] else 'bn'}.{parts[-1]}"] = value
        elif key.startswith("pyramid."):
            stages[f"conv2ds.{parts[2]}.weight"] = value
        elif key.startswith("encoder.classifier."):
            stages[f"cv_learner.mlp.{parts[2]}.{parts[3]}"] = value
        else:
            block, unit, side = int(parts[2]) + 1, int(parts[3]), {"query": "conv1", "key": "conv2"}.get(parts[5])
            place = f"{3 * unit}.{side}" if side else f"{3 * unit + 1}"
            stages[f"cv_learner.block{block}.{place}.{parts[-1]}"] = value
    stages["encoder_q.stem.conv.weight"] = stages["encoder_q.stem.conv.weight"].flip(1)
    return {**stages, "encoder_q.s4.b1.f.a.weight": torch.zeros(2), "encoder_q.head.pool.p": torch.full((1,), 3.0)}


def test_the_official_checkpoint(tmp_path: Path) -> None:
    network = seeded_rerank_network(RerankOptions())
    state = official(network)
    assert state["conv2ds.2.weight"].shape == (256, 1024, 3, 3)
    assert state["cv_learner.block1.0.conv1.weight"].shape == (16, 9, 5, 5)
    assert state["cv_learner.block3.6.conv2.weight"].shape == (64, 32, 3, 3)
    assert state["cv_learner.block4.7.weight"].shape == (128,) and state["cv_learner.mlp.2.weight"].shape == (2, 128)
    for content in (state, {"model_state": state}):
        torch.save(content, tmp_path / "c.pyth")
        found, origin = open_rerank_network(tmp_path / "c.pyth")
        assert origin == {"file": "c.pyth", "format": "CVNet"} and found.options == RerankOptions()
        assert all(torch.equal(value, found.state_dict()[key]) for key, value in network.state_dict().items())
    for wrong in ({"cv_learner.block2.2.weight": torch.zeros(1)}, {"encoder_k.stem.conv.weight": torch.zeros(1)}):
        torch.save({**state, **wrong}, tmp_path / "c.pyth")
        with pytest.raises(MismatchError, match=next(iter(wrong))):
            open_rerank_network(tmp_path / "c.pyth")
    torch.save({key: value for key, value in state.items() if ".s3.b6." not in key}, tmp_path / "c.pyth")
    with pytest.raises(FormatError, match="third stage has 5 blocks"):
        open_rerank_network(tmp_path / "c.pyth")
