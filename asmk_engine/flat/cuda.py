"""Matrix products on a CUDA device, in full single precision."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asmk_engine.flat.products import FlatScores
from asmk_engine.flat.segment import GlobalSegment

if TYPE_CHECKING:
    import torch

_DRIVER = Path("/proc/driver/nvidia/version")
BLOCK_BYTES = 1 << 30
_FREE_SHARE = 0.8  # share of the free device memory that may be used for vectors
_kept: weakref.WeakKeyDictionary[GlobalSegment, dict[tuple[int, int], Any]] = weakref.WeakKeyDictionary()


def is_likely() -> bool:
    """Return whether there is a driver, so that importing torch to check for a device is worthwhile."""
    return _DRIVER.exists()


def is_there() -> bool:
    """Return whether torch finds a CUDA device."""
    import torch

    return bool(torch.cuda.is_available())


class CudaScores(FlatScores):
    """Dot products with approximate scores computed on the device; vectors stay in its memory while there is room."""

    device = "cuda"

    def __init__(self, queries: np.ndarray) -> None:
        super().__init__(queries)
        self.block_bytes = BLOCK_BYTES

    def approximate(self, segment: GlobalSegment, begin: int, end: int) -> np.ndarray:
        """See `VectorScores`; TF32, which a program may have enabled, would exceed the margin and is disabled."""
        import torch

        queries = torch.from_numpy(self.queries).to(self.device)
        stored = self._stored(segment, begin, end)
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            found: np.ndarray = (queries @ stored.to(torch.float32).T).cpu().numpy()
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
        return found

    def _stored(self, segment: GlobalSegment, begin: int, end: int) -> torch.Tensor:
        import torch

        blocks = _kept.setdefault(segment, {})
        if (begin, end) not in blocks:
            rows = torch.from_numpy(np.array(segment.rows(begin, end))).to(self.device)
            if self.device == "cuda" and rows.nbytes > _FREE_SHARE * torch.cuda.mem_get_info()[0]:
                return rows
            blocks[begin, end] = rows
        return blocks[begin, end]
