"""Folding of batch normalisation into the preceding convolution: the same function with one layer fewer."""

from __future__ import annotations

from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from asmk_engine.networks import efficientnet_lite
from asmk_engine.networks.resnet import BasicBlock, Bottleneck, ResNet

Module = TypeVar("Module", bound=nn.Module)
RESNET = {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3"}
LITE_BLOCK = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
FOLLOWS: dict[type[nn.Module], dict[str, str]] = {
    **dict.fromkeys((ResNet, BasicBlock, Bottleneck), RESNET),
    efficientnet_lite.Block: LITE_BLOCK,
    efficientnet_lite.EfficientNetLite: {"_conv_stem": "_bn0", "_conv_head": "_bn1"},
}
"""The normalisation after each convolution, by their names, of the kinds of modules that have them."""


def folded(network: Module) -> Module:
    """Fold the batch normalisation of the network, in place, into the convolution before; return the network.

    For evaluation only; results differ in the last digits. Pre-activation networks and those without batch
    normalisation stay as they are.
    """
    for module in network.modules():
        if type(module) in FOLLOWS:
            _fold_members(module, FOLLOWS[type(module)])
    return network


def _fold_members(module: nn.Module, follows: dict[str, str]) -> None:
    for convolution, normalisation in follows.items():
        if hasattr(module, convolution):
            fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, normalisation))
            setattr(module, convolution, fused)
            setattr(module, normalisation, nn.Identity())
    shortcut = getattr(module, "downsample", None)
    if shortcut is not None:
        module.downsample = nn.Sequential(fuse_conv_bn_eval(shortcut[0], shortcut[1]), nn.Identity())
