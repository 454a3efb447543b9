"""The ways in which the official codes resample images to several scales."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from asmk_engine.networks.locations import scaled_sides

Sides = tuple[int, int]


def resampled(pixels: torch.Tensor, scales: Sequence[float], least_side: int, rule: str) -> list[torch.Tensor]:
    """Return pixels [B, 3, H, W] at each scale whose shorter side is at least `least_side`; if none, enlarged to it.

    rule  a name in `RESAMPLINGS`
    """
    sides, resample = RESAMPLINGS[rule]
    whole = (pixels.shape[-2], pixels.shape[-1])
    sizes = [size for scale in scales if min(size := sides(whole, scale)) >= least_side]
    height, width = (max(side, least_side) for side in whole)
    return [pixels if size == whole else resample(pixels, size) for size in sizes or [(height, width)]]


def _rounded(sides: Sides, scale: float) -> Sides:
    """Return height and width at a scale, rounded to the nearest whole numbers, halves to even ones."""
    height, width = (max(1, round(side * scale)) for side in sides)
    return height, width


def bilinear(pixels: torch.Tensor, size: Sides) -> torch.Tensor:
    """Resample pixels [B, 3, H, W] by bilinear interpolation, corners not aligned, without antialiasing."""
    return functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)


def area(pixels: torch.Tensor, size: Sides) -> torch.Tensor:
    """Shrink pixels [B, 3, H, W] by averages over areas, as OpenCV's INTER_AREA; enlarge them by `bilinear`."""
    height, width = pixels.shape[-2:]
    if size[0] > height or size[1] > width:
        return bilinear(pixels, size)
    down, across = (overlaps(whole, part).to(pixels) for whole, part in ((height, size[0]), (width, size[1])))
    return down @ pixels @ across.T


def overlaps(whole: int, parts: int) -> torch.Tensor:
    """Return the share of each of `parts` equal parts that lies in each of `whole` pixels, [parts, whole] float64."""
    ratio = whole / parts
    found = torch.zeros(parts, whole, dtype=torch.float64)
    for part in range(parts):
        begin, end = part * ratio, min((part + 1) * ratio, whole)
        for pixel in range(math.floor(begin), min(math.ceil(end), whole)):
            found[part, pixel] = min(end, pixel + 1) - max(begin, pixel)
    return found / found.sum(1, keepdim=True)


Resample = Callable[[torch.Tensor, Sides], torch.Tensor]
RESAMPLINGS: dict[str, tuple[Callable[[Sides, float], Sides], Resample]] = {
    "tensor": (scaled_sides, bilinear),
    "linear": (_rounded, bilinear),
    "area": (_rounded, area),
}
"""How sides are rounded, and how pixels are resampled: `tensor` as the codes of the GeM family and of HOW, `linear` as
that of DOLG, `area` as that of CVNet. Normalised float pixels are resampled, so nothing is rounded to whole values."""
