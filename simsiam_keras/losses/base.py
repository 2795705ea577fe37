"""What the losses share: precision, unit length, and the mean over the global batch."""

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


@keras.saving.register_keras_serializable("simsiam_keras")
class BatchMean(keras.losses.Loss):
    """The mean of per-sample values over the global batch, as `loss(values)`.

    Losses are pure functions, of more than a pair of tensors some, and of integers, which a
    `keras.losses.Loss` would make floats of. This class brings Keras's reduction to their values:
    it divides by the number of replicas.

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


def check_temperature(temperature):
    """Raises where a temperature is not above 0."""
    if temperature <= 0:
        raise ValueError(f"`temperature` must be > 0. Received: temperature={temperature}")
