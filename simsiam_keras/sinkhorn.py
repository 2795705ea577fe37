"""SwAV's codes: an assignment of a batch's samples to prototypes that uses all of them alike.

No stop-gradient is written here: that codes are constants is the method's decision.
"""

from keras import ops

from simsiam_keras.family import SwAVFlags
from simsiam_keras.losses import at_least_float32


def sinkhorn(
    scores,
    epsilon=SwAVFlags.sinkhorn_epsilon,
    iterations=SwAVFlags.sinkhorn_iterations,
    total=lambda sums: sums,
):
    """Sinkhorn-Knopp: scales exp(scores / epsilon) until samples and prototypes share alike.

    Each iteration divides every column (a prototype) by its sum over the global batch, then every
    row (a sample) by its sum. Rows of the result sum to 1; columns come near N / k, and reach it as
    iterations go on. Equal scores give 1 / k. The paper scales columns to 1 / k and rows to 1 / N
    and multiplies by N at the end; such common factors cancel where rows are divided by their sum.

    Args:
        scores: cosines of outputs with prototypes, `[n, k]`, in [-1, 1].
        epsilon: weight of the entropy, default the paper's; smaller codes harder.
        iterations: default the paper's.
        total: function that sums a tensor `[k]` over the replicas; default: there is one.

    Returns:
        Codes `[n, k]`, float32 or wider.

    Raises:
        ValueError: if `epsilon` is below .02 or `iterations` below 1.

    Example:
    >>> import numpy as np
    >>> codes = sinkhorn(np.array([[0.9, 0.1], [0.8, 0.1]]), iterations=100)
    >>> [round(float(v), 3) for v in codes[0]]  # both lean to the first, which takes only one
    [0.731, 0.269]

    Reference:
        Caron et al., https://arxiv.org/abs/2006.09882, section 3.1 and supplementary A
    """
    if epsilon < 0.02:
        raise ValueError(
            "`epsilon` must be at least 0.02, below which exp(1 / epsilon) leaves float32. "
            f"Received: epsilon={epsilon}"
        )
    if iterations < 1:
        raise ValueError(f"`iterations` must be at least 1. Received: iterations={iterations}")
    # In logarithms. The first sum of a column has terms within exp(+-1 / epsilon), no maximum is
    # subtracted that replicas would have to agree on; later ones are at least 1 / (N k).
    log_q = at_least_float32(scores) / epsilon
    for _ in range(iterations):
        log_q = log_q - ops.log(total(ops.sum(ops.exp(log_q), axis=0)))
        log_q = ops.log_softmax(log_q, axis=1)
    return ops.exp(log_q)
