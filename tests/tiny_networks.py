"""Small networks with random weights and pictures for them, shared by the tests of the networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from asmk_engine.networks.checkpoints import save_checkpoint
from asmk_engine.networks.composed.checkpoints import save_composed_checkpoint
from asmk_engine.networks.composed.network import ComposedNetwork, build_composed
from asmk_engine.networks.local import LocalNetwork
from asmk_engine.networks.local_options import LocalOptions

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
DELF: dict[str, Any] = {"attention": "learned", "smoothing": 1, "reduction": "post"}
PLACES = 13  # of SqueezeNet: with 8 places skipped, 128 channels at stride 4 are left


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with random weights and statistics that keep a map of about the size it had; ready to describe."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(shape: torch.Size, least: float, most: float) -> torch.Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64) * (most - least) + least

    with torch.no_grad():
        for key, value in module.state_dict().items():
            if not value.is_floating_point():
                continue
            if value.ndim == 4:
                spread = (6 / value[0].numel()) ** 0.5
                value.copy_(uniform(value.shape, -spread, spread))
            elif key.endswith("running_var") or (key.endswith("weight") and value.ndim == 1):
                value.copy_(uniform(value.shape, 0.5, 1.5))
            else:
                value.copy_(uniform(value.shape, -0.2, 0.2))
    return module.eval()


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """The tensors of a module in float64, by their names."""
    return {key: value.double().numpy() for key, value in module.state_dict().items()}


def tiny_options(**options: object) -> LocalOptions:
    """Options of a network that describes an image of 96 pixels in a few milliseconds."""
    return LocalOptions(**({"backbone": "squeezenet1_1", "skip": 8, "dim": 8} | options))  # type: ignore[arg-type]


def tiny_network(seed: int = 0, **options: object) -> LocalNetwork:
    """A local network with random weights."""
    network = LocalNetwork(tiny_options(**options))
    randomised(network, seed)
    return network


def tiny_checkpoint(path: Path, seed: int = 0, **options: object) -> str:
    """A file of `tiny_network`, by its path as text."""
    save_checkpoint(path, tiny_network(seed, **options), {"made": "for a test"})
    return str(path)


def tiny_composed(name: str, seed: int = 0, **switches: object) -> ComposedNetwork:
    """A composed network on SqueezeNet with random weights everywhere, its exponents 2.5."""
    network = build_composed(name, "squeezenet1_1", seed, **switches)
    randomised(network, seed)
    for key, tensor in network.named_parameters():
        if key.endswith("exponent"):
            tensor.data.fill_(2.5)
    return network.requires_grad_(False)


def tiny_composed_checkpoint(path: Path, name: str, seed: int = 0, **switches: object) -> str:
    """A file of `tiny_composed`, by its path as text."""
    save_composed_checkpoint(path, tiny_composed(name, seed, **switches), {"made": "for a test"})
    return str(path)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """[height, width, 3] uint8: smooth noise with something in it everywhere."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3)).astype(np.float64)
    fine = rng.integers(-40, 41, (height, width, 3))
    rows, columns = np.arange(height) // 8, np.arange(width) // 8
    return np.clip(coarse[rows][:, columns] + fine, 0, 255).astype(np.uint8)
