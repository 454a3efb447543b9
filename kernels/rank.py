"""Scores of one range, and which of them can still be among the best."""

import numpy as np

from asmk_engine.kernels import kernel

_F8 = "Array(float64, 1, 'C', readonly=True)"


@kernel(f"int64({_F8}, {_F8}, float64, float64, uint32[::1], float64[::1])")
def normalise(raw, norms, query_norm, least, numbers, scores):
    """Divide by the norms and collect the images whose score is above 0 and at least `least`; returns how many.

    raw      [n] float64, what the postings of each image are worth; norms [n] float64, those of the images
    numbers  [n] uint32 and scores [n] float64, out: the images, increasing, and their scores
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
