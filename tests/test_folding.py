"""Networks whose batch normalisation is folded into their convolutions compute what they did before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import naive_networks as naive
from asmk_engine.networks.backbones import build_backbone
from asmk_engine.networks.folding import folded
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.local_options import LocalOptions
from tiny_networks import arrays, randomised


@pytest.mark.parametrize(("name", "skip"), [("resnet18", 1), ("resnet50", 2)])
def test_a_folded_backbone_is_its_twin_and_normalises_nothing(name: str, skip: int) -> None:
    backbone = randomised(build_backbone(name, skip).double())
    weights = arrays(backbone)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, 33, 40)))
    found = folded(backbone)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in found.modules())
    with torch.inference_mode():
        np.testing.assert_allclose(found(x)[0].numpy(), naive.resnet(x[0].numpy(), weights, name, skip), rtol=1e-8)


@pytest.mark.parametrize(("name", "skip"), [("resnet50v2", 3), ("squeezenet1_1", 8), ("vgg16", 0)])
def test_other_backbones_stay_as_they_are(name: str, skip: int) -> None:
    backbone = randomised(build_backbone(name, skip))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    after = folded(backbone).state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)


@torch.inference_mode()
def test_a_whole_network_describes_as_before() -> None:
    network = LocalNetwork(LocalOptions("resnet18", 3, dim=8))
    randomised(network)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 48, 40))).float()
    before = network(x)
    for one, other in zip(folded(network)(x), before, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
