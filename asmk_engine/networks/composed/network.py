"""A composed network: a backbone, a head, and the descriptor of an image over several scales.

pixels ─early layers─▶ map 4 ─head.middle─▶ map 4 ─late layers─▶ map 5 ─head(map 4, map 5)─▶ vector ─L2─▶ descriptor
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.errors import DamagedError, InputError
from asmk_engine.networks.backbone import Backbone
from asmk_engine.networks.backbones import BACKBONES, build_backbone
from asmk_engine.networks.composed.head import Head
from asmk_engine.networks.composed.resampling import resampled
from asmk_engine.networks.composed.switches import HeadOptions
from asmk_engine.networks.composed.table import NetworkKind, network_kind
from asmk_engine.networks.devices import automatic_precision
from asmk_engine.networks.efficientnet_lite_plan import PIXELS, SCALING
from asmk_engine.networks.global_network import MOST_DIMENSIONS
from asmk_engine.networks.local_options import IMAGENET, check_rgb
from asmk_engine.networks.stored_names import from_stored, to_stored

MOST_SEED = 2**31 - 1
Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class ComposedOptions:
    """The options of a composed network; raises InputError for invalid values.

    network        name in `table.NETWORKS`
    backbone       name in `BACKBONES`; the whole of it is used
    head           switches of the head
    projection     dimensions of the projection of the final descriptor, learned separately, 0 for none
    scales         image scales the network is meant for; empty: those of its official code
    mean, std      mean and standard deviation of the pixels, RGB
    untrained_seed the seed from which a head that was never trained was drawn; None for a trained one
    """

    network: str
    backbone: str
    head: HeadOptions
    projection: int = 0
    scales: tuple[float, ...] = ()
    mean: Rgb = IMAGENET[0]
    std: Rgb = IMAGENET[1]
    untrained_seed: int | None = None

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise InputError(f"unknown backbone {self.backbone!r}; choose one of {', '.join(BACKBONES)}")
        if type(self.head) is not self.kind.options:
            raise InputError(f"{self.network} takes {self.kind.options.__name__}, not {type(self.head).__name__}")
        if type(self.projection) is not int or not 0 <= self.projection <= MOST_DIMENSIONS:
            raise InputError(f"projection is {self.projection!r}; expected 0 (none) to {MOST_DIMENSIONS}")
        if not all(0.01 <= scale <= 8 for scale in self.scales):
            raise InputError(f"scales are {list(self.scales)}; expected numbers from 0.01 to 8")
        for key in ("mean", "std"):
            check_rgb(key, getattr(self, key))
        seed = self.untrained_seed
        if seed is not None and (type(seed) is not int or not 0 <= seed <= MOST_SEED):
            raise InputError(f"untrained_seed is {seed!r}; expected a whole number, 0 to {MOST_SEED}, or none")

    @property
    def kind(self) -> NetworkKind:
        """The row of the network in the table."""
        return network_kind(self.network)

    @property
    def skip(self) -> int:
        """Number of last parts of the backbone that are left out: none."""
        return 0

    @property
    def own_scales(self) -> tuple[float, ...]:
        """The scales the network is meant for: its own, else those of the official code."""
        return self.scales or self.kind.scales

    def to_json(self) -> str:
        """Return the options as one line of JSON."""
        return json.dumps(to_stored(asdict(self)), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: object) -> ComposedOptions:
        """Read the options from a line of JSON; raises DamagedError, in which `where` names the file."""
        try:
            content: dict[str, Any] = from_stored(json.loads(text))
            lists = {key: tuple(float(value) for value in content.pop(key)) for key in ("mean", "std", "scales")}
            if len(lists["mean"]) != 3 or len(lists["std"]) != 3:
                raise ValueError("mean and std do not have three values each")
            head = network_kind(content["network"]).options.from_content(content.pop("head"))
            return cls(**content, **lists, head=head)  # type: ignore[arg-type]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError) as error:
            raise DamagedError(f"{where}: its network options are not readable ({error}); get it again") from None


class ComposedNetwork(nn.Module):
    """A backbone with a head; see `ComposedOptions`. A new network has random weights."""

    def __init__(self, options: ComposedOptions, backbone: Backbone | None = None) -> None:
        super().__init__()
        self.options = options
        self.backbone = build_backbone(options.backbone) if backbone is None else backbone
        channels = (self.backbone.early_channels, self.backbone.channels)
        self.head: Head = options.kind.head(channels, options.head)
        self.projection = nn.Linear(self.head.dim, options.projection) if options.projection else None

    @property
    def dim(self) -> int:
        """Number of dimensions of a descriptor."""
        return self.options.projection or self.head.dim

    @property
    def exponents_are_positive(self) -> bool:
        """Whether every learned GeM exponent is greater than 0."""
        return all(bool((one > 0).all()) for key, one in self.named_parameters() if key.endswith("exponent"))

    def mark_trained(self) -> None:
        """Record in the options that the head is no longer the random one of its seed."""
        self.options = dataclasses.replace(self.options, untrained_seed=None)

    def maps(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return map 4 [B, C4, h4, w4], after `head.middle`, and map 5 [B, C5, h5, w5] of normalised pixels."""
        map4 = self.head.middle(self.backbone.early(pixels))
        return map4, self.backbone.late(map4)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return unit vectors [B, D] of normalised pixels [B, 3, H, W] at one scale, without projection."""
        return functional.normalize(self.head(*self.maps(pixels)), dim=-1)

    def descriptor(
        self, pixels: torch.Tensor, scales: Sequence[float] = (1.0,), precision: str = "fp32"
    ) -> torch.Tensor:
        """Return projected descriptors [B, D] float32 of unit length, combined over several scales.

        The unit vectors of all scales are averaged, as all official codes do; with a power p, that of DIR, they become
        sign(m) |m|^(1/p), m = mean of sign(v) |v|^p. Scales at which an image would have no location are skipped; an
        image too small at all of them is enlarged until it has one.

        precision  precision of the convolutions: a name in `devices.PRECISIONS`; what follows a pooling is float32
        """
        kind, found = self.options.kind, []
        for part in resampled(pixels, scales, self.backbone.least_side, kind.resampling):
            with automatic_precision(pixels.device, precision):
                vectors = self.head(*self.maps(part))
            found.append(functional.normalize(vectors.float(), dim=-1))
        joint = functional.normalize(_signed_mean(torch.stack(found), kind.scale_power), dim=-1)
        return joint if self.projection is None else functional.normalize(self.projection(joint), dim=-1)


def _signed_mean(vectors: torch.Tensor, power: float) -> torch.Tensor:
    """Return the mean of vectors [n, B, D] over n, or its signed power; of one vector, the vector itself."""
    if power == 1 or len(vectors) == 1:
        return vectors.mean(0)
    mean = (vectors.sign() * vectors.abs() ** power).mean(0)
    return mean.sign() * mean.abs() ** (1 / power)


def default_options(network: str, backbone: str, **switches: Any) -> ComposedOptions:
    """Return the options of a network on a backbone, with these switches of its head and the backbone's own pixels.

    Raises InputError for an unknown network, backbone or switch.
    """
    mean, std = PIXELS if backbone in SCALING else IMAGENET
    head = network_kind(network).options.from_content(switches)
    return ComposedOptions(network, backbone, head, mean=_rgb(mean), std=_rgb(std))


def _rgb(values: Sequence[float]) -> Rgb:
    red, green, blue = values
    return red, green, blue


def build_composed(network: str, backbone: str, seed: int = 0, **switches: Any) -> ComposedNetwork:
    """Build a network with a head drawn at random from a seed, and a random backbone; see `default_options`."""
    options = default_options(network, backbone, **switches)
    return seeded_network(dataclasses.replace(options, untrained_seed=seed))


def seeded_network(options: ComposedOptions, backbone: Backbone | None = None) -> ComposedNetwork:
    """Return a network whose random weights are drawn from its `untrained_seed`, 0 if it has none.

    backbone  used instead of a random one; the head is the same for every backbone with the same channels
    """
    backbone = build_backbone(options.backbone) if backbone is None else backbone
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.untrained_seed or 0)
        return ComposedNetwork(options, backbone)
