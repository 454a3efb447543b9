"""Small networks with random weights, for rehearsals: they describe an image in milliseconds, with poor accuracy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from asmk_engine.networks.checkpoints import save_checkpoint
from asmk_engine.networks.composed.checkpoints import save_composed_checkpoint
from asmk_engine.networks.composed.network import ComposedNetwork, build_composed
from asmk_engine.networks.composed.table import NETWORKS
from asmk_engine.networks.global_checkpoints import save_global_checkpoint
from asmk_engine.networks.global_network import POOLINGS, GlobalNetwork, GlobalOptions
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.local_options import LocalOptions

BACKBONE, SKIP = "squeezenet1_1", 8
DIM = 32
ORIGIN = {"made": "at random, for a rehearsal"}


def save_stand_in(path: Path, extractor: str, seed: int = 0) -> str:
    """Write a random network for an extractor and return the sha256 of the file.

    extractor  `how`, `delf`, `how-global`, the name of a pooling or of a composed network, or `delg-local`

    The backbone is the first part of SqueezeNet 1.1, 128 channels at stride 4, for a composed network all of it; the
    same seed gives the same file.
    """
    if extractor.removesuffix("-local") in NETWORKS:
        return save_composed_checkpoint(path, _composed(extractor.removesuffix("-local"), seed), ORIGIN)
    if extractor in POOLINGS:
        whole = GlobalNetwork(GlobalOptions(BACKBONE, SKIP, pooling=extractor))
        _randomise(whole, seed)
        return save_global_checkpoint(path, whole, ORIGIN)
    learned = extractor == "delf"
    options = LocalOptions(
        BACKBONE, SKIP, dim=DIM, attention="learned" if learned else "norm", reduction="post" if learned else "network"
    )
    network = LocalNetwork(options)
    _randomise(network, seed)
    return save_checkpoint(path, network, ORIGIN)


def _composed(name: str, seed: int) -> ComposedNetwork:
    """Return a composed network that seems trained; its weights are those with which a training would begin."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_composed(name, BACKBONE, seed)
    network.options = dataclasses.replace(network.options, untrained_seed=None)
    return network.eval()


@torch.no_grad()
def _randomise(network: nn.Module, seed: int) -> None:
    """Draw the weights by the variance-preserving rule of He et al., ICCV 2015, and set the biases to 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.named_parameters():
        if tensor.ndim > 1:
            spread = (6 / tensor[0].numel()) ** 0.5
            tensor.copy_((2 * torch.rand(tensor.shape, generator=generator) - 1) * spread)
        elif name != "exponent":  # GeM's exponent stays 3
            tensor.zero_()
    network.eval()
