"""CiDeR: a map that is enhanced, set in context, and localised before it is pooled (Song et al., CVPR 2024).

    map 5 ─enhancement fe─▶ ─selective context fc─▶ F ─ localisation fl ─▶ F ⊙ mixed masks ─pooling fp─▶ vector
                                                    └─1×1, softplus, min-max─▶ A ─thresholds─▶ masks ┘

The authors publish no code, and the appendix with their choices is not at hand. Decided here, and open to change:
fe is ECA and fc selective kernels; fp is GeM with learned p and a linear layer; batch normalisation only where fe and
fc have it in their own papers, or also after the linear layer; T thresholds are i / (T + 1); the noise of N(0.1, 0.9)
has a standard deviation of 0.9, is drawn for each location of each mask, and at test time its expectation is used;
the gradient passes a threshold as if the mask were β + (1 − β) A. A map of equal values (one location, for example)
is all foreground.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.networks.composed import enhancement
from asmk_engine.networks.composed.head import Head
from asmk_engine.networks.composed.layers import AtrousPyramid, GemPool, VectorLinear, pointwise
from asmk_engine.networks.composed.switches import HeadOptions, choice, flag, number, numbers
from asmk_engine.networks.spatial_map import SpatialMap

ENHANCEMENTS = {
    "none": None,
    "eca": enhancement.EfficientChannelAttention,
    "non-local": enhancement.NonLocalBlock,
    "gather-excite": enhancement.GatherExcite,
    "se": enhancement.SqueezeExcitation,
}
PYRAMID_WIDTH, DILATIONS = 256, (6, 12, 18)  # of ASPP, as Chen et al. (arXiv 1706.05587) have them


@dataclass(frozen=True)
class CiderOptions(HeadOptions):
    """The switches of CiDeR; Tables 7 to 9 are `enhancement`, `context`, `localisation`, `background…` and `masks`.

    enhancement        fe, a name in `ENHANCEMENTS`
    context            fc: `sk`, selective kernels; `aspp`, dilated convolutions; or `none`
    localisation       whether there is fl
    masks              number T of masks
    thresholds         their thresholds, from 0 to 1; empty: i / (T + 1)
    background_random  whether the background β of the masks is random in training
    background_mean    mean of its normal distribution, or its fixed value
    background_spread  standard deviation of the distribution
    gradient           to A: `straight-through`, as the module says; `product`, the foreground of a mask is A instead
                       of 1; `none`, as equation 3 is written, so that A is not trained
    pooling            fp: `gem` or `gap`, the average
    whitening          whether a linear layer follows the pooling
    final_norm         whether batch normalisation follows the linear layer
    dim                dimensions of the linear layer; 0: as many as map 5 has channels, 2048 in the paper
    """

    enhancement: str = choice("eca", tuple(ENHANCEMENTS))
    context: str = choice("sk", ("none", "aspp", "sk"))
    localisation: bool = flag(True)
    masks: int = number(2, 1, 32)
    thresholds: tuple[float, ...] = numbers((), 0.0, 1.0)
    background_random: bool = flag(True)
    background_mean: float = number(0.1, -1.0, 1.0)
    background_spread: float = number(0.9, 0.0, 10.0)
    gradient: str = choice("straight-through", ("straight-through", "product", "none"))
    pooling: str = choice("gem", ("gem", "gap"))
    whitening: bool = flag(True)
    final_norm: bool = flag(False)
    dim: int = number(0, 0, 8192)

    @property
    def own_thresholds(self) -> tuple[float, ...]:
        """The thresholds of the masks."""
        return self.thresholds or tuple((i + 1) / (self.masks + 1) for i in range(self.masks))


class AttentionalLocalisation(nn.Module):
    """The map times a learned mixture of masks, which are 1 where the attention reaches a threshold, otherwise β."""

    def __init__(self, channels: int, options: CiderOptions) -> None:
        super().__init__()
        self.options = options
        self.attention = pointwise(channels, 1)
        self.weights = nn.Parameter(torch.zeros(len(options.own_thresholds)))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, channels, h, w] to the same shape."""
        attention = self.attention_of(maps)
        shares = functional.softplus(self.weights)
        masks = torch.cat([self._mask(attention, threshold) for threshold in self.options.own_thresholds], 1)
        return maps * (masks * (shares / shares.sum())[:, None, None]).sum(1, keepdim=True)

    def attention_of(self, maps: torch.Tensor) -> torch.Tensor:
        """Return A of eq. 1, [B, 1, h, w] from 0 to 1."""
        return least_to_most(functional.softplus(self.attention(maps)))

    def _mask(self, attention: torch.Tensor, threshold: float) -> torch.Tensor:
        """Return the mask [B, 1, h, w] of one threshold."""
        background = self._background(attention)
        foreground = attention if self.options.gradient == "product" else torch.ones_like(attention)
        mask = torch.where(attention < threshold, background, foreground)
        if self.options.gradient == "straight-through":
            mask = mask + (1 - background) * (attention - attention.detach())
        return mask

    def _background(self, attention: torch.Tensor) -> torch.Tensor:
        """Return β of every location: random in training, otherwise its expectation."""
        mean, spread = self.options.background_mean, self.options.background_spread
        if not self.options.background_random:
            return torch.full_like(attention, min(1.0, max(0.0, mean)))
        if self.training:
            return (mean + spread * torch.randn_like(attention)).clamp(0, 1)
        return torch.full_like(attention, clipped_expectation(mean, spread))


def least_to_most(values: torch.Tensor) -> torch.Tensor:
    """Return maps [B, 1, h, w] mapped linearly to [0, 1], each by its least and greatest value; equal values to 1."""
    least, most = values.amin((-2, -1), keepdim=True), values.amax((-2, -1), keepdim=True)
    span = most - least
    scaled = (values - least) / torch.where(span > 0, span, 1.0)
    return torch.where(span > 0, scaled, 1.0)


def clipped_expectation(mean: float, spread: float) -> float:
    """Return the expectation of a normal variable clipped to [0, 1]."""
    if spread == 0:
        return min(1.0, max(0.0, mean))
    low, high = -mean / spread, (1 - mean) / spread
    below_low, below_high = (0.5 * (1 + math.erf(end / math.sqrt(2))) for end in (low, high))
    at_low, at_high = (math.exp(-end * end / 2) / math.sqrt(2 * math.pi) for end in (low, high))
    return mean * (below_high - below_low) + spread * (at_low - at_high) + 1 - below_high


class CiderHead(Head):
    """Enhancement, context, localisation, pooling, whitening."""

    def __init__(self, channels: tuple[int, int], options: CiderOptions) -> None:
        super().__init__()
        inputs = channels[1]
        enhance = ENHANCEMENTS[options.enhancement]
        self.enhancement = enhance(inputs) if enhance else nn.Identity()
        self.context = _context(inputs, options)
        self.localisation = AttentionalLocalisation(inputs, options) if options.localisation else nn.Identity()
        self.pool = GemPool() if options.pooling == "gem" else None
        self.dim = (options.dim or inputs) if options.whitening else inputs
        self.whitening = VectorLinear(inputs, self.dim) if options.whitening else nn.Identity()
        self.norm = nn.BatchNorm1d(self.dim) if options.final_norm else nn.Identity()

    def attention_maps(self, early: torch.Tensor, map4: torch.Tensor, map5: torch.Tensor) -> list[SpatialMap]:
        """Return A of eq. 1 with the thresholds of the masks; nothing without localisation."""
        if not isinstance(self.localisation, AttentionalLocalisation):
            return []
        values = self.localisation.attention_of(self.context(self.enhancement(map5))).squeeze(1)
        thresholds = self.localisation.options.own_thresholds
        return [SpatialMap("attention", values, "attention, from least to most", thresholds=thresholds)]

    def forward(self, map4: torch.Tensor, map5: torch.Tensor) -> torch.Tensor:
        """Return vectors [B, dim] of map 5."""
        maps = self.localisation(self.context(self.enhancement(map5)))
        pooled = maps.mean((-2, -1)) if self.pool is None else self.pool(maps)
        found: torch.Tensor = self.norm(self.whitening(pooled))
        return found


def _context(channels: int, options: CiderOptions) -> nn.Module:
    if options.context == "sk":
        return enhancement.SelectiveKernels(channels)
    if options.context == "aspp":
        return AtrousPyramid(channels, PYRAMID_WIDTH, channels, DILATIONS, True)
    return nn.Identity()
