"""Normalise the scores of one range and select those that can still be among the best."""

import numpy as np

from asmk_engine.kernels import kernel

_F8 = "Array(float64, 1, 'C', readonly=True)"


@kernel(f"int64({_F8}, {_F8}, float64, float64, uint32[::1], float64[::1])")
def normalise(raw, norms, query_norm, least, numbers, scores):
    """Divide by the norms and collect the images whose score is above 0 and at least `least`; returns their number.

    raw      [n] float64, the unnormalised score of each image
    norms    [n] float64, the norm of each image
    numbers  [n] uint32, out: the collected images, increasing
    scores   [n] float64, out: their scores
    """
    found = np.int64(0)
    for i in range(raw.shape[0]):
        divisor = norms[i] * query_norm
        if raw[i] > 0.0 and divisor > 0.0:
            score = raw[i] / divisor
            if score >= least:
                numbers[found] = i
                scores[found] = score
                found += 1
    return found
