"""Extraction of the strongest locations of an image over many scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from asmk_engine.networks.devices import automatic_precision
from asmk_engine.networks.local import LocalNetwork, LocalOptions, rescale

SCALES = (2.0, 1.414, 1.0, 0.707, 0.5, 0.353, 0.25)
"""The scales of HOW at test time, in the order of its code, which decides ties."""


@dataclass(frozen=True)
class LocalDescriptors:
    """The strongest locations of one image over all scales, strongest first.

    descriptors  [n, D] float32
    scores       [n] float32
    positions    [n, 2] float32: x and y in pixels of the described image; the centre of the first pixel is 0, 0
    sizes        [n] float32: side of the location in those pixels
    """

    descriptors: torch.Tensor
    scores: torch.Tensor
    positions: torch.Tensor
    sizes: torch.Tensor


def normalise_pixels(pixels: torch.Tensor, options: LocalOptions) -> torch.Tensor:
    """Return (pixels / 255 - mean) / std of [B, H, W, 3] uint8, as [B, 3, H, W] float32, channels last in memory."""
    mean = torch.tensor(options.mean, device=pixels.device)
    std = torch.tensor(options.std, device=pixels.device)
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def describe(
    network: LocalNetwork,
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
    places = torch.cat([part.places for part in found])
    order = scores.sort(dim=1, descending=True, stable=True)[1][:, :count]
    return [
        _select(network, maps[image], scores[image], places, order[image], least_score) for image in range(len(pixels))
    ]


@dataclass(frozen=True)
class _DescribedScale:
    """One scale of a batch: locations [B, m, C], scores [B, m], and x, y, side [m, 3], row by row."""

    locations: torch.Tensor
    scores: torch.Tensor
    places: torch.Tensor


def _at_scale(network: LocalNetwork, pixels: torch.Tensor, scale: float, precision: str) -> _DescribedScale:
    resampled = rescale(pixels, scale)
    if min(resampled.shape[-2:]) < network.backbone.least_side:
        none = torch.zeros(len(pixels), 0, network.backbone.channels, device=pixels.device)
        return _DescribedScale(none, none[:, :, 0], torch.zeros(0, 3, device=pixels.device))
    with automatic_precision(pixels.device, precision):
        maps, scores = network.maps(resampled)
    places = _places(network, maps.shape[-2:], resampled.shape[-2:], pixels.shape[-2:]).to(pixels.device)
    return _DescribedScale(maps.movedim(1, -1).flatten(1, 2), scores.flatten(1).float(), places)


def _places(network: LocalNetwork, locations: torch.Size, resampled: torch.Size, whole: torch.Size) -> torch.Tensor:
    """Return x, y and side of every location in pixels of the image before resampling, [h · w, 3], row by row.

    A location is at the centre of its receptive field: offset + stride · location, in pixels of the resampled image.
    """
    factors = [before / after for before, after in zip(whole, resampled, strict=True)]
    ys, xs = (
        (network.backbone.offset_of(side) + network.backbone.stride * torch.arange(count) + 0.5) * factor - 0.5
        for side, count, factor in zip(resampled, locations, factors, strict=True)
    )
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    side = torch.full_like(x, network.backbone.stride * math.sqrt(factors[0] * factors[1]))
    return torch.stack([x, y, side], -1).flatten(0, 1)


def _select(
    network: LocalNetwork,
    locations: torch.Tensor,
    scores: torch.Tensor,
    places: torch.Tensor,
    order: torch.Tensor,
    least: float | None,
) -> LocalDescriptors:
    if least is not None:
        order = order[scores[order] >= least]
    kept = scores[order]
    if network.options.attention == "norm" and len(kept):
        kept = kept / scores.max()
    return LocalDescriptors(network.reduce(locations[order].float()), kept, places[order, :2], places[order, 2])
