"""The kernel of database-side augmentation: the score of every image averaged with those of its neighbours."""

from asmk_engine.kernels import kernel

_F8 = "Array(float64, 1, 'C', readonly=True)"
_F42 = "Array(float32, 2, 'C', readonly=True)"
_U42 = "Array(uint32, 2, 'C', readonly=True)"


@kernel(f"void({_F8}, {_F8}, {_U42}, {_F42}, float64[::1])")
def average(own, others, neighbours, weights, out):
    """Compute out[i] = (own[i] + sum over j of w_ij others[n_ij]) / (1 + sum over j of w_ij), terms in their order.

    Neighbours n_ij with others[n_ij] = NaN are left out of both sums.

    own         [n] float64
    others      [n] float64, finite or NaN
    neighbours  [n, k] uint32 below n
    weights     [n, k] float32, 0 or more; 0 where an image has fewer neighbours
    out         [n] float64
    """
    for i in range(neighbours.shape[0]):
        total, whole = own[i], 1.0
        for j in range(neighbours.shape[1]):
            score = others[neighbours[i, j]]
            if score == score:
                total += weights[i, j] * score
                whole += weights[i, j]
        out[i] = total / whole
