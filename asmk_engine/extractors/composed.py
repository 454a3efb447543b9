"""Extractors of global descriptors whose networks have more than a pooling after the backbone: SOLAR, DOLG and others.

Weights are a composed network (`asmk-engine train-global`, `weights convert`), or anything with a whole backbone, which
gets a head drawn at random; the recipe then contains `untrained_seed`, since nobody trained that head.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch

from asmk_engine.extractors.global_descriptors import WholeImageExtractor
from asmk_engine.extractors.options import apart, choice, numbers, option
from asmk_engine.networks.composed.checkpoints import HeadCompletion, open_composed_network
from asmk_engine.networks.composed.network import MOST_SEED, ComposedNetwork, ComposedOptions
from asmk_engine.networks.devices import choose_device, use_full_precision
from asmk_engine.recipes import Recipe


def with_seed(recipe: Recipe, options: ComposedOptions) -> Recipe:
    """Return the recipe with the seed of an untrained head, without any for a trained one."""
    kept = {key: value for key, value in recipe.options.items() if key != "untrained_seed"}
    seed = {} if options.untrained_seed is None else {"untrained_seed": options.untrained_seed}
    return Recipe(recipe.extractor, kept | seed, recipe.weights)


@dataclass(frozen=True)
class ComposedExtractor(WholeImageExtractor):
    """Base class of the extractors of this module; the fields are their options.

    weights         path of a weight file of one of the kinds listed in this module
    untrained_seed  seed of the random head, if the weights are of a backbone only
    max_side        larger images are shrunk until their longer side is this many pixels
    scales          image scales, 1 being the size after `max_side`; empty: those the network is meant for
    precision       precision of the convolutions; bf16 is faster on CPUs and GPUs that support it
    device          device the network runs on
    """

    weights: str = apart("", "a network file or the weights of a backbone")
    untrained_seed: int = option(0, 0, MOST_SEED)
    max_side: int = option(1024, 16, 16384)
    scales: tuple[float, ...] = numbers((), 0.01, 8.0)
    precision: str = choice("fp32", ("fp32", "bf16", "fp16"))
    device: str = apart("auto", "auto, cpu, cuda or cuda:0")

    @property
    def own_scales(self) -> tuple[float, ...]:
        """The scales at which images are described: the option, else those the network is meant for."""
        return self.scales or self.network.options.own_scales

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The name, the options that affect descriptors, with the seed of an untrained head, and the sha256."""
        return with_seed(super().recipe, self.network.options)

    @property
    def network(self) -> ComposedNetwork:
        """The network on its device; raises as `open_composed_network`."""
        return self._opened

    @functools.cached_property
    def _opened(self) -> ComposedNetwork:
        device = choose_device(self.device)
        use_full_precision(device)
        network, _ = open_composed_network(self.weights, HeadCompletion(self.name, self.untrained_seed))
        moved: Any = network.requires_grad_(False).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return moved


class Agem(ComposedExtractor):
    """AGeM, GeM of maps that an attention has strengthened (Gu, Li and Xie, arXiv 1811.00202)."""

    name = "agem"


class Cider(ComposedExtractor):
    """CiDeR, with attentional localisation before the pooling (Song et al., CVPR 2024)."""

    name = "cider"


class Cvnet(ComposedExtractor):
    """CVNet-Global, GeM and a linear layer trained with a momentum encoder (Lee et al., CVPR 2022)."""

    name = "cvnet"


class Delg(ComposedExtractor):
    """The global descriptor of DELG (Cao, Araujo and Sim, ECCV 2020)."""

    name = "delg"


class Dolg(ComposedExtractor):
    """DOLG, orthogonal fusion of local and global information (Yang et al., ICCV 2021)."""

    name = "dolg"


class Dplg(ComposedExtractor):
    """DPLG, dot-product fusion of local and global information (Hu and Bors, ICIP 2022)."""

    name = "dplg"


class GemAp(ComposedExtractor):
    """GeM-AP, GeM and a linear layer trained for average precision (Revaud et al., ICCV 2019)."""

    name = "gem-ap"


class Glam(ComposedExtractor):
    """GLAM, local and global attention to channels and places (Song, Han and Avrithis, WACV 2022)."""

    name = "glam"


class Solar(ComposedExtractor):
    """SOLAR, second-order attention (Ng et al., ECCV 2020)."""

    name = "solar"


class Token(ComposedExtractor):
    """Token, a few refined tokens for each image (Wu et al., AAAI 2022)."""

    name = "token"
