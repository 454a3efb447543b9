"""Global descriptors, one vector per image: a backbone, a pooling and a whitening.

    pixels ──backbone──▶ map ──pooling──▶ unit vector ──whitening──▶ unit vector  ─┐ for each scale
                                                       combined over the scales ┴──projection──▶ descriptor

The GeM family (Radenović, Tolias and Chum, TPAMI 2018), the other poolings of its code, MAC, SPoC and R-MAC, and CroW.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.errors import DamagedError, InputError, MismatchError
from asmk_engine.networks.backbone import Backbone
from asmk_engine.networks.backbone_names import MOST_SKIP
from asmk_engine.networks.backbones import BACKBONES, build_backbone
from asmk_engine.networks.devices import automatic_precision
from asmk_engine.networks.local import LocalNetwork, rescale
from asmk_engine.networks.local_options import IMAGENET
from asmk_engine.networks.pooling import NORM_FLOOR, Pool, crow, gem, mac, over_norm, regional_vectors, rmac, spoc
from asmk_engine.networks.stored_names import from_stored, to_stored

POOLINGS: dict[str, Pool] = {"gem": gem, "spoc": spoc, "mac": mac, "rmac": rmac, "crow": crow}
REGIONAL = ("none", "sum", "whitened")
EXPONENTS = ("one", "channels")
GEM_SCALES = (1.0, 0.5**0.5, 0.5)
"""The scales of the GeM family without a whitening layer; the papers of the other poolings use only the first."""
WHITENED_SCALES = (1.0, 2.0**0.5, 0.5**0.5)
"""The scales of the GeM family with a whitening layer."""

MOST_DIMENSIONS = 8192


@dataclass(frozen=True)
class GlobalOptions:
    """The options of a global network; raises InputError for invalid values.

    backbone         name in `BACKBONES`
    skip             number of last parts of the backbone that are left out
    pooling          name in `POOLINGS`
    exponents        of GeM: `one` p for all channels, or `channels`: one p per channel
    local_whitening  whether a linear layer is applied to every location before pooling
    regional         `none`; `sum`: the squares of R-MAC are pooled separately, each to unit length, and summed;
                     `whitened`: a linear layer and another normalisation to unit length before the sum
    whitening        dimensions of the linear layer after the pooling, 0 for none
    projection       dimensions of the projection of the final descriptor, learned separately (PCA, pairs), 0 for none
    scales           image scales the network is meant for; empty: those of the GeM family
    mean, std        mean and standard deviation of the pixels, RGB
    """

    backbone: str
    skip: int = 0
    pooling: str = "gem"
    exponents: str = "one"
    local_whitening: bool = False
    regional: str = "none"
    whitening: int = 0
    projection: int = 0
    scales: tuple[float, ...] = ()
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]

    def __post_init__(self) -> None:
        choices = {
            "backbone": tuple(BACKBONES),
            "pooling": tuple(POOLINGS),
            "exponents": EXPONENTS,
            "regional": REGIONAL,
        }
        for key, allowed in choices.items():
            if getattr(self, key) not in allowed:
                raise InputError(f"{key} is {getattr(self, key)!r}; choose one of {', '.join(allowed)}")
        if self.regional != "none" and self.pooling in ("rmac", "crow"):
            raise InputError(f"regional is {self.regional!r}; {self.pooling} has no regions; choose gem, mac or spoc")
        most = {"skip": MOST_SKIP[self.backbone], "whitening": MOST_DIMENSIONS, "projection": MOST_DIMENSIONS}
        for key, limit in most.items():
            if not 0 <= getattr(self, key) <= limit:
                raise InputError(f"{key} is {getattr(self, key)}; expected 0 (none) to {limit}")
        if not all(0.01 <= scale <= 8 for scale in self.scales):
            raise InputError(f"scales are {list(self.scales)}; expected numbers from 0.01 to 8")

    @property
    def own_scales(self) -> tuple[float, ...]:
        """The scales the network is meant for: its own, else those of the GeM family, with or without whitening."""
        return self.scales or (WHITENED_SCALES if self.whitening else GEM_SCALES)

    def to_json(self) -> str:
        """Return the options as one line of JSON."""
        return json.dumps(to_stored(asdict(self)), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: object) -> GlobalOptions:
        """Read the options from a line of JSON; raises DamagedError, in which `where` names the file."""
        try:
            content: dict[str, Any] = from_stored(json.loads(text))
            lists = {key: tuple(float(value) for value in content.pop(key)) for key in ("mean", "std", "scales")}
            if len(lists["mean"]) != 3 or len(lists["std"]) != 3:
                raise ValueError("mean and std do not have three values each")
            return cls(**content, **lists)  # type: ignore[arg-type]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError) as error:
            raise DamagedError(f"{where}: its network options are not readable ({error}); get it again") from None


class GlobalNetwork(nn.Module):
    """A backbone with pooling and whitening; see `GlobalOptions`. A new network has random weights and p = 3."""

    def __init__(self, options: GlobalOptions, backbone: Backbone | None = None) -> None:
        super().__init__()
        self.options = options
        self.backbone = build_backbone(options.backbone, options.skip) if backbone is None else backbone
        channels = self.backbone.channels
        exponents = channels if options.exponents == "channels" else 1
        self.exponent = nn.Parameter(torch.full((exponents,), 3.0)) if options.pooling == "gem" else None
        self.local_whitening = nn.Linear(channels, channels) if options.local_whitening else None
        self.regional_whitening = nn.Linear(channels, channels) if options.regional == "whitened" else None
        self.whitening = nn.Linear(channels, options.whitening) if options.whitening else None
        whitened = options.whitening or channels
        self.projection = nn.Linear(whitened, options.projection) if options.projection else None

    @property
    def dim(self) -> int:
        """Number of dimensions of a descriptor."""
        return self.options.projection or self.options.whitening or self.backbone.channels

    @property
    def scale_power(self) -> float:
        """Power of the mean over scales: p of GeM without whitening or regions, else 1. Source: the GeM code."""
        plain = self.options.whitening == 0 and self.options.regional == "none" and self.options.exponents == "one"
        return self.exponent.item() if self.exponent is not None and plain else 1.0

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return unit vectors [B, D] of normalised pixels [B, 3, H, W] at one scale, without projection."""
        return self.pooled(self.backbone(pixels))

    def pooled(self, maps: torch.Tensor) -> torch.Tensor:
        """Return unit vectors [B, D] of feature maps [B, C, h, w]: pooled, normalised, whitened, normalised again."""
        if self.local_whitening is not None:
            maps = self.local_whitening(maps.movedim(1, -1)).movedim(-1, 1)
        vectors = over_norm(self._pool(maps))
        return vectors if self.whitening is None else over_norm(self.whitening(vectors))

    def _pool(self, maps: torch.Tensor) -> torch.Tensor:
        if self.options.regional == "none":
            return self._pool_one(maps)
        parts = regional_vectors(maps, self._pool_one)
        if self.regional_whitening is not None:
            parts = over_norm(self.regional_whitening(parts))
        return parts.sum(1)

    def _pool_one(self, maps: torch.Tensor) -> torch.Tensor:
        return POOLINGS[self.options.pooling](maps) if self.exponent is None else gem(maps, self.exponent)

    def descriptor(
        self, pixels: torch.Tensor, scales: Sequence[float] = (1.0,), precision: str = "fp32"
    ) -> torch.Tensor:
        """Return projected descriptors [B, D] float32 of unit length, combined over several scales.

        The vectors v of n scales become ((1/n) Σ v^p)^(1/p), with p = `scale_power`. Scales at which an image would
        have no location are skipped; an image too small at all of them is enlarged until it has one.
        Source: Radenović, Tolias and Chum, TPAMI 2018, §5.2 and its code.

        precision  precision of the backbone: a name in `devices.PRECISIONS`
        """
        found = []
        for resampled in rescaled(pixels, scales, self.backbone.least_side):
            with automatic_precision(pixels.device, precision):
                maps = self.backbone(resampled)
            found.append(self.pooled(maps.float()))
        vectors = functional.normalize(_power_mean(torch.stack(found), self.scale_power), dim=-1)
        return vectors if self.projection is None else functional.normalize(self.projection(vectors), dim=-1)


def _power_mean(vectors: torch.Tensor, power: float) -> torch.Tensor:
    """Return ((1/n) Σ v^p)^(1/p) of vectors [n, B, D], which must be non-negative unless p is 1."""
    if power == 1:
        return vectors.mean(0)
    greatest = vectors.amax(0).clamp(min=torch.finfo(vectors.dtype).tiny)  # without it high powers underflow to 0
    return ((vectors / greatest) ** power).mean(0) ** (1 / power) * greatest


def with_projection(
    network: GlobalNetwork, mean: torch.Tensor, matrix: torch.Tensor, where: object, **changes: Any
) -> GlobalNetwork:
    """Return a network that projects its descriptors x to P (x - m), normalised; it shares the other layers.

    mean, matrix  m [C] and P [D, C], float64
    where         name of the source in error messages
    changes       options to replace

    Raises MismatchError for another number of dimensions; InputError if the network already has a projection, or if
    a value is not finite.
    """
    if network.projection is not None:
        raise InputError(f"{where}: the network already has a projection; give the network without one")
    if matrix.ndim != 2 or matrix.shape[1] != network.dim or mean.shape != (network.dim,):
        found = f"{list(mean.shape)} and {list(matrix.shape)}"
        raise MismatchError(
            f"{where}: the projection's mean and matrix are {found}, but descriptors have {network.dim} dimensions; "
            "learn it from descriptors of this network"
        )
    if not (torch.isfinite(mean).all() and torch.isfinite(matrix).all()):
        raise InputError(f"{where}: the projection contains NaN or infinity; learn it again")
    projected = GlobalNetwork(replace(network.options, projection=len(matrix), **changes), network.backbone)
    layer = {"projection.weight": matrix.float(), "projection.bias": (-matrix @ mean).float()}
    projected.load_state_dict({**network.state_dict(), **layer})
    return projected.eval()


def rescaled(pixels: torch.Tensor, scales: Sequence[float], least_side: int) -> list[torch.Tensor]:
    """Return pixels [B, 3, H, W] at each scale whose shorter side is at least `least_side`; if none, enlarged to it."""
    shorter = min(pixels.shape[-2:])
    usable = [scale for scale in scales if int(shorter * scale) >= least_side]
    if usable:
        return [rescale(pixels, scale) for scale in usable]
    size = [max(side, least_side) for side in pixels.shape[-2:]]
    return [functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)]


def how_descriptor(
    network: LocalNetwork, pixels: torch.Tensor, scales: Sequence[float], precision: str = "fp32"
) -> torch.Tensor:
    """Return HOW's global descriptors [B, D] of unit length, over the scales at which there is a location.

    Source: Tolias, Jenicek and Chum, ECCV 2020, §3.3: the sum over scales and locations of score times descriptor.
    """
    total = torch.zeros((), device=pixels.device)
    for resampled in rescaled(pixels, scales, network.backbone.least_side):
        with automatic_precision(pixels.device, precision):
            maps, scores = network.maps(resampled)
        descriptors = network.reduce(maps.float().movedim(1, -1))
        total = total + torch.einsum("bhwd,bhw->bd", descriptors, scores.float())
    return functional.normalize(total / (total.norm(dim=1, keepdim=True) + NORM_FLOOR), dim=-1)
