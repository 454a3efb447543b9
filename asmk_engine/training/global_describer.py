"""A trained global network that describes the images of a training of another network.

Source: Lee et al., CVPR 2022, section 4.4: hard negatives are selected with the help of trained global descriptors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from asmk_engine.networks.composed.checkpoints import composed_of
from asmk_engine.networks.composed.network import ComposedNetwork
from asmk_engine.networks.global_checkpoints import network_or_tensors, torch_content
from asmk_engine.networks.global_network import GlobalNetwork
from asmk_engine.networks.multiscale import normalise_pixels
from asmk_engine.training.photographs import place_network


class GlobalDescriber:
    """Describes images by a global network, as its extractor does: at its own scales, and projected.

    device  name of `choose_device`
    sha256  of the file of the network
    """

    def __init__(self, network: GlobalNetwork | ComposedNetwork, device: str, sha256: str = "") -> None:
        self._sha256 = sha256
        self.network = place_network(network.eval(), device).requires_grad_(False)

    def described(self) -> dict[str, Any]:
        """Return of which network this descriptor is, as JSON values."""
        options = self.network.options
        name = options.network if isinstance(self.network, ComposedNetwork) else options.pooling  # type: ignore[union-attr]
        return {"network": name, "dim": self.network.dim, "scales": list(options.own_scales), "sha256": self._sha256}

    @torch.no_grad()
    def vector(self, pixels: np.ndarray, precision: str) -> torch.Tensor:
        """Return the unit vector [D] float32 of an image, [h, w, 3] uint8."""
        network = self.network
        device = next(network.parameters()).device
        normalised = normalise_pixels(torch.from_numpy(pixels)[None].to(device), network.options)  # type: ignore[arg-type]
        return network.descriptor(normalised, network.options.own_scales, precision)[0]


def trained_global_network(path: Path) -> GlobalNetwork | ComposedNetwork | None:
    """Return the global network of a file; None for a file without one, or with a head that nobody trained.

    Raises what the readers of network files raise.
    """
    content = torch_content(path)
    if (composed := composed_of(path, content)) is not None:
        return composed if composed.options.untrained_seed is None else None
    found = network_or_tensors(path, content)
    return found if isinstance(found, GlobalNetwork) else None
