"""The global networks that can be trained: a pooling or a composed network by name, and what both have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from asmk_engine.errors import InputError
from asmk_engine.networks.composed.checkpoints import (
    HeadCompletion,
    open_composed_checkpoint,
    open_composed_network,
    save_composed_checkpoint,
)
from asmk_engine.networks.composed.network import ComposedNetwork, seeded_network
from asmk_engine.networks.composed.table import NETWORKS
from asmk_engine.networks.devices import automatic_precision
from asmk_engine.networks.global_checkpoints import (
    Completion,
    open_global_checkpoint,
    open_global_network,
    save_global_checkpoint,
)
from asmk_engine.networks.global_network import POOLINGS, GlobalNetwork
from asmk_engine.storage.user_files import file_sha256

TrainedNetwork = GlobalNetwork | ComposedNetwork
TRAINABLE = (*POOLINGS, *NETWORKS)
"""The names of the networks, which are those of their extractors."""


@dataclass(frozen=True)
class StartOptions:
    """What completes the weights a training starts with.

    name      name in `TRAINABLE`
    dim       dimensions of a linear layer after a pooling, drawn at random; 0 for none
    switches  of the head of a composed network, if it is drawn at random
    seed      seed of everything that is drawn at random
    """

    name: str
    dim: int = 0
    switches: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


def open_network(path: Path, options: StartOptions) -> tuple[TrainedNetwork, dict[str, Any]]:
    """Return the network that a training starts with and the origin of its weights.

    path  a network of this name, or anything with a backbone: its head is then drawn at random

    Raises InputError for an unknown name, for options that a complete network contradicts and for a network with a
    projection, which the training would make wrong; and what the opening of files raises.
    """
    if options.name not in TRAINABLE:
        raise InputError(f"unknown network {options.name!r}; choose one of {', '.join(TRAINABLE)}")
    network, complete = (_composed if options.name in NETWORKS else _pooled)(path, options)
    if network.options.projection:
        raise InputError(
            f"{path}: the network has a projection that was learned from its vectors; train the network without it, "
            "and learn it again with `asmk-engine whiten-global`"
        )
    if complete and (options.switches or (options.dim and options.name in POOLINGS)):
        raise InputError(f"{path}: a complete network has its own head; leave out --dim and --switch")
    return network, _origin(path, network, complete)


def _pooled(path: Path, options: StartOptions) -> tuple[GlobalNetwork, bool]:
    network, complete = open_global_network(path, Completion(options.name))
    if complete or not options.dim:
        return network, complete
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        whitened = GlobalNetwork(replace(network.options, whitening=options.dim), network.backbone)
    return whitened, complete


def _composed(path: Path, options: StartOptions) -> tuple[ComposedNetwork, bool]:
    network, complete = open_composed_network(path, HeadCompletion(options.name, options.seed))
    if complete or not (options.switches or options.dim):
        return network, complete
    switches = {**options.switches, **({"dim": options.dim} if options.dim else {})}
    head = type(network.options.head).from_content(switches)
    return seeded_network(replace(network.options, head=head), network.backbone), complete


def _origin(path: Path, network: TrainedNetwork, complete: bool) -> dict[str, Any]:
    """Return the origin that a file of this program has, else which weights these are."""
    if not complete:
        return {"backbone": network.options.backbone, "backbone_sha256": file_sha256(path)}
    opening = open_composed_checkpoint if isinstance(network, ComposedNetwork) else open_global_checkpoint
    return opening(path)[1] if path.suffix == ".safetensors" else {"weights_sha256": file_sha256(path)}


def save_network(path: Path, network: TrainedNetwork, origin: dict[str, Any]) -> str:
    """Write a trained network to a file; return its sha256."""
    if isinstance(network, GlobalNetwork):
        return save_global_checkpoint(path, network, origin)
    network.options = replace(network.options, untrained_seed=None)
    return save_composed_checkpoint(path, network, origin)


def unit_vectors(network: TrainedNetwork, pixels: torch.Tensor, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the unit vectors [B, D] float32 of normalised pixels [B, 3, H, W], and map 4, or of a pooling map 5.

    precision  of the backbone; what follows is computed in float32, as when a network describes images
    """
    with automatic_precision(pixels.device, precision):
        maps = (network.backbone(pixels),) if isinstance(network, GlobalNetwork) else network.maps(pixels)
    first, *rest = (one.float() for one in maps)
    if isinstance(network, GlobalNetwork):
        return network.pooled(first), first
    return functional.normalize(network.head(first, *rest), dim=-1), first
