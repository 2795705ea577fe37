"""Gradients with respect to Keras variables, on whichever backend runs."""

import keras
import numpy as np


def gradients(loss_fn, variables):
    """Gradients of `loss_fn()` as NumPy arrays, zeros where it does not depend on a variable."""
    backend = keras.backend.backend()
    values = [v.value for v in variables]
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = loss_fn()
        grads = tape.gradient(loss, values, unconnected_gradients="zero")
    elif backend == "jax":
        import jax

        def stateless(values):
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return loss_fn()

        grads = jax.grad(stateless)(values)
    else:
        import torch

        grads = torch.autograd.grad(loss_fn(), values, allow_unused=True)
        grads = [
            torch.zeros_like(v) if g is None else g for g, v in zip(grads, values, strict=True)
        ]
    return [np.array(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(g))) for g in grads]


def gradients_of_arrays(fn, *arrays):
    """Gradients of the scalar `fn(*tensors)` with respect to every array."""
    variables = [keras.Variable(a, dtype=str(a.dtype)) for a in arrays]
    return gradients(lambda: fn(*(keras.ops.convert_to_tensor(v) for v in variables)), variables)
