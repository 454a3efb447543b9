"""What the arrays of a codebook must be."""

from __future__ import annotations

import numpy as np

from asmk_engine.errors import DamagedError

MOST_BITS = 32_768  # in a code: Hamming distances are counted in 16 bits


def check_codebook(mean: np.ndarray, projection: np.ndarray, centroids: np.ndarray, where: object) -> None:
    """Raise DamagedError unless the three arrays are finite float32 of matching shapes."""
    shapes = f"mean {mean.shape}, projection {projection.shape}, centroids {centroids.shape}"
    fits = mean.ndim == 1 and projection.ndim == centroids.ndim == 2 and len(centroids) > 0
    if not fits or projection.shape != (centroids.shape[1], len(mean)) or not projection.size:
        raise DamagedError(f"{where}: {shapes} do not match; expected [D0], [D, D0], [K, D]")
    if centroids.shape[1] > MOST_BITS:
        raise DamagedError(f"{where}: centroids of {centroids.shape[1]} dimensions; expected at most {MOST_BITS}")
    for name, array in (("mean", mean), ("projection", projection), ("centroids", centroids)):
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise DamagedError(
                f"{where}: {name} must be finite float32, found {array.dtype} with a NaN or infinity in it"
            )
