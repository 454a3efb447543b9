"""The Reranking Transformer (RRT): whether two images show the same thing, by their local and global descriptors.

    [CLS] [global of the query] [its local ones] [SEP] [global of the other] [its local ones] ──encoder──▶ [CLS]
                                                                                                 [CLS] ──linear──▶ logit

Global descriptors are mapped to the dimension of the local ones; all vectors are of length 1 before the embeddings of
their image, their kind and their scale are added. Places of features are not used (Tan, Yuan and Ordonez, ICCV 2021,
section 3.2, and its code). Parameters have the names of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from asmk_engine.errors import MismatchError
from asmk_engine.networks.reranking.transformer_options import INVERSE_SCALES, TransformerOptions

QUERY, OTHER, CLASS, SEPARATOR, QUERY_GLOBAL, OTHER_GLOBAL = range(6)
"""The segment embeddings; that of CLASS is the first token itself, that of SEPARATOR the one between the images."""


@dataclass(frozen=True)
class TokenBatch:
    """The descriptors of n images, the rows of each filled up to m local ones.

    globals  [n, global_dim] float32
    locals   [n, m, dim] float32, m of 0 or more
    scales   [n, m] int64, numbers of the scales of the features, 0 where there is none
    absent   [n, m] bool, where there is no feature
    """

    globals: torch.Tensor
    locals: torch.Tensor
    scales: torch.Tensor
    absent: torch.Tensor

    def __len__(self) -> int:
        return len(self.globals)

    def repeated(self, count: int) -> TokenBatch:
        """Return one image `count` times, without copies."""
        each = (self.globals, self.locals, self.scales, self.absent)
        return TokenBatch(*(value.expand(count, *value.shape[1:]) for value in each))


class RerankingTransformer(nn.Module):
    """The network; `forward` returns the logits of pairs.

    options  its sizes
    """

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        self.options = options
        layer = nn.TransformerEncoderLayer(options.dim, options.heads, options.hidden, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, options.layers, enable_nested_tensor=False)
        self.remap = nn.Linear(options.global_dim, options.dim)
        self.scale_encoder = nn.Embedding(len(INVERSE_SCALES), options.dim)
        self.seg_encoder = nn.Embedding(6, options.dim)
        self.classifier = nn.Linear(options.dim, 1)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, query: TokenBatch, other: TokenBatch) -> torch.Tensor:
        """Return the logits [n] of n pairs of images; raises MismatchError for descriptors of other dimensions."""
        self._check(query)
        self._check(other)
        tokens = [
            self._segment(CLASS, query),
            *self._image(query, QUERY, QUERY_GLOBAL),
            self._segment(SEPARATOR, query),
            *self._image(other, OTHER, OTHER_GLOBAL),
        ]
        present = torch.zeros(len(query), 2, dtype=torch.bool, device=query.absent.device)
        absent = torch.cat([present, query.absent, present, other.absent], 1)
        encoded = self.encoder(torch.cat(tokens, 1), src_key_padding_mask=absent)
        logits: torch.Tensor = self.classifier(encoded[:, 0])[:, 0]
        return logits

    def _check(self, batch: TokenBatch) -> None:
        found = batch.globals.shape[-1], batch.locals.shape[-1]
        expected = self.options.global_dim, self.options.dim
        if found != expected:
            raise MismatchError(
                f"global and local descriptors have {found[0]} and {found[1]} dimensions, the network expects "
                f"{expected[0]} and {expected[1]}; use the extractors that it was trained for"
            )

    def _segment(self, segment: int, batch: TokenBatch) -> torch.Tensor:
        return self.seg_encoder.weight[segment].expand(len(batch), 1, -1)

    def _image(self, batch: TokenBatch, segment: int, global_segment: int) -> list[torch.Tensor]:
        """Return the token [n, 1, dim] of the global descriptors and those [n, m, dim] of the local ones."""
        whole = functional.normalize(self.remap(batch.globals), dim=-1)[:, None]
        parts = functional.normalize(batch.locals, dim=-1) + self.scale_encoder(batch.scales)
        return [whole + self.seg_encoder.weight[global_segment], parts + self.seg_encoder.weight[segment]]
