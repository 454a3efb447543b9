"""The local branch of DELG as a network of local descriptors: the early layers, the codes and their scores."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.errors import InputError
from asmk_engine.networks.backbone import Backbone
from asmk_engine.networks.backbones import build_backbone
from asmk_engine.networks.composed.delg import DelgHead, DelgLocalBranch
from asmk_engine.networks.composed.network import ComposedNetwork, ComposedOptions
from asmk_engine.networks.efficientnet_lite_plan import SCALING
from asmk_engine.networks.local import unit_length
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.networks.resnet import DEPTHS

EARLY_SKIP = {**dict.fromkeys(DEPTHS, 1), "squeezenet1_1": 5, **dict.fromkeys(SCALING, 2)}
"""The `skip` with which a backbone consists of its early layers."""


def local_options(options: ComposedOptions) -> LocalOptions:
    """Return the options of the local branch of a network of DELG; raises InputError for another network."""
    if options.network != "delg" or options.backbone not in EARLY_SKIP:
        raise InputError(
            f"{options.network} on {options.backbone} has no local branch; give a network of delg on one of "
            f"{', '.join(EARLY_SKIP)}"
        )
    code: int = options.head.code  # type: ignore[attr-defined]
    return LocalOptions(
        options.backbone,
        EARLY_SKIP[options.backbone],
        attention="learned",
        smoothing=1,
        reduction="post",
        dim=code,
        mean=options.mean,
        std=options.std,
    )


class DelgLocalNetwork(nn.Module):
    """The early layers and the local branch of a network of DELG, with the interface of `LocalNetwork`."""

    def __init__(self, whole: ComposedNetwork) -> None:
        super().__init__()
        self.options = local_options(whole.options)
        self.backbone: Backbone = build_backbone(self.options.backbone, self.options.skip)
        wanted, state = self.backbone.state_dict().keys(), whole.backbone.state_dict()
        self.backbone.load_state_dict({key: state[key] for key in wanted})
        if not isinstance(whole.head, DelgHead):
            raise InputError(f"{whole.options.network} has no local branch; give a network of delg")
        self.branch: DelgLocalBranch = whole.head.local_branch

    @property
    def dim(self) -> int:
        """Number of dimensions of a descriptor."""
        return self.options.dim

    def maps(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return map 4 [B, C4, h, w] and the scores [B, h, w] of its reconstruction."""
        found = self.backbone(pixels)
        return found, self.branch.scored(found)[1]

    def reduce(self, locations: torch.Tensor) -> torch.Tensor:
        """Return the codes [..., code] of locations [..., C4] of map 4, of unit length."""
        encoder = self.branch.encoder
        return unit_length(functional.linear(locations, encoder.weight.flatten(1), encoder.bias))
