"""All composed networks by name: their heads, and how the official code describes images with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asmk_engine.errors import InputError
from asmk_engine.networks.composed.agem import AgemHead, AgemOptions
from asmk_engine.networks.composed.cider import CiderHead, CiderOptions
from asmk_engine.networks.composed.cvnet import CvnetHead, CvnetOptions
from asmk_engine.networks.composed.delg import DelgHead, DelgOptions
from asmk_engine.networks.composed.dolg import DolgHead, DolgOptions
from asmk_engine.networks.composed.dplg import DplgHead, DplgOptions
from asmk_engine.networks.composed.gem_ap import GemApHead, GemApOptions
from asmk_engine.networks.composed.glam import GlamHead, GlamOptions
from asmk_engine.networks.composed.head import Head
from asmk_engine.networks.composed.solar import SolarHead, SolarOptions
from asmk_engine.networks.composed.switches import HeadOptions
from asmk_engine.networks.composed.token import TokenHead, TokenOptions

ROOT_HALF, ROOT_TWO = 0.5**0.5, 2.0**0.5
AROUND_ONE = (1.0, ROOT_TWO, ROOT_HALF)
ONE = (1.0,)
HALVES = (0.125**0.5, 0.5, ROOT_HALF, 1.0, ROOT_TWO)
FIVE = (0.3535, 0.5, 0.7071, 1.0, 1.4142)
WHOLE = 16384
"""The longer side up to which images are not shrunk, where the official code never shrinks them."""


@dataclass(frozen=True)
class NetworkKind:
    """One row of the table.

    title        name of the network, with its source
    head         class of the head: `head((C4, C5), options)`
    options      class of its switches
    parameters   number of parameters of the head on ResNet-50 and ResNet-101, by the layers of the paper
    scales       image scales of the official code at test time
    resampling   how it resamples images: a name in `resampling.RESAMPLINGS`
    scale_power  power of the mean over scales; 1 for the mean
    max_side     images with a longer side are shrunk to it
    """

    title: str
    head: Callable[[tuple[int, int], Any], Head]
    options: type[HeadOptions]
    parameters: int
    scales: tuple[float, ...] = AROUND_ONE
    resampling: str = "tensor"
    scale_power: float = 1.0
    max_side: int = 1024


NETWORKS: dict[str, NetworkKind] = {
    "agem": NetworkKind("AGeM (Gu, Li and Xie, arXiv 1811.00202)", AgemHead, AgemOptions, 4_460_545),
    "cider": NetworkKind("CiDeR (Song et al., CVPR 2024)", CiderHead, CiderOptions, 7_356_683),
    "cvnet": NetworkKind(
        "CVNet-Global (Lee et al., CVPR 2022)", CvnetHead, CvnetOptions, 4_196_353, resampling="area", max_side=WHOLE
    ),
    "delg": NetworkKind("DELG (Cao, Araujo and Sim, ECCV 2020)", DelgHead, DelgOptions, 4_985_985),
    "dolg": NetworkKind(
        "DOLG (Yang et al., ICCV 2021)", DolgHead, DolgOptions, 4_199_938, FIVE, resampling="linear", max_side=WHOLE
    ),
    "dplg": NetworkKind("DPLG (Hu and Bors, ICIP 2022)", DplgHead, DplgOptions, 18_032_896, HALVES),
    "gem-ap": NetworkKind(
        "GeM-AP (Revaud et al., ICCV 2019)", GemApHead, GemApOptions, 4_196_353, ONE, scale_power=3.0, max_side=WHOLE
    ),
    "glam": NetworkKind("GLAM (Song, Han and Avrithis, WACV 2022)", GlamHead, GlamOptions, 13_377_550),
    "solar": NetworkKind("SOLAR (Ng et al., ECCV 2020)", SolarHead, SolarOptions, 13_645_569),
    "token": NetworkKind("Token (Wu et al., AAAI 2022)", TokenHead, TokenOptions, 37_799_936),
}
"""The networks by the names of their extractors."""


def network_kind(name: str) -> NetworkKind:
    """Return the row of a network; raises InputError, which lists the names, for an unknown one."""
    if name not in NETWORKS:
        raise InputError(f"unknown network {name!r}; choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name]
