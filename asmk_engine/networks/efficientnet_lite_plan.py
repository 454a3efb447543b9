"""The plan of EfficientNet-Lite 0 to 4: EfficientNets without squeeze-and-excitation, with ReLU6, up to a chosen map.

Tan and Le, ICML 2019 (arXiv 1905.11946), for the stages and their scaling; the Lite variants of tensorflow/tpu keep
stem, head and the repeats of the first and last stage unscaled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SCALING = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
    "efficientnet_lite3": (1.2, 1.4),
    "efficientnet_lite4": (1.4, 1.8),
}
"""Factors of the number of channels and of the repeats, by name."""
ENDS = ("end32", "expanded16", "end16", "expanded8", "end8")
"""Where a backbone can end, by `skip`: the head (stride 32), the last map of a stride, or that map after the expansion
of the block that follows it."""
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

    @property
    def inner(self) -> int:
        """Number of channels within."""
        return self.inputs * self.expansion

    @property
    def is_residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.inputs == self.outputs


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
    """Return a multiple of 8 close to channels · width, at least 0.9 times that. Source: the code of the paper."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the padding before and after a side of this many locations, as TensorFlow's "same" has it."""
    total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


@dataclass(frozen=True)
class LitePlan:
    """A network of SCALING up to ENDS[skip].

    blocks    the blocks after the stem
    expanded  the block of which only the expansion follows; None if there is none
    has_head  whether the head follows
    """

    blocks: tuple[BlockPlan, ...]
    expanded: BlockPlan | None
    has_head: bool

    @classmethod
    def of(cls, name: str, skip: int = 0) -> LitePlan:
        """Return the plan of a network by its name, without its last `skip` parts."""
        blocks, end = plan_blocks(name), ENDS[skip]
        if end == "end32":
            return cls(tuple(blocks), None, has_head=True)
        used = blocks_until(blocks, int(end.removeprefix("expanded").removeprefix("end")))
        return cls(tuple(used[:-1]), used[-1] if end.startswith("expanded") else None, has_head=False)

    @property
    def channels(self) -> int:
        """Number of channels of the map."""
        if self.has_head:
            return HEAD
        return self.expanded.inner if self.expanded else self.blocks[-1].outputs

    @property
    def stride(self) -> int:
        """Distance between neighbouring locations of the map, in pixels."""
        return math.prod(block.stride for block in self.blocks) * 2

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the tensors, by their published names."""
        found = _layer("_conv_stem", "_bn0", STEM, 3, 3)
        for place, block in enumerate(self.blocks):
            found |= _block(f"_blocks.{place}.", block)
        if self.expanded:
            found |= _expansion(f"_blocks.{len(self.blocks)}.", self.expanded)
        if self.has_head:
            found |= _layer("_conv_head", "_bn1", HEAD, self.blocks[-1].outputs, 1)
        return found

    def offset_of(self, side: int) -> float:
        """Return the centre of the first location along a side of this many pixels; it depends on the padding."""
        offset, jump = 0.0, 1
        for kernel in (3, *(block.kernel for block in self.blocks if block.stride == 2)):
            offset += jump * ((kernel - 1) / 2 - same_padding(side, kernel, 2)[0])
            side, jump = math.ceil(side / 2), 2 * jump
        return offset


def blocks_until(blocks: list[BlockPlan], stride: int) -> list[BlockPlan]:
    """Return the blocks of at most this stride, and the one after them."""
    reached = 2
    for place, plan in enumerate(blocks):
        reached *= plan.stride
        if reached > stride:
            return blocks[: place + 1]
    return blocks


def _block(prefix: str, plan: BlockPlan) -> dict[str, tuple[int, ...]]:
    first = _expansion(prefix, plan) if plan.expansion > 1 else {}
    depthwise = _layer(f"{prefix}_depthwise_conv", f"{prefix}_bn1", plan.inner, 1, plan.kernel)
    return first | depthwise | _layer(f"{prefix}_project_conv", f"{prefix}_bn2", plan.outputs, plan.inner, 1)


def _expansion(prefix: str, plan: BlockPlan) -> dict[str, tuple[int, ...]]:
    return _layer(f"{prefix}_expand_conv", f"{prefix}_bn0", plan.inner, plan.inputs, 1)


def _layer(name: str, norm: str, outputs: int, inputs: int, kernel: int) -> dict[str, tuple[int, ...]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.weight": (outputs, inputs, kernel, kernel)} | {f"{norm}.{part}": (outputs,) for part in parts}
