"""Token: a few learned queries that collect the locations of a map, refined by attention (Wu et al., AAAI 2022).

    map 5 ─1×1, BN─▶ ─encoder─▶ x ─soft assignment to the queries─▶ tokens ─decoder, twice─▶ ─linear, BN─▶ vector

As the official code: a location is shared out among the tokens (softmax over tokens), not a token among locations; the
encoder normalises by batch, the decoder by layer, and its perceptron not at all; the last layer of each attention
starts at zero. In training, single values and for single images whole layers are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.errors import InputError
from asmk_engine.networks.composed.head import Head
from asmk_engine.networks.composed.layers import VectorLinear, pointwise, rows
from asmk_engine.networks.composed.switches import HeadOptions, number
from asmk_engine.networks.spatial_map import SpatialMap


@dataclass(frozen=True)
class TokenOptions(HeadOptions):
    """The switches of Token.

    tokens              number of tokens
    width               dimensions of a token
    attention_heads     number of parts of a vector that attend separately
    encoders, decoders  number of encoding and decoding layers
    dropout             share of values, and of layers for an image, that are left out in training
    dim                 dimensions of the vector
    """

    tokens: int = number(4, 1, 64)
    width: int = number(1024, 1, 8192)
    attention_heads: int = number(8, 1, 64)
    encoders: int = number(1, 0, 12)
    decoders: int = number(2, 0, 12)
    dropout: float = number(0.1, 0.0, 0.9)
    dim: int = number(1024, 1, 8192)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.attention_heads:
            raise InputError(f"width is {self.width}; expected a multiple of attention_heads, {self.attention_heads}")


class LayerDropout(nn.Dropout1d):
    """In training, all values [n, D] of some images become zero, those of the others grow, so that the mean stays."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, n, D] to the same shape."""
        return super().forward(x.flatten(1).unsqueeze(1)).view_as(x)


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention of several parts of vectors, with biases; its output layer starts at zero."""

    def __init__(self, options: TokenOptions) -> None:
        super().__init__()
        width, self.heads, self.dropout = options.width, options.attention_heads, options.dropout
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, queries: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Map queries [B, n, D] and others [B, m, D], which are keys and values, to [B, n, D]."""
        query, key, value = map(self._parts, (self.query(queries), self.key(others), self.value(others)))
        share = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=share)
        return functional.dropout(self.output(mixed.transpose(1, 2).flatten(2)), share)

    def shares(self, queries: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Return the weights of others [B, m, D] for queries [B, n, D], the mean over the parts, [B, n, m]."""
        query, key = self._parts(self.query(queries)), self._parts(self.key(others))
        return (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5).softmax(3).mean(1)

    def _parts(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the parts [B, heads, n, D / heads] of vectors [B, n, D]."""
        return vectors.unflatten(2, (self.heads, -1)).transpose(1, 2)


class EncoderLayer(nn.Module):
    """x + attention(x, x), then x + linear(batch normalisation of x)."""

    def __init__(self, options: TokenOptions) -> None:
        super().__init__()
        self.attention, self.drop = MultiheadAttention(options), LayerDropout(options.dropout)
        self.norm, self.linear = nn.BatchNorm1d(options.width), nn.Linear(options.width, options.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, n, D] to the same shape."""
        x = x + self.drop(self.attention(x, x))
        found: torch.Tensor = x + self.drop(self.linear(self.norm(x.transpose(1, 2)).transpose(1, 2)))
        return found


class DecoderLayer(nn.Module):
    """Tokens that attend to the locations, pass a perceptron with GELU, and attend to each other, each with a sum."""

    def __init__(self, options: TokenOptions) -> None:
        super().__init__()
        width, share = options.width, options.dropout
        self.cross_attention, self.self_attention = MultiheadAttention(options), MultiheadAttention(options)
        self.cross_norm, self.self_norm, self.drop = nn.LayerNorm(width), nn.LayerNorm(width), LayerDropout(share)
        layers = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.perceptron = nn.Sequential(layers[0], nn.GELU(), nn.Dropout(share), layers[1], nn.Dropout(share))

    def forward(self, tokens: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Map tokens [B, t, D] and locations [B, n, D] to tokens."""
        tokens = tokens + self.drop(self.cross_attention(self.cross_norm(tokens), x))
        tokens = tokens + self.drop(self.perceptron(tokens))
        normed = self.self_norm(tokens)
        found: torch.Tensor = tokens + self.drop(self.self_attention(normed, normed))
        return found


class TokenHead(Head):
    """The tokens of map 5, concatenated, and a linear layer with batch normalisation."""

    def __init__(self, channels: tuple[int, int], options: TokenOptions) -> None:
        super().__init__()
        width, self.dim = options.width, options.dim
        self.reduction = nn.Sequential(pointwise(channels[1], width), nn.BatchNorm2d(width))
        self.encoders = nn.ModuleList(EncoderLayer(options) for _ in range(options.encoders))
        self.queries = nn.Parameter(torch.randn(1, options.tokens, width))
        self.tokens = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.decoders = nn.ModuleList(DecoderLayer(options) for _ in range(options.decoders))
        self.fusion = nn.Sequential(VectorLinear(width * options.tokens, options.dim), nn.BatchNorm1d(options.dim))

    def forward(self, map4: torch.Tensor, map5: torch.Tensor) -> torch.Tensor:
        """Return vectors [B, dim] of map 5."""
        x = self._locations(map5)
        tokens = self.tokens(self._shares(x) @ x)
        for decoder in self.decoders:
            tokens = decoder(tokens, x)
        found: torch.Tensor = self.fusion(tokens.flatten(1))
        return found

    def attention_maps(self, early: torch.Tensor, map4: torch.Tensor, map5: torch.Tensor) -> list[SpatialMap]:
        """Return the attention of the decoders, and the share of each location that each token takes.

        The mean of the shares is the same everywhere, since they sum to 1 at each location; so all tokens together are
        shown by the mean, over decoders, parts and tokens, of the softmax over locations of the cross-attention.
        """
        x = self._locations(map5)
        shares = self._shares(x)
        tokens, total = self.tokens(shares @ x), torch.zeros_like(shares[:, 0])
        for decoder in cast(Iterable[DecoderLayer], self.decoders):
            total = total + decoder.cross_attention.shares(decoder.cross_norm(tokens), x).mean(1)
            tokens = decoder(tokens, x)
        size = map5.shape[-2:]
        each = [
            SpatialMap(f"token {number}", one.unflatten(1, size), "share of the location that the token takes")
            for number, one in enumerate(shares.unbind(1), start=1)
        ]
        if not self.decoders:
            return each
        values = (total * (total.shape[1] / len(self.decoders))).unflatten(1, size)
        return [SpatialMap("attention of all tokens", values, "attention received, 1 on average"), *each]

    def _locations(self, map5: torch.Tensor) -> torch.Tensor:
        """Return the encoded locations [B, h · w, width]."""
        x = rows(self.reduction(map5))
        for encoder in self.encoders:
            x = encoder(x)
        return x

    def _shares(self, x: torch.Tensor) -> torch.Tensor:
        """Return the share of each location that each token takes, [B, tokens, h · w]."""
        return (self.queries @ x.transpose(1, 2)).softmax(1)
