"""The levels of a pyramid in 8 bits: directions only, since only cosines are computed of them.

Each vector is divided by its largest absolute value and rounded to whole numbers of -127 to 127; its length is lost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

MOST = 127


def encode_levels(levels: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """Return levels [1, D, h, w] of one image as codes [h, w, D] int8 each."""
    return [_encoded(level[0].permute(1, 2, 0).float().cpu().numpy()) for level in levels]


def _encoded(vectors: np.ndarray) -> np.ndarray:
    largest = np.abs(vectors).max(axis=-1, keepdims=True, initial=0.0)
    shares = vectors / np.where(largest > 0, largest, 1.0)
    codes: np.ndarray = np.rint(shares * MOST).astype(np.int8)
    return codes


def decode_levels(codes: Sequence[np.ndarray], device: torch.device | None = None) -> list[torch.Tensor]:
    """Return codes [h, w, D] int8 as levels [1, D, h, w] float32 with the same directions up to rounding."""
    return [torch.from_numpy(np.array(code)).to(device).float().permute(2, 0, 1)[None] / MOST for code in codes]
