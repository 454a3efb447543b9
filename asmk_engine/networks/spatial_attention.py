"""What networks of global descriptors attend to, at one scale: attention of their layers, or norms of activations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from asmk_engine.networks.backbone import Backbone
from asmk_engine.networks.composed.network import ComposedNetwork
from asmk_engine.networks.composed.resampling import resampled
from asmk_engine.networks.devices import automatic_precision
from asmk_engine.networks.global_network import GlobalNetwork, rescaled
from asmk_engine.networks.local import LocalNetwork, norm_attention
from asmk_engine.networks.locations import places
from asmk_engine.networks.pooling import place_weights
from asmk_engine.networks.spatial_map import SpatialMap


def spatial_attention(
    network: nn.Module, pixels: torch.Tensor, scale: float, precision: str = "fp32"
) -> tuple[list[SpatialMap], tuple[int, int]]:
    """Return the maps of attention of normalised pixels [B, 3, H, W], and the sides (h, w) they were resampled to.

    network  a `ComposedNetwork`, `GlobalNetwork` or `LocalNetwork`; the list is empty if it has no such attention
    scale    the image scale; an image that has no location at it is enlarged until it has one
    """
    part = _at_scale(network, pixels, scale)
    with automatic_precision(pixels.device, precision):
        found = _maps_of(network, part)
    return found, (part.shape[-2], part.shape[-1])


def activation_norms(
    network: nn.Module, pixels: torch.Tensor, scale: float, precision: str = "fp32"
) -> tuple[list[SpatialMap], tuple[int, int]]:
    """Return the Euclidean norms of the locations of map 5, where `spatial_attention` returns attention."""
    part = _at_scale(network, pixels, scale)
    with automatic_precision(pixels.device, precision):
        maps = network.maps(part)[1] if isinstance(network, ComposedNetwork) else _backbone(network)(part)
    return [SpatialMap("norms of activations", norm_attention(maps), "norm of the last map of the backbone")], (
        part.shape[-2],
        part.shape[-1],
    )


def scale_nearest_one(scales: Sequence[float]) -> float:
    """Return the scale that is nearest to 1 by its ratio, at which attention is shown."""
    return min(scales, key=lambda scale: abs(math.log(scale)))


def grid_of(
    network: nn.Module, one: SpatialMap, sides: tuple[int, int], whole: tuple[int, int]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return x and y of the first location of a map in pixels of the image before resampling, and the distances.

    sides, whole  height and width of the resampled image and of the image before
    """
    grid = _EarlyGrid(_backbone(network)) if one.level == 4 else _backbone(network)
    x, y, _ = places(grid, (1, 1), sides, whole)[0].tolist()
    step_y, step_x = (grid.stride * before / after for before, after in zip(whole, sides, strict=True))
    return (x, y), (step_x, step_y)


class _EarlyGrid:
    """The locations of map 4 of a backbone."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone, self.stride = backbone, backbone.stride // 2

    def offset_of(self, side: int) -> float:
        """Return the centre of the first location along a side of this many pixels."""
        return self._backbone.early_offset_of(side)


def _backbone(network: nn.Module) -> Backbone:
    found: Backbone = network.backbone  # type: ignore[assignment]
    return found


def _at_scale(network: nn.Module, pixels: torch.Tensor, scale: float) -> torch.Tensor:
    least = _backbone(network).least_side
    if isinstance(network, ComposedNetwork):
        return resampled(pixels, [scale], least, network.options.kind.resampling)[0]
    return rescaled(pixels, [scale], least)[0]


def _maps_of(network: nn.Module, pixels: torch.Tensor) -> list[SpatialMap]:
    if isinstance(network, ComposedNetwork):
        early = network.backbone.early(pixels)
        map4 = network.head.middle(early)
        return network.head.attention_maps(early, map4, network.backbone.late(map4))
    if isinstance(network, LocalNetwork):
        return [SpatialMap("attention", network.maps(pixels)[1], "weight of the local descriptor")]
    if isinstance(network, GlobalNetwork) and network.options.pooling == "crow":
        weights = place_weights(network.backbone(pixels).float())
        return [SpatialMap("weights of locations", weights, "weight of the location")]
    return []
