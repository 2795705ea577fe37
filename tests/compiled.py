"""Functions of tensors as the training step runs them: traced once and compiled."""

import keras
from keras import ops


def compiled(f, *arrays):
    """`f(*arrays)`, compiled by XLA on TensorFlow and JAX; plain on torch."""
    tensors = [ops.convert_to_tensor(a) for a in arrays]
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        f = tf.function(f, jit_compile=True)
    elif backend == "jax":
        import jax

        f = jax.jit(f)
    return f(*tensors)


def of_unknown_size(f, *arrays):
    """`f(*arrays)`, traced on TensorFlow for any number of rows, as `fit` may do it."""
    tensors = [ops.convert_to_tensor(a) for a in arrays]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        specs = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in tensors]
        f = tf.function(f, input_signature=specs)
    return f(*tensors)
