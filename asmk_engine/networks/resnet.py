"""ResNet-18, -34, -50, -101 and -152 without the classifier (He et al., CVPR 2016); parameter names are torchvision's.

The stride of a bottleneck is at its 3×3 convolution, as in torchvision ("v1.5").
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.networks.backbone import Backbone, convolution

STAGES = 4
DEPTHS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and the identity."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = convolution(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, inputs, h, w] to [B, width, h / stride, w / stride]."""
        return functional.relu(self.unrectified(x), inplace=True)

    def unrectified(self, x: torch.Tensor) -> torch.Tensor:
        """Return the same before the last ReLU."""
        found = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        found = self.bn2(self.conv2(found))
        total: torch.Tensor = found + (x if self.downsample is None else self.downsample(x))
        return total


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and the identity."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1, self.bn1 = convolution(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = convolution(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = convolution(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, inputs, h, w] to [B, 4 width, h / stride, w / stride]."""
        return functional.relu(self.unrectified(x), inplace=True)

    def unrectified(self, x: torch.Tensor) -> torch.Tensor:
        """Return the same before the last ReLU."""
        found = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        found = functional.relu(self.bn2(self.conv2(found)), inplace=True)
        found = self.bn3(self.conv3(found))
        total: torch.Tensor = found + (x if self.downsample is None else self.downsample(x))
        return total


class ResNet(Backbone):
    """A residual network without its last `skip` stages; resnet50 with skip 1 is the ⁻R50 of HOW, 1024 channels."""

    offset = 0

    def __init__(self, name: str, skip: int = 0) -> None:
        super().__init__()
        block = BasicBlock if name in ("resnet18", "resnet34") else Bottleneck
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        inputs = 64
        for stage, depth in enumerate(DEPTHS[name][: STAGES - skip]):
            width = 64 << stage
            first = block(inputs, width, 2 if stage else 1)
            self.early_channels, inputs = inputs, width * block.expansion
            others = (block(inputs, width, 1) for _ in range(depth - 1))
            setattr(self, f"layer{stage + 1}", nn.Sequential(first, *others))
        self.channels, self.stride = inputs, 32 >> skip
        self._stages = STAGES - skip

    def early(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the map before the last stage, [B, C4, h4, w4], of normalised pixels [B, 3, H, W]."""
        found = functional.relu(self.bn1(self.conv1(pixels)), inplace=True)
        found = functional.max_pool2d(found, 3, 2, 1)
        for stage in range(self._stages - 1):
            found = getattr(self, f"layer{stage + 1}")(found)
        return found

    def late(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the feature map [B, C, h, w] of the map before the last stage."""
        found: torch.Tensor = getattr(self, f"layer{self._stages}")(maps)
        return found

    def unrectified(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the feature map [B, C, h, w] before the last ReLU."""
        found, (*blocks, last) = self.early(pixels), getattr(self, f"layer{self._stages}")
        for block in blocks:
            found = block(found)
        total: torch.Tensor = last.unrectified(found)
        return total


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
