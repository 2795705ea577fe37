"""Losses as pure functions of backend tensors, and their `keras.losses.Loss` classes.

No stop-gradient is written here: which branch is held constant is the method's decision.
"""

import keras
from keras import ops

# Inside the square root: the gradient of x / sqrt(|x|^2 + EPSILON) is finite at x = 0 on every
# backend, where that of x / max(|x|, eps) is NaN on some. A norm above 3e-3 loses nothing
# in float32.
EPSILON = 1e-12


def at_least_float32(x):
    """Casts float16 and bfloat16 to float32 and leaves float32 and float64 as they are.

    Args:
        x: tensor, any shape, of a floating dtype.

    Returns:
        A tensor of the shape of `x`.
    """
    half = keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16")
    return ops.cast(x, "float32") if half else x


def l2_normalize(x, axis=-1):
    """Scales vectors to unit length: `x / sqrt(sum(x**2) + 1e-12)`.

    A zero vector stays zero and has a finite gradient.

    Args:
        x: tensor, any shape, of a floating dtype; computed in float32 at least.
        axis: the axis that holds a vector.

    Returns:
        A tensor of the shape of `x`.
    """
    x = at_least_float32(x)
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
    p, z = at_least_float32(p), at_least_float32(z)
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


@keras.saving.register_keras_serializable("simsiam_keras")
class NormalizedRegression(keras.losses.Loss):
    """`regression` under Keras's reduction, as `loss(z, p)`.

    Args:
        reduction: as in `keras.losses.Loss`; default `"sum_over_batch_size"`.
        name: default `"normalized_regression"`.
        dtype: as in `keras.losses.Loss`.
    """

    def __init__(self, reduction="sum_over_batch_size", name="normalized_regression", dtype=None):
        super().__init__(reduction=reduction, name=name, dtype=dtype)

    def call(self, y_true, y_pred):
        return regression(y_pred, y_true)


def swapped_prediction(scores, codes, temperature=0.1):
    """SwAV's loss, `l(z, q) = -sum_k q_k log softmax(scores / temperature)_k`, per sample.

    It is at least the entropy of the codes, which it reaches where softmax(scores / temperature)
    equals them, and has no upper bound; log(k) where the scores of a sample are equal. Neither
    argument is held constant.

    Args:
        scores: cosines of one view's outputs with the prototypes, `[n, k]`.
        codes: q, the other view's assignment to them, `[n, k]`; rows sum to 1.
        temperature: the paper's tau, default .1.

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
    _check_temperature(temperature)
    scores, codes = at_least_float32(scores), at_least_float32(codes)
    return -ops.sum(codes * ops.log_softmax(scores / temperature, axis=-1), axis=-1)


@keras.saving.register_keras_serializable("simsiam_keras")
class SwappedPrediction(keras.losses.Loss):
    """`swapped_prediction` under Keras's reduction, as `loss(codes, scores)`.

    Args:
        temperature: the paper's tau, default .1.
        reduction: as in `keras.losses.Loss`; default `"sum_over_batch_size"`.
        name: default `"swapped_prediction"`.
        dtype: as in `keras.losses.Loss`.

    Raises:
        ValueError: if `temperature` is not positive.
    """

    def __init__(
        self,
        temperature=0.1,
        reduction="sum_over_batch_size",
        name="swapped_prediction",
        dtype=None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        _check_temperature(temperature)
        self.temperature = temperature

    def call(self, y_true, y_pred):
        return swapped_prediction(y_pred, y_true, self.temperature)

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}


def nt_xent(z, others, temperature=0.5, first=0, all_z=None, all_others=None):
    """SimCLR's normalized temperature-scaled cross-entropy over the global batch, per sample.

    With s(a, b) the cosine and A the 2N outputs of both views of all N samples,

        l(a, b) = -log(exp(s(a, b) / temperature) / sum_{c in A, c != a} exp(s(a, c) / temperature))

    sample i has the value `(l(z_i, others_i) + l(others_i, z_i)) / 2`, so that the mean over the
    samples of all replicas is the paper's loss, a mean over 2N anchors. It lies in
    [0, log(1 + (2N - 2) exp(2 / temperature))]: log(2N - 1) when all outputs are equal or zero, 0
    for N = 1. No argument is held constant; where outputs are gathered from other replicas, their
    gradient must come back.

    Args:
        z: outputs of one view of this replica's samples, `[n, d]`.
        others: those of the other view, `[n, d]`.
        temperature: the paper's tau, default .5.
        first: row of `all_z` that holds the first row of `z`, an integer or a scalar tensor.
        all_z: outputs of one view of all replicas, in order, `[N, d]`; default None: there is one
            replica, `all_z = z` and `first = 0`.
        all_others: those of the other view, `[N, d]`.

    Returns:
        `[n]` values, float32 or wider; reduce them with `BatchMean`.

    Raises:
        ValueError: if `temperature` is not positive, or only one of `all_z` and `all_others` is
            given.

    Example:
    >>> import numpy as np
    >>> same = np.ones([4, 3], "float32")
    >>> [round(float(v), 4) for v in nt_xent(same, same)]  # log(7)
    [1.9459, 1.9459, 1.9459, 1.9459]

    Reference:
        Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
        equation 1 and algorithm 1, https://arxiv.org/abs/2002.05709
    """
    _check_temperature(temperature)
    if (all_z is None) != (all_others is None):
        missing = "all_z" if all_z is None else "all_others"
        raise ValueError(
            f"`all_z` and `all_others` must be given together. Received: {missing}=None"
        )
    # Once: from two, the gradient of a float16 zero vector would be inf - inf.
    z, others = l2_normalize(z), l2_normalize(others)
    if all_z is None:
        all_z, all_others, first = z, others, 0
    else:
        all_z, all_others = l2_normalize(all_z), l2_normalize(all_others)
    rows = ops.add(ops.arange(ops.shape(z)[0], dtype="int32"), first)
    itself = ops.equal(rows[:, None], ops.arange(ops.shape(all_z)[0], dtype="int32"))  # [n, N]

    def log_denominator(a, same_view, other_view):
        same = ops.matmul(a, ops.transpose(same_view)) / temperature
        other = ops.matmul(a, ops.transpose(other_view)) / temperature
        same = ops.where(itself, -float("inf"), same)
        return ops.logsumexp(ops.concatenate([same, other], axis=1), axis=1)

    positive = ops.sum(z * others, axis=-1) / temperature
    both = log_denominator(z, all_z, all_others) + log_denominator(others, all_others, all_z)
    return both / 2 - positive


@keras.saving.register_keras_serializable("simsiam_keras")
class BatchMean(keras.losses.Loss):
    """The mean of per-sample values over the global batch, as `loss(values)`.

    For losses that are more than a pair of tensors, such as `nt_xent`, or that take integers, such
    as those of `mining`: a `keras.losses.Loss` makes floats of all its arguments, which large
    integers do not survive. So the values come from the pure function, and this class brings
    Keras's reduction, which divides by the number of replicas.

    Args:
        reduction: as in `keras.losses.Loss`; default `"sum_over_batch_size"`.
        name: default `"batch_mean"`.
        dtype: as in `keras.losses.Loss`.

    Example:
    >>> import numpy as np
    >>> float(BatchMean()(np.array([1.0, 2.0, 6.0])))
    3.0
    """

    def __init__(self, reduction="sum_over_batch_size", name="batch_mean", dtype=None):
        super().__init__(reduction=reduction, name=name, dtype=dtype)

    def __call__(self, values):
        return super().__call__((), values)

    def call(self, y_true, y_pred):
        return y_pred


def _check_temperature(temperature):
    if temperature <= 0:
        raise ValueError(f"`temperature` must be > 0. Received: temperature={temperature}")
