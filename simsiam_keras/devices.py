"""What computes: the backend's devices, their memory, and what is compiled for them."""

import contextlib
import importlib.util
import math
import sys

import keras
import numpy as np

PIXELS = 2**20  # that an encoder sees at a time on a CPU: 20 images of 224 px


def names():
    """Names of the devices that the backend sees, such as `gpu:0` or `cpu:0`."""
    if keras.backend.backend() == "torch":  # Keras does not list torch's
        import torch

        return [f"gpu:{i}" for i in range(torch.cuda.device_count())] or ["cpu:0"]
    return [str(device) for device in keras.distribution.list_devices()]


def on_accelerator():
    """Whether the backend computes on a GPU."""
    return any("gpu" in device.lower() for device in names())


def accelerator_memory():
    """Bytes that JAX may use on the first accelerator; None without one."""
    if keras.backend.backend() != "jax" or not on_accelerator():
        return None
    import jax

    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def peak_memory():
    """Bytes used at the highest: of the first accelerator, without one of this process.

    None where the system does not tell, as on Windows.
    """
    backend = keras.backend.backend()
    if on_accelerator():
        if backend == "tensorflow":
            import tensorflow as tf

            return tf.config.experimental.get_memory_info("GPU:0")["peak"]
        if backend == "torch":
            import torch

            return torch.cuda.max_memory_allocated()
        import jax

        return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]
    if importlib.util.find_spec("resource") is None:
        return None
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used


def on_host():
    """A context for small computations, each of which a GPU's compiler would take long over.

    On JAX they run on the CPU within it, and arrays that are made move to where they are used.
    Elsewhere nothing changes.
    """
    if keras.backend.backend() == "jax" and on_accelerator():
        return keras.device("cpu:0")
    return contextlib.nullcontext()


def compiled(function):
    """A function of arrays and of lists of them as one program, on backends that compile."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.jit(function)
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    return function


def images_at_a_time(shape):
    """How many images an encoder had best see at a time.

    On a CPU 16 of 224 px take a quarter of the memory that 256 take, and a little less time for
    each: their maps stay near the processor. An accelerator takes as many as there are.

    Args:
        shape: of the images, `[n, height, width, channels]`.
    """
    n, height, width = shape[:3]
    return max(1, n) if on_accelerator() else max(1, PIXELS // (height * width))


def in_pieces(encode, images):
    """Features of images, made of as many at a time as `images_at_a_time` has it.

    Args:
        encode: function of images to `[n, d]`.
        images: `[n, height, width, channels]`.

    Returns:
        float32 `[n, d]`, a NumPy array.
    """
    pieces = max(1, math.ceil(len(images) / images_at_a_time(np.shape(images))))
    found = [np.asarray(encode(part), "float32") for part in np.array_split(images, pieces)]
    return found[0] if pieces == 1 else np.concatenate(found)


def jit_compile(asked):
    """What `--jit` means to `keras.Model.compile`: `on`, `off`, or `auto`."""
    if asked != "auto":
        return asked == "on"
    # TensorFlow's own kernels are 1.4 to 8 times faster on a CPU (benchmarks/results/step.md).
    return "auto" if on_accelerator() or keras.backend.backend() != "tensorflow" else False
