"""How far an output is from its target: SimSiam's two similarities, BYOL's, SwAV's."""

import keras
from keras import ops

from simsiam_keras.family import SwAVFlags
from simsiam_keras.losses.base import at_least_float32, check_temperature, l2_normalize


def negative_cosine_similarity(p, z):
    """SimSiam's distance, `D(p, z) = -(p / ||p||) . (z / ||z||)`, per sample.

    It lies in [-1, 1]: -1 for parallel vectors, 1 for opposite ones, 0 when either is zero.
    Neither argument is held constant.

    Args:
        p: predictions, `[n, d]`.
        z: targets, `[n, d]`.

    Returns:
        `[n]` values, float32 or wider.

    Example:
    >>> import numpy as np
    >>> p = np.array([[3.0, 4.0], [1.0, 0.0]], "float32")
    >>> z = np.array([[6.0, 8.0], [0.0, 2.0]], "float32")
    >>> [round(float(v), 4) + 0.0 for v in negative_cosine_similarity(p, z)]
    [-1.0, 0.0]

    Reference:
        Chen & He, Exploring Simple Siamese Representation Learning, equation 1,
        https://arxiv.org/abs/2011.10566
    """
    return -ops.sum(l2_normalize(p) * l2_normalize(z), axis=-1)


@keras.saving.register_keras_serializable("simsiam_keras")
class NegativeCosineSimilarity(keras.losses.Loss):
    """`negative_cosine_similarity` under Keras's reduction, as `loss(z, p)`.

    A `Loss` rather than a plain mean: Keras divides it by the number of replicas, so that the
    gradient under `tf.distribute` is that of the global batch.

    Args:
        reduction: as in `keras.losses.Loss`; default `"sum_over_batch_size"`.
        name: default `"negative_cosine_similarity"`.
        dtype: as in `keras.losses.Loss`.
    """

    def __init__(
        self,
        reduction="sum_over_batch_size",
        name="negative_cosine_similarity",
        dtype=None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)

    def call(self, y_true, y_pred):
        return negative_cosine_similarity(y_pred, y_true)


def cross_entropy_similarity(p, z):
    """The paper's other similarity, `D(p, z) = -softmax(z) . log softmax(p)`, per sample.

    The softmax is over the d channels, which become pseudo-categories. It is at least the entropy
    of softmax(z), which it reaches where p is z plus any constant, and has no upper bound; log(d)
    where p is zero. Unlike the cosine it depends on the vectors' lengths. Neither argument is held
    constant.

    Args:
        p: predictions, `[n, d]`.
        z: targets, `[n, d]`.

    Returns:
        `[n]` values, float32 or wider.

    Example:
    >>> import numpy as np
    >>> z = np.log([[0.5, 0.25, 0.25]])
    >>> round(float(cross_entropy_similarity(np.zeros([1, 3]), z)[0]), 4)  # log(3)
    1.0986

    Reference:
        Chen & He, Exploring Simple Siamese Representation Learning, section 4.5,
        https://arxiv.org/abs/2011.10566
    """
    p, z = at_least_float32(p), at_least_float32(z)
    return -ops.sum(ops.softmax(z, axis=-1) * ops.log_softmax(p, axis=-1), axis=-1)


SIMILARITIES = {"cosine": negative_cosine_similarity, "cross_entropy": cross_entropy_similarity}


def regression(p, z):
    """BYOL's loss, `||p / ||p|| - z / ||z|| ||^2 = 2 - 2 cos(p, z)`, per sample.

    It lies in [0, 4]: 0 for parallel vectors, 4 for opposite ones; 1 when one of the two is zero, 0
    when both are. Neither argument is held constant.

    Args:
        p: predictions, `[n, d]`.
        z: targets, `[n, d]`.

    Returns:
        `[n]` values, float32 or wider.

    Example:
    >>> import numpy as np
    >>> p = np.array([[3.0, 4.0], [1.0, 0.0], [1.0, 0.0]], "float32")
    >>> z = np.array([[6.0, 8.0], [0.0, 2.0], [-5.0, 0.0]], "float32")
    >>> [round(float(v), 4) for v in regression(p, z)]
    [0.0, 2.0, 4.0]

    Reference:
        Grill et al., Bootstrap Your Own Latent, equation 2, https://arxiv.org/abs/2006.07733
    """
    # As a difference: 2 - 2 cos would round parallel vectors to either side of 0.
    return ops.sum(ops.square(l2_normalize(p) - l2_normalize(z)), axis=-1)


def swapped_prediction(scores, codes, temperature=SwAVFlags.temperature):
    """SwAV's loss, `l(z, q) = -sum_k q_k log softmax(scores / temperature)_k`, per sample.

    It is at least the entropy of the codes, which it reaches where softmax(scores / temperature)
    equals them, and has no upper bound; log(k) where the scores of a sample are equal. Neither
    argument is held constant.

    Args:
        scores: cosines of one view's outputs with the prototypes, `[n, k]`.
        codes: q, the other view's assignment to them, `[n, k]`; rows sum to 1.
        temperature: the paper's tau, default the paper's, .1.

    Returns:
        `[n]` values, float32 or wider.

    Raises:
        ValueError: if `temperature` is not positive.

    Example:
    >>> import numpy as np
    >>> codes = np.array([[0.5, 0.25, 0.25]])
    >>> round(float(swapped_prediction(np.zeros([1, 3]), codes)[0]), 4)  # log(3)
    1.0986

    Reference:
        Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments,
        equation 2, https://arxiv.org/abs/2006.09882
    """
    check_temperature(temperature)
    scores, codes = at_least_float32(scores), at_least_float32(codes)
    return -ops.sum(codes * ops.log_softmax(scores / temperature, axis=-1), axis=-1)
