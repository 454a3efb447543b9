"""ResNet-50 v2, with batch normalisation and ReLU before the convolutions (He et al., ECCV 2016).

The layout is that of the published ONNX file resnet50-v2-7: the input has a separate batch normalisation, and the
output of a stage is normalised and rectified by the first layer of the next stage.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.networks.backbone import Backbone, convolution

DEPTHS = (3, 4, 6, 3)


class PreActivation(nn.Module):
    """BN-ReLU-1×1, BN-ReLU-3×3, BN-ReLU-1×1, plus the identity or a projection of the rectified input."""

    def __init__(self, inputs: int, outputs: int, stride: int, project: bool) -> None:
        super().__init__()
        width = outputs // 4
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), convolution(inputs, width, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), convolution(width, width, 3, stride)
        self.bn3, self.conv3 = nn.BatchNorm2d(width), convolution(width, outputs, 1)
        self.downsample = convolution(inputs, outputs, 1, stride) if project else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, inputs, h, w] to [B, outputs, h / stride, w / stride]."""
        rectified = functional.relu(self.bn1(x), inplace=True)
        found = self.conv1(rectified)
        found = self.conv2(functional.relu(self.bn2(found), inplace=True))
        found = self.conv3(functional.relu(self.bn3(found), inplace=True))
        return found + (x if self.downsample is None else self.downsample(rectified))


class ResNetV2(Backbone):
    """The pre-activation ResNet-50 without its last `skip` stages; `norm` is the first layer of the dropped stage."""

    offset = 0

    def __init__(self, name: str, skip: int = 0) -> None:
        super().__init__()
        self.bn0, self.conv1, self.bn1 = nn.BatchNorm2d(3), nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        inputs = 64
        for stage, depth in enumerate(DEPTHS[: len(DEPTHS) - skip]):
            outputs, stride = 256 << stage, 2 if stage else 1
            first = PreActivation(inputs, outputs, stride, project=True)
            others = (PreActivation(outputs, outputs, 1, project=False) for _ in range(depth - 1))
            setattr(self, f"layer{stage + 1}", nn.Sequential(first, *others))
            self.early_channels, inputs = inputs, outputs
        self.norm = nn.BatchNorm2d(inputs)
        self.channels, self.stride = inputs, 32 >> skip
        self._stages = len(DEPTHS) - skip

    def early(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the map before the last stage, of both signs, [B, C4, h4, w4], of normalised pixels [B, 3, H, W]."""
        found = functional.relu(self.bn1(self.conv1(self.bn0(pixels))), inplace=True)
        found = functional.max_pool2d(found, 3, 2, 1)
        for stage in range(self._stages - 1):
            found = getattr(self, f"layer{stage + 1}")(found)
        return found

    def late(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the feature map [B, C, h, w] of the map before the last stage."""
        found = getattr(self, f"layer{self._stages}")(maps)
        return functional.relu(self.norm(found), inplace=True)


def onnx_names(skip: int) -> dict[str, str]:
    """Map parameter names to names in the published ONNX file, without prefix, for a backbone with this `skip`."""
    names = {"conv1.weight": "conv0_weight"} | _norm("bn0", "batchnorm0") | _norm("bn1", "batchnorm1")
    for stage, depth in enumerate(DEPTHS[: len(DEPTHS) - skip], start=1):
        for block in range(depth):
            names |= _block_names(stage, block)
    last = len(DEPTHS) - skip
    return names | _norm("norm", f"stage{last + 1}_batchnorm0" if skip else "batchnorm2")


def _block_names(stage: int, block: int) -> dict[str, str]:
    here, there = f"layer{stage}.{block}", f"stage{stage}"
    first = 3 * block + 1 if block else 0
    names = {f"{here}.conv{n + 1}.weight": f"{there}_conv{first + n}_weight" for n in range(3)}
    if block == 0:
        names[f"{here}.downsample.weight"] = f"{there}_conv3_weight"
    for n in range(3):
        names |= _norm(f"{here}.bn{n + 1}", f"{there}_batchnorm{3 * block + n}")
    return names


def _norm(here: str, there: str) -> dict[str, str]:
    parts = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}
    return {f"{here}.{ours}": f"{there}_{theirs}" for ours, theirs in parts.items()}
