"""PCA-whitening learned from a sample of descriptors."""

from __future__ import annotations

import numpy as np

from asmk_engine.threads import forks_wait

# Directions with a smaller share of the largest variance hold only rounding noise, which whitening must not amplify.
FLOOR = 1e-6
LEAST = 1e-12
WHITENING_SAMPLE = 1_000_000
PROJECTED_ROWS = 1 << 16


def learn_whitening(descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Learn m and P such that P (x - m) has zero mean and unit covariance, by decreasing variance.

    P = diag(variance)^(-1/2) E^T, with E the eigenvectors of the covariance (plain whitening, as in the HOW code).

    descriptors  [n, D] float32
    returns      mean m [D] float32, projection P [D, D] float32
    """
    mean = descriptors.mean(axis=0, dtype=np.float64)
    covariance = _covariance(descriptors, mean)
    with forks_wait():
        variances, directions = np.linalg.eigh(covariance)
    variances, directions = variances[::-1], directions[:, ::-1]
    variances = np.maximum(variances, max(FLOOR * variances[0], LEAST))
    projection = (directions / np.sqrt(variances)).T
    # The sign of an eigenvector is arbitrary: fix it, so that the same descriptors give the same codebook everywhere.
    signs = np.sign(projection[np.arange(len(projection)), np.abs(projection).argmax(axis=1)])
    return mean.astype(np.float32), np.ascontiguousarray(projection * signs[:, None], dtype=np.float32)


def _covariance(descriptors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    covariance = np.zeros((len(mean), len(mean)))
    for begin in range(0, len(descriptors), 1 << 16):
        centred = descriptors[begin : begin + (1 << 16)] - mean
        with forks_wait():
            covariance += centred.T @ centred
    return covariance / len(descriptors)


def project_in_place(sample: np.ndarray, mean: np.ndarray, projection: np.ndarray) -> None:
    """Project the sample block by block in place, since a second copy of it may not fit in memory."""
    for begin in range(0, len(sample), PROJECTED_ROWS):
        rows = slice(begin, begin + PROJECTED_ROWS)
        with forks_wait():
            sample[rows] = (sample[rows] - mean) @ projection.T


def learn_projection(sample: np.ndarray, whitening: str) -> tuple[np.ndarray, np.ndarray]:
    """Learn m and P as `learn_whitening` does, from part of a large sample; `none` is mean 0 and the identity."""
    dim = sample.shape[1]
    if whitening == "none":
        return np.zeros(dim, np.float32), np.eye(dim, dtype=np.float32)
    return learn_whitening(sample[:: max(1, len(sample) // WHITENING_SAMPLE)])
