"""Folding of batch normalisation into the preceding convolution: the same function with one layer fewer."""

from __future__ import annotations

from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from asmk_engine.networks.resnet import BasicBlock, Bottleneck, ResNet

Module = TypeVar("Module", bound=nn.Module)
FOLLOWS = {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3"}


def folded(network: Module) -> Module:
    """Fold the batch normalisation of the network's ResNets, in place; return the network.

    For evaluation only; results differ in the last digits. Pre-activation networks and those without batch
    normalisation stay as they are.
    """
    for module in network.modules():
        if isinstance(module, ResNet | BasicBlock | Bottleneck):
            _fold_members(module)
    return network


def _fold_members(module: nn.Module) -> None:
    for convolution, normalisation in FOLLOWS.items():
        if hasattr(module, convolution):
            fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, normalisation))
            setattr(module, convolution, fused)
            setattr(module, normalisation, nn.Identity())
    shortcut = getattr(module, "downsample", None)
    if shortcut is not None:
        module.downsample = nn.Sequential(fuse_conv_bn_eval(shortcut[0], shortcut[1]), nn.Identity())
