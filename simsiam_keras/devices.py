"""What computes: the backend's devices, their memory, and what is compiled for them."""

import contextlib
import importlib.util
import sys

import keras


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


def jit_compile(asked):
    """What `--jit` means to `keras.Model.compile`: `on`, `off`, or `auto`."""
    if asked != "auto":
        return asked == "on"
    # TensorFlow's own kernels are 1.4 to 8 times faster on a CPU (benchmarks/results/step.md).
    return "auto" if on_accelerator() or keras.backend.backend() != "tensorflow" else False
