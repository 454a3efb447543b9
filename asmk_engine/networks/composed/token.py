"""Token: a few learned queries that collect the locations of a map, refined by attention (Wu et al., AAAI 2022).

    map 5 ─1×1, BN─▶ ─encoder─▶ x ─soft assignment to the queries─▶ tokens ─decoder, twice─▶ ─linear, BN─▶ vector

As the official code: a location is shared out among the tokens (softmax over tokens), not a token among locations; the
encoder normalises by batch, the decoder by layer, and its perceptron not at all; the last layer of each attention
starts at zero. In training, single values and for single images whole layers are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.errors import InputError
from asmk_engine.networks.composed.head import Head
from asmk_engine.networks.composed.layers import VectorLinear, pointwise, rows
from asmk_engine.networks.composed.switches import HeadOptions, number


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
        parts = (self.query(queries), self.key(others), self.value(others))
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        share = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=share)
        return functional.dropout(self.output(mixed.transpose(1, 2).flatten(2)), share)


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
        x = rows(self.reduction(map5))
        for encoder in self.encoders:
            x = encoder(x)
        shares = (self.queries @ x.transpose(1, 2)).softmax(1)
        tokens = self.tokens(shares @ x)
        for decoder in self.decoders:
            tokens = decoder(tokens, x)
        found: torch.Tensor = self.fusion(tokens.flatten(1))
        return found
