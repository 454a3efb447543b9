"""EfficientNet-Lite 0 to 4 without the classifier: EfficientNets without squeeze-and-excitation, with ReLU6.

Tan and Le, ICML 2019 (arXiv 1905.11946), for the stages and their scaling; the Lite variants of tensorflow/tpu keep stem,
head and the repeats of the first and last stage unscaled. Parameter names are those of the published state dicts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.networks.backbone import Backbone

SCALING = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
    "efficientnet_lite3": (1.2, 1.4),
    "efficientnet_lite4": (1.4, 1.8),
}
"""Factors of the number of channels and of the repeats, by name."""
ENDS = ("end32", "expanded16", "end16", "expanded8", "end8")
"""Where a backbone can end, by `skip`: the head (stride 32), the last map of a stride, or that map after the expansion of
the block that follows it."""
PIXELS = ((127 / 255,) * 3, (128 / 255,) * 3)
"""Mean and standard deviation of the pixels: the networks were trained on (x − 127) / 128 of values from 0 to 255."""

STEM, HEAD, EXPANSION = 32, 1280, 6
EPSILON = 1e-3
# Stages: repeats, side of the kernel, stride, channels; all but the first expand their input.
STAGES = ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112), (4, 5, 2, 192), (1, 3, 1, 320))


@dataclass(frozen=True)
class BlockPlan:
    """One inverted residual block.

    inputs, outputs  number of channels
    kernel, stride   of the depthwise convolution
    expansion        factor of the channels within
    """

    inputs: int
    outputs: int
    kernel: int
    stride: int
    expansion: int


def plan_blocks(name: str) -> list[BlockPlan]:
    """Return the blocks of a network of SCALING, from the stem to the head."""
    width, depth = SCALING[name]
    blocks, inputs = [], STEM
    for stage, (repeats, kernel, stride, channels) in enumerate(STAGES):
        if 0 < stage < len(STAGES) - 1:
            repeats = math.ceil(depth * repeats)
        outputs = rounded_channels(channels, width)
        for repeat in range(repeats):
            expansion = EXPANSION if stage else 1
            blocks.append(BlockPlan(inputs, outputs, kernel, 1 if repeat else stride, expansion))
            inputs = outputs
    return blocks


def rounded_channels(channels: int, width: float) -> int:
    """Return a multiple of 8 close to channels · width, and at least 0.9 times that. Source: arXiv 1905.11946's code."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


class SameConvolution(nn.Conv2d):
    """A convolution whose map has ceil(side / stride) locations a side, as TensorFlow's padding "same".

    With a stride of 2, the padding depends on the size, and where it is odd, the larger part is at the right and bottom.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        within = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, within, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, inputs, h, w] to [B, outputs, ceil(h / stride), ceil(w / stride)]."""
        if self.stride[0] == 1:
            return super().forward(x)
        sides = [same_padding(side, self.kernel_size[0], self.stride[0]) for side in reversed(x.shape[-2:])]
        return super().forward(functional.pad(x, [amount for side in sides for amount in side]))


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the padding before and after a side of this many locations, as TensorFlow's "same" has it."""
    total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


class Block(nn.Module):
    """An inverted residual block: expansion by 1×1, depthwise convolution, projection by 1×1 without activation.

    only_expands  leave out all but the expansion
    """

    def __init__(self, plan: BlockPlan, *, only_expands: bool = False) -> None:
        super().__init__()
        inner = plan.inputs * plan.expansion
        self.expands, self.only_expands = plan.expansion > 1, only_expands
        self.is_residual = plan.stride == 1 and plan.inputs == plan.outputs
        if self.expands:
            self._expand_conv = nn.Conv2d(plan.inputs, inner, 1, bias=False)
            self._bn0: nn.Module = nn.BatchNorm2d(inner, EPSILON)
        if not only_expands:
            self._depthwise_conv = SameConvolution(inner, inner, plan.kernel, plan.stride, inner)
            self._bn1: nn.Module = nn.BatchNorm2d(inner, EPSILON)
            self._project_conv = nn.Conv2d(inner, plan.outputs, 1, bias=False)
            self._bn2: nn.Module = nn.BatchNorm2d(plan.outputs, EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, inputs, h, w] to [B, outputs, h / stride, w / stride], or to the expanded channels."""
        found = x
        if self.expands:
            found = functional.relu6(self._bn0(self._expand_conv(found)), inplace=True)
        if self.only_expands:
            return found
        found = functional.relu6(self._bn1(self._depthwise_conv(found)), inplace=True)
        found = self._bn2(self._project_conv(found))
        return found + x if self.is_residual else found


class EfficientNetLite(Backbone):
    """EfficientNet-Lite up to ENDS[skip]; the maps `end16` and `end8` have no activation, so they are of both signs."""

    def __init__(self, name: str, skip: int = 0) -> None:
        super().__init__()
        blocks, end = plan_blocks(name), ENDS[skip]
        self._conv_stem = SameConvolution(3, STEM, 3, 2)
        self._bn0: nn.Module = nn.BatchNorm2d(STEM, EPSILON)
        if end != "end32":
            blocks = _blocks_until(blocks, int(end.removeprefix("expanded").removeprefix("end")))
        used, following = (blocks, None) if end == "end32" else (blocks[:-1], blocks[-1])
        built = [Block(plan) for plan in used]
        if following is not None and end.startswith("expanded"):
            built.append(Block(following, only_expands=True))
        self._blocks = nn.ModuleList(built)
        self.channels = used[-1].outputs * (EXPANSION if end.startswith("expanded") else 1)
        self.has_head = end == "end32"
        if self.has_head:
            self._conv_head = nn.Conv2d(self.channels, HEAD, 1, bias=False)
            self._bn1: nn.Module = nn.BatchNorm2d(HEAD, EPSILON)
            self.channels = HEAD
        self.stride = math.prod(plan.stride for plan in used) * 2
        self._strided = [3, *(plan.kernel for plan in used if plan.stride == 2)]  # kernels, in order
        self.offset = self.offset_of(self.stride)

    def offset_of(self, side: int) -> float:
        """Return the centre of the first location along a side of this many pixels; it depends on the padding."""
        offset, jump = 0.0, 1
        for kernel in self._strided:
            offset += jump * ((kernel - 1) / 2 - same_padding(side, kernel, 2)[0])
            side, jump = math.ceil(side / 2), 2 * jump
        return offset

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the feature map [B, C, h, w] of normalised pixels [B, 3, H, W]."""
        found = functional.relu6(self._bn0(self._conv_stem(pixels)), inplace=True)
        for block in self._blocks:
            found = block(found)
        return functional.relu6(self._bn1(self._conv_head(found)), inplace=True) if self.has_head else found


def _blocks_until(blocks: list[BlockPlan], stride: int) -> list[BlockPlan]:
    """Return the blocks of at most this stride, and the one after them."""
    reached = 2
    for place, plan in enumerate(blocks):
        reached *= plan.stride
        if reached > stride:
            return blocks[: place + 1]
    return blocks
