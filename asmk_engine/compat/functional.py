"""The formulas of the method as functions of arrays, under the names of the original."""

from __future__ import annotations

import numpy as np

from asmk_engine.inverted.comparison import EPSILON


def normalize_vec_l2(vecs: np.ndarray) -> np.ndarray:
    """Every row divided by its Euclidean norm plus 1e-6.

    Parameters
    ----------
    vecs : numpy.ndarray, shape [n, D]

    Returns
    -------
    numpy.ndarray, shape [n, D]
        A row of zeros stays one.
    """
    return np.asarray(vecs / (np.linalg.norm(vecs, axis=1, keepdims=True) + vecs.dtype.type(EPSILON)))


def asmk_kernel(
    sim: np.ndarray, image_ids: np.ndarray, *, alpha: float, similarity_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """What similarities of one visual word are worth: their power `alpha` where they reach the threshold.

    Parameters
    ----------
    sim : numpy.ndarray, shape [m]
        Similarities in [-1, 1].
    image_ids : numpy.ndarray, shape [m]
        The image of each.
    alpha : float
    similarity_threshold : float

    Returns
    -------
    image_ids : numpy.ndarray, shape [r]
        Of those that reach the threshold.
    values : numpy.ndarray, shape [r]
    """
    reached = sim >= similarity_threshold
    return image_ids[reached], np.power(sim[reached], alpha)
