"""EfficientNet-Lite 0 to 4 without the classifier; parameter names are those of the published state dicts."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.networks.backbone import Backbone
from asmk_engine.networks.efficientnet_lite_plan import EPSILON, HEAD, STEM, BlockPlan, LitePlan, same_padding


class SameConvolution(nn.Conv2d):
    """A convolution whose map has ceil(side / stride) locations a side, as TensorFlow's padding "same".

    With a stride of 2, the padding depends on the size; where it is odd, the larger part is at the right and bottom.
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


class Block(nn.Module):
    """An inverted residual block: expansion by 1×1, depthwise convolution, projection by 1×1 without activation.

    only_expands  leave out all but the expansion
    """

    def __init__(self, plan: BlockPlan, *, only_expands: bool = False) -> None:
        super().__init__()
        inner = plan.inner
        self.expands, self.only_expands, self.is_residual = plan.expansion > 1, only_expands, plan.is_residual
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
        self.plan = plan = LitePlan.of(name, skip)
        self._conv_stem = SameConvolution(3, STEM, 3, 2)
        self._bn0: nn.Module = nn.BatchNorm2d(STEM, EPSILON)
        last = [Block(plan.expanded, only_expands=True)] if plan.expanded else []
        self._blocks = nn.ModuleList([*map(Block, plan.blocks), *last])
        if plan.has_head:
            self._conv_head = nn.Conv2d(plan.blocks[-1].outputs, HEAD, 1, bias=False)
            self._bn1: nn.Module = nn.BatchNorm2d(HEAD, EPSILON)
        self.channels, self.stride, self.offset = plan.channels, plan.stride, plan.offset_of(plan.stride)
        self._last_halving = max(place for place, block in enumerate(plan.blocks) if block.stride == 2)
        self.early_channels = plan.blocks[self._last_halving].inputs

    def offset_of(self, side: int) -> float:
        """Return the centre of the first location along a side of this many pixels; it depends on the padding."""
        return self.plan.offset_of(side)

    def early_offset_of(self, side: int) -> float:
        """Return the offset of map 4 along a side of this many pixels."""
        return LitePlan(self.plan.blocks[: self._last_halving], None, has_head=False).offset_of(side)

    def early(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the map before the last stride, of both signs, [B, C4, h4, w4], of normalised pixels [B, 3, H, W]."""
        found = functional.relu6(self._bn0(self._conv_stem(pixels)), inplace=True)
        for block in self._blocks[: self._last_halving]:
            found = block(found)
        return found

    def late(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the feature map [B, C, h, w] of the map before the last stride."""
        found = maps
        for block in self._blocks[self._last_halving :]:
            found = block(found)
        return functional.relu6(self._bn1(self._conv_head(found)), inplace=True) if self.plan.has_head else found
