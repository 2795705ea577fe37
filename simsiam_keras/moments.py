"""Batch statistics from one read of the activations, where reading them is what takes the time."""

import functools

import keras
from keras import ops


def read_once(model):
    """Lets every batch normalization of a model find mean and variance in one pass on a GPU.

    Keras reads the activations for the mean and again for the variance around it, and its gradient
    reads them once more. The layers stay what they are, and are saved as such.

    Args:
        model: a `keras.Model`.
    """
    for layer in model._flatten_layers():
        if type(layer) is keras.layers.BatchNormalization and not layer.synchronized:
            layer._moments = functools.partial(moments, layer)


def moments(layer, inputs, mask=None):
    """Mean and variance over all axes but the channels', in float32.

    With s the layer's moving mean, which is near the batch's, and so nothing is cancelled:

        mean = s + E[x - s],   variance = E[(x - s)^2] - E[x - s]^2

    Args:
        layer: a built `keras.layers.BatchNormalization`.
        inputs: float32 `[n, ..., channels]`.
        mask: must be None.

    Returns:
        `(mean, variance)`, each `[channels]`.

    Raises:
        ValueError: if there is a mask.
    """
    if mask is not None:
        raise ValueError("Batch statistics from one read take no mask.")
    axes = layer._reduction_axes
    shape = [1] * len(inputs.shape)
    shape[layer.axis] = -1
    shift = ops.cast(layer.moving_mean, inputs.dtype)
    centred = inputs - ops.reshape(shift, shape)
    first, second = ops.mean(centred, axes), ops.mean(ops.square(centred), axes)
    return shift + first, ops.maximum(second - ops.square(first), 0.0)
