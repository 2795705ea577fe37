"""Losses as pure functions of backend tensors, and their `keras.losses.Loss` classes.

No stop-gradient is written here: which branch is held constant is the method's decision.
"""

import keras
from keras import ops

# Inside the square root: the gradient of x / sqrt(|x|^2 + EPSILON) is finite at x = 0 on every
# backend, where that of x / max(|x|, eps) is NaN on some. A norm above 3e-3 loses nothing
# in float32.
EPSILON = 1e-12


def l2_normalize(x, axis=-1):
    """Scales vectors to unit length: `x / sqrt(sum(x**2) + 1e-12)`.

    A zero vector stays zero and has a finite gradient.

    Args:
        x: tensor, any shape, of a floating dtype; computed in float32 at least.
        axis: the axis that holds a vector.

    Returns:
        A tensor of the shape of `x`.
    """
    x = _at_least_float32(x)
    return x * ops.rsqrt(ops.sum(ops.square(x), axis=axis, keepdims=True) + EPSILON)


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
    p, z = _at_least_float32(p), _at_least_float32(z)
    return -ops.sum(ops.softmax(z, axis=-1) * ops.log_softmax(p, axis=-1), axis=-1)


@keras.saving.register_keras_serializable("simsiam_keras")
class CrossEntropySimilarity(keras.losses.Loss):
    """`cross_entropy_similarity` under Keras's reduction, as `loss(z, p)`.

    Args:
        reduction: as in `keras.losses.Loss`; default `"sum_over_batch_size"`.
        name: default `"cross_entropy_similarity"`.
        dtype: as in `keras.losses.Loss`.
    """

    def __init__(
        self,
        reduction="sum_over_batch_size",
        name="cross_entropy_similarity",
        dtype=None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)

    def call(self, y_true, y_pred):
        return cross_entropy_similarity(y_pred, y_true)


SIMILARITIES = {"cosine": NegativeCosineSimilarity, "cross_entropy": CrossEntropySimilarity}


def _at_least_float32(x):
    half = keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16")
    return ops.cast(x, "float32") if half else x
