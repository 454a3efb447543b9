"""Checkpoints of composed networks as their official codes write them: exactly these names and shapes.

Every tensor has one value everywhere, another one for each tensor, so that large ones take no room in a file.
"""

from __future__ import annotations

from typing import Any

import torch

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
Shapes = dict[str, tuple[int, ...]]
STATISTICS = ("weight", "bias", "running_mean", "running_var")
NORMALISATION = (*STATISTICS, "num_batches_tracked")


def layer(name: str, outputs: int, inputs: int, side: int = 0, bias: bool = True) -> Shapes:
    """A convolution, or with a side of 0 a linear layer."""
    sides = (side, side) if side else ()
    return {f"{name}.weight": (outputs, inputs, *sides)} | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name: str, channels: int) -> Shapes:
    return {f"{name}.{part}": () if part == "num_batches_tracked" else (channels,) for part in NORMALISATION}


def affine(name: str, channels: int) -> Shapes:
    """A layer normalisation."""
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def torchvision(backbone: str, first: str, second: str, stages: list[str]) -> Shapes:
    """A ResNet whose first convolution and normalisation, and whose four stages, have these names."""
    deep, found, inputs = backbone != "resnet18", layer(first, 64, 3, 7, False) | norm(second, 64), 64
    for stage, blocks in enumerate(DEPTHS[backbone]):
        width = 64 * 2**stage
        outputs = width * (4 if deep else 1)
        for block in range(blocks):
            name = f"{stages[stage]}.{block}"
            plan = [(width, inputs, 1), (width, width, 3), (outputs, width, 1)]
            for number, (into, out_of, side) in enumerate(plan if deep else [(width, inputs, 3), (width, width, 3)], 1):
                found |= layer(f"{name}.conv{number}", into, out_of, side, False) | norm(f"{name}.bn{number}", into)
            if block == 0 and inputs != outputs:
                found |= layer(f"{name}.downsample.0", outputs, inputs, 1, False) | norm(
                    f"{name}.downsample.1", outputs
                )
            inputs = outputs
    return found


def pycls(backbone: str, prefix: str) -> Shapes:
    """A ResNet as pycls names it."""
    found, inputs = layer(f"{prefix}stem.conv", 64, 3, 7, False) | norm(f"{prefix}stem.bn", 64), 64
    for stage, blocks in enumerate(DEPTHS[backbone]):
        width, outputs = 64 * 2**stage, 256 * 2**stage
        for block in range(blocks):
            name = f"{prefix}s{stage + 1}.b{block + 1}"
            if block == 0:
                found |= layer(f"{name}.proj", outputs, inputs, 1, False) | norm(f"{name}.bn", outputs)
            for letter, into, out_of, side in (
                ("a", width, inputs, 1),
                ("b", width, width, 3),
                ("c", outputs, width, 1),
            ):
                found |= layer(f"{name}.f.{letter}", into, out_of, side, False) | norm(f"{name}.f.{letter}_bn", into)
            inputs = outputs
    return found


def solar(backbone: str = "resnet101") -> Shapes:
    stages = ["features.conv2_x.2", *(f"features.conv{stage}_x" for stage in (3, 4, 5))]
    found = torchvision(backbone, "features.conv1.0", "features.conv1.1", stages)
    last = 512 if backbone == "resnet18" else 2048
    for stage, channels, divisor in ((4, last // 2, 4), (5, last, 2)):
        name, within = f"features.soa{stage}", channels // divisor
        for part in ("f", "g"):
            found |= layer(f"{name}.{part}.0", within, channels, 1) | norm(f"{name}.{part}.1", within)
        found |= layer(f"{name}.h", within, channels, 1) | layer(f"{name}.v", channels, within, 1)
    return found | {"pool.p": (1,)} | layer("whiten", last, last)


def dirtorch(backbone: str = "resnet101") -> Shapes:
    last = 512 if backbone == "resnet18" else 2048
    found = torchvision(backbone, "conv1", "bn1", ["layer1", "layer2", "layer3", "layer4"])
    return found | {"adpool.p": (1,)} | layer("fc", 2048, last)


def dolg(backbone: str = "resnet101", aspp: bool = False, learned: bool = True) -> Shapes:
    found = pycls(backbone, "globalmodel.") | layer("fc_t", 1024, 2048) | layer("fc", 512, 2048)
    found |= (
        layer("localmodel.conv1", 1024, 1024, 1) | norm("localmodel.bn", 1024) | layer("localmodel.conv2", 1, 1024, 1)
    )
    if aspp:
        for number in range(4):
            found |= layer(f"localmodel.aspp.aspp.{number}", 512, 1024, 3 if number else 1)
        found |= layer("localmodel.aspp.im_pool.1", 512, 1024, 1) | layer("localmodel.aspp.conv_after.0", 1024, 2560, 1)
    found |= {"pool_g.p": (1,)} if learned else {}
    return found | {"desc_cls.weight": (81313, 512), "desc_cls.t": (1,)}


def cvnet(backbone: str = "resnet101") -> Shapes:
    found = pycls(backbone, "encoder_q.") | {"encoder_q.head.pool.p": (1,)} | layer("encoder_q.head.fc", 2048, 2048)
    for number in range(3):
        found |= layer(f"conv2ds.{number}", 256, 1024, 3, False)
    return found | {"cv_learner.block1.0.conv1.weight": (16, 9, 5, 5)} | layer("cv_learner.mlp.2", 2, 128)


def token(backbone: str = "resnet101") -> Shapes:
    stages = [f"backbone.block{stage}" for stage in (2, 3, 4, 5)]
    last = 512 if backbone == "resnet18" else 2048
    found = torchvision(backbone, "backbone.block1.0", "backbone.block1.1", stages)
    found |= {"tr.query": (1, 4, 1024)} | layer("tr.token_norm.0", 1024, 1024) | affine("tr.token_norm.1", 1024)
    found |= attention("tr.encoder.0.attn") | norm("tr.encoder.0.bn", 1024) | layer("tr.encoder.0.mlp", 1024, 1024)
    for number in range(2):
        name = f"tr.decoder.{number}"
        found |= attention(f"{name}.self_attn") | attention(f"{name}.cross_attn")
        found |= affine(f"{name}.bn1", 1024) | affine(f"{name}.bn2", 1024)
        found |= layer(f"{name}.mlp.fc1", 2048, 1024) | layer(f"{name}.mlp.fc2", 1024, 2048)
    found |= layer("tr.conv.0", 1024, last, 1) | norm("tr.conv.1", 1024)
    return found | layer("tr.proj.0", 1024, 4096) | norm("tr.proj.1", 1024) | {"classifier.weight": (81313, 1024)}


def attention(name: str) -> Shapes:
    found: Shapes = {}
    for part in ("q", "k", "v", "proj"):
        found |= layer(f"{name}.{part}", 1024, 1024)
    return found


def state(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Tensors of these shapes; the value of one is 1 plus its number divided by 4096, which every float type keeps."""
    found = {}
    for number, (name, shape) in enumerate(shapes.items()):
        counts = name.endswith("num_batches_tracked")
        found[name] = torch.tensor(7) if counts else torch.tensor(1 + number / 4096).expand(shape)
    return found


META = {
    "architecture": "resnet101",
    "local_whitening": False,
    "pooling": "gem",
    "regional": False,
    "whitening": True,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "outputdim": 2048,
    "soa": True,
    "soa_layers": "45",
}
MODEL_OPTIONS = {"arch": "resnet101_rmac", "out_dim": 2048, "pooling": "gem", "gemp": 3}
PREPROCESS = {"mean": META["mean"], "std": META["std"], "input_size": 224}


def content(code: str, shapes: Shapes) -> dict[str, Any]:
    """The content of a file, in the wrapper that the code gives it."""
    tensors: dict[str, Any] = dict(state(shapes))
    if code == "SOLAR":
        return {"meta": dict(META), "state_dict": tensors}
    if code == "dirtorch":
        wrapped = {f"module.{name}": tensor for name, tensor in tensors.items()}
        return {"model_options": MODEL_OPTIONS, "state_dict": wrapped, "preprocess": PREPROCESS}
    return {"model_state": tensors, "epoch": 100} if code == "DOLG" else tensors
