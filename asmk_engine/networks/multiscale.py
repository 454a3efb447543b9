"""Extraction of the strongest locations of an image over many scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from asmk_engine.networks.backbone import Backbone
from asmk_engine.networks.devices import automatic_precision
from asmk_engine.networks.local import rescale
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.networks.locations import SCALES, LocalDescriptors, places


class LocatingNetwork(Protocol):
    """What describes the locations of a map; see `LocalNetwork`."""

    @property
    def options(self) -> LocalOptions:
        """The options of the network."""
        ...

    @property
    def backbone(self) -> Backbone:
        """The backbone that makes the map."""
        ...

    def maps(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a map [B, C, h, w] with the channels of the backbone, and scores [B, h, w]."""
        ...

    def reduce(self, locations: torch.Tensor) -> torch.Tensor:
        """Return descriptors [..., D] of locations [..., C] of the map."""
        ...


def normalise_pixels(pixels: torch.Tensor, options: LocalOptions) -> torch.Tensor:
    """Return (pixels / 255 - mean) / std of [B, H, W, 3] uint8, as [B, 3, H, W] float32, channels last in memory."""
    mean = torch.tensor(options.mean, device=pixels.device)
    std = torch.tensor(options.std, device=pixels.device)
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def describe(
    network: LocatingNetwork,
    pixels: torch.Tensor,
    scales: Sequence[float] = SCALES,
    count: int = 1000,
    least_score: float | None = None,
    precision: str = "fp32",
) -> list[LocalDescriptors]:
    """Return the `count` strongest locations of each image of a batch, over all scales.

    pixels       [B, 3, H, W] normalised, images of one size
    least_score  drop locations whose attention is below this (DELF's score threshold)
    precision    precision of the backbone: a name in `devices.PRECISIONS`

    Locations are sorted by score; ties by scale, then by row and column. Scores of norm attention are divided by the
    largest of the image, as in the HOW code. Only the locations that are kept are reduced.
    """
    found = [_at_scale(network, pixels, scale, precision) for scale in scales]
    maps = torch.cat([part.locations for part in found], 1)
    scores = torch.cat([part.scores for part in found], 1)
    where = torch.cat([part.places for part in found]).numpy()
    order = scores.sort(dim=1, descending=True, stable=True)[1][:, :count]
    return [
        _select(network, maps[image], scores[image], where, order[image], least_score) for image in range(len(pixels))
    ]


@dataclass(frozen=True)
class _DescribedScale:
    """One scale of a batch: locations [B, m, C], scores [B, m], and on the CPU x, y, side [m, 3], row by row."""

    locations: torch.Tensor
    scores: torch.Tensor
    places: torch.Tensor


def _at_scale(network: LocatingNetwork, pixels: torch.Tensor, scale: float, precision: str) -> _DescribedScale:
    resampled = rescale(pixels, scale, network.options.side_multiple)
    if min(resampled.shape[-2:]) < network.backbone.least_side:
        none = torch.zeros(len(pixels), 0, network.backbone.channels, device=pixels.device)
        return _DescribedScale(none, none[:, :, 0], torch.zeros(0, 3))
    with automatic_precision(pixels.device, precision):
        maps, scores = network.maps(resampled)
    where = places(network.backbone, maps.shape[-2:], resampled.shape[-2:], pixels.shape[-2:])
    return _DescribedScale(maps.movedim(1, -1).flatten(1, 2), scores.flatten(1).float(), torch.from_numpy(where))


def _select(
    network: LocatingNetwork,
    locations: torch.Tensor,
    scores: torch.Tensor,
    where: np.ndarray,
    order: torch.Tensor,
    least: float | None,
) -> LocalDescriptors:
    if least is not None:
        order = order[scores[order] >= least]
    kept = scores[order]
    if network.options.attention == "norm" and len(kept):
        kept = kept / scores.max()
    found = where[order.cpu().numpy()]
    descriptors = network.reduce(locations[order].float())
    return LocalDescriptors(_array(descriptors), _array(kept), found[:, :2], found[:, 2])


def _array(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().float().cpu().numpy()
    return array
