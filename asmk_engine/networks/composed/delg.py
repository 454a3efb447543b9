"""DELG: a global vector and local features from one backbone (Cao, Araujo and Sim, ECCV 2020).

    map 5 ─GeM─▶ ─linear─▶ vector
    map 4 ─(no gradient)─▶ ─1×1─▶ codes ─1×1, ReLU─▶ reconstruction ─attention─▶ scores

As the official code: p of GeM is fixed at 3; the scores are computed from the reconstruction, and in training they
weight the unit vectors of map 4; no gradient of the local branch reaches the backbone. The codes are the local
descriptors, of unit length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.networks.composed.head import Head
from asmk_engine.networks.composed.layers import GemPool, VectorLinear, pointwise, rectified
from asmk_engine.networks.composed.switches import HeadOptions, flag, number
from asmk_engine.networks.spatial_map import SpatialMap


@dataclass(frozen=True)
class DelgOptions(HeadOptions):
    """The switches of DELG.

    learned_exponent  whether p of GeM is learned; fixed at 3 in the official code
    code              dimensions of a local descriptor
    hidden            channels within the attention
    stop_gradient     whether the local branch leaves the backbone alone
    dim               dimensions of the vector; 0: as many as map 5 has channels, 2048 in the paper
    """

    learned_exponent: bool = flag(False)
    code: int = number(128, 1, 4096)
    hidden: int = number(512, 1, 8192)
    stop_gradient: bool = flag(True)
    dim: int = number(0, 0, 8192)


@dataclass(frozen=True)
class DelgMaps:
    """What the local branch makes of map 4 [B, C4, h, w].

    codes           [B, code, h, w], not normalised
    scores          [B, h, w], not negative
    reconstruction  [B, C4, h, w], to be compared with map 4
    attended        [B, C4]: mean over the locations of score times unit vector of map 4, to be classified
    """

    codes: torch.Tensor
    scores: torch.Tensor
    reconstruction: torch.Tensor
    attended: torch.Tensor


class DelgLocalBranch(nn.Module):
    """The autoencoder of map 4 and the attention to its reconstruction."""

    def __init__(self, channels: int, options: DelgOptions) -> None:
        super().__init__()
        self.encoder, self.decoder = pointwise(channels, options.code), pointwise(options.code, channels)
        self.attention = nn.Sequential(rectified(pointwise(channels, options.hidden)), pointwise(options.hidden, 1))

    def scored(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return codes [B, code, h, w], scores [B, h, w] and the reconstruction [B, C4, h, w] of maps [B, C4, h, w]."""
        codes = self.encoder(maps)
        reconstruction = functional.relu(self.decoder(codes))
        scores = functional.softplus(self.attention(reconstruction)).squeeze(1)
        return codes, scores, reconstruction

    def forward(self, maps: torch.Tensor) -> DelgMaps:
        """Return all of `DelgMaps` of maps [B, C4, h, w]."""
        codes, scores, reconstruction = self.scored(maps)
        attended = (functional.normalize(maps, dim=1) * scores.unsqueeze(1)).mean((-2, -1))
        return DelgMaps(codes, scores, reconstruction, attended)


class DelgHead(Head):
    """GeM and a linear layer; the local branch is next to them."""

    def __init__(self, channels: tuple[int, int], options: DelgOptions) -> None:
        super().__init__()
        self.dim = options.dim or channels[1]
        self.pool = GemPool(options.learned_exponent)
        self.whitening = VectorLinear(channels[1], self.dim)
        self.local_branch = DelgLocalBranch(channels[0], options)
        self.stop_gradient = options.stop_gradient

    def forward(self, map4: torch.Tensor, map5: torch.Tensor) -> torch.Tensor:
        """Return vectors [B, dim] of map 5."""
        found: torch.Tensor = self.whitening(self.pool(map5))
        return found

    def attention_maps(self, early: torch.Tensor, map4: torch.Tensor, map5: torch.Tensor) -> list[SpatialMap]:
        """Return the scores by which local features are chosen; the vector is pooled without them."""
        return [SpatialMap("attention of the local branch", self.local_branch.scored(map4)[1], "score", 4)]

    def local(self, map4: torch.Tensor) -> DelgMaps:
        """Return what the local branch makes of map 4 [B, C4, h4, w4], for its two losses."""
        found: DelgMaps = self.local_branch(map4.detach() if self.stop_gradient else map4)
        return found
