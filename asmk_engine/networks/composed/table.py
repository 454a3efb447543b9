"""All composed networks by name: their heads, and how the official code describes images with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asmk_engine.errors import InputError
from asmk_engine.networks.composed.dolg import DolgHead, DolgOptions
from asmk_engine.networks.composed.head import Head
from asmk_engine.networks.composed.solar import SolarHead, SolarOptions
from asmk_engine.networks.composed.switches import HeadOptions

ROOT_HALF, ROOT_TWO = 0.5**0.5, 2.0**0.5
AROUND_ONE = (1.0, ROOT_TWO, ROOT_HALF)
FIVE_SCALES = (0.3535, 0.5, 0.7071, 1.0, 1.4142)
WHOLE = 16384
"""The longer side up to which images are not shrunk, where the official code never shrinks them."""


@dataclass(frozen=True)
class NetworkKind:
    """One row of the table.

    title        name of the network, with its source
    head         class of the head: `head((C4, C5), options)`
    options      class of its switches
    scales       image scales of the official code at test time
    resampling   how it resamples images: a name in `resampling.RESAMPLINGS`
    scale_power  power of the mean over scales; 1 for the mean
    max_side     images with a longer side are shrunk to it
    parameters   number of parameters of the head on ResNet-101 with default switches, from the layers of the paper
    """

    title: str
    head: Callable[[tuple[int, int], Any], Head]
    options: type[HeadOptions]
    scales: tuple[float, ...] = AROUND_ONE
    resampling: str = "tensor"
    scale_power: float = 1.0
    max_side: int = 1024
    parameters: int = 0


NETWORKS: dict[str, NetworkKind] = {
    "solar": NetworkKind("SOLAR (Ng et al., ECCV 2020)", SolarHead, SolarOptions, parameters=13_648_385),
    "dolg": NetworkKind(
        "DOLG (Yang et al., ICCV 2021)",
        DolgHead,
        DolgOptions,
        scales=FIVE_SCALES,
        resampling="linear",
        max_side=WHOLE,
        parameters=4_200_450,
    ),
}
"""The networks by the names of their extractors."""


def network_kind(name: str) -> NetworkKind:
    """Return the row of a network; raises InputError, which lists the names, for an unknown one."""
    if name not in NETWORKS:
        raise InputError(f"unknown network {name!r}; choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name]
