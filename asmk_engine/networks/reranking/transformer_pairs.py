"""Logits of a query with many images by a re-ranking transformer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from asmk_engine.networks.devices import choose_device, use_full_precision
from asmk_engine.networks.reranking.image_tokens import ImageTokens
from asmk_engine.networks.reranking.transformer import RerankingTransformer, TokenBatch
from asmk_engine.networks.reranking.transformer_files import open_transformer

AT_ONCE = 16
"""Pairs that pass through the network together on a GPU, whose attention takes 16 MB each; on a CPU one at a time."""


def token_batch(images: Sequence[ImageTokens], dim: int, device: torch.device) -> TokenBatch:
    """Return images as one batch on a device, filled up to the largest number of local descriptors.

    dim  dimensions of local descriptors, for images without any
    """
    most = max((len(image.locals) for image in images), default=0)
    width = next((image.locals.shape[1] for image in images if len(image.locals)), dim)
    parts = np.zeros((len(images), most, width), np.float32)
    scales, absent = np.zeros((len(images), most), np.int64), np.ones((len(images), most), np.bool_)
    for row, image in enumerate(images):
        count = len(image.locals)
        if count:
            parts[row, :count], scales[row, :count], absent[row, :count] = image.locals, image.scales, False
    wholes = np.stack([image.whole for image in images])
    each = (torch.from_numpy(array).to(device) for array in (wholes, parts, scales, absent))
    return TokenBatch(*each)


class PairTransformer:
    """A re-ranking transformer on a device, ready to score.

    weights  a file of `open_transformer`, whose errors it raises
    device   name of `choose_device`
    """

    def __init__(self, weights: Path | str, device: str = "auto") -> None:
        self.device = choose_device(device)
        use_full_precision(self.device)
        network, self.origin = open_transformer(weights)
        self.network: RerankingTransformer = network.to(self.device)

    def logits(self, query: ImageTokens, others: Sequence[ImageTokens]) -> np.ndarray:
        """Return the logits [n] float64 of the query with each image; raises MismatchError for other dimensions."""
        return pair_logits(self.network, query, others)


def pair_logits(network: RerankingTransformer, query: ImageTokens, others: Sequence[ImageTokens]) -> np.ndarray:
    """Return the logits [n] float64 of a query with each image, by a network in evaluation mode."""
    device, found = network.classifier.weight.device, []
    at_once, dim = (1 if device.type == "cpu" else AT_ONCE), network.options.dim
    one = token_batch([query], dim, device)
    with torch.no_grad():
        for begin in range(0, len(others), at_once):
            batch = token_batch(others[begin : begin + at_once], dim, device)
            found.append(network(one.repeated(len(batch)), batch).double().cpu().numpy())
    return np.concatenate(found) if found else np.empty(0)
