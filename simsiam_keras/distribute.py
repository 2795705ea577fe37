"""Where the step runs: devices, processes, and the one decision on synchronized statistics.

TensorFlow: several GPUs of one machine under `tf.distribute.MirroredStrategy`. JAX: every device of
every process under `keras.distribution.DataParallel`. PyTorch: one device.
"""

import contextlib
import os

import keras
import numpy as np

from simsiam_keras.errors import ProcessLost

# What JAX says when a process it was computing with is gone; the exception's type varies.
LOST = ("Gloo", "NCCL", "coordination service", "heartbeat")


def initialize(job_addresses="", num_processes=0, process_id=-1):
    """Joins the processes of one run through `keras.distribution.initialize`, on JAX.

    What is left at its default comes from KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and
    _PROCESS_ID; without an address there is one process and nothing is done. Call it before
    anything is computed.

    Args:
        job_addresses: `HOST:PORT` of the first process.
        num_processes: how many there are.
        process_id: the number of this one, from 0; the first one writes.

    Raises:
        ValueError: if the backend is not JAX, or the three do not go together.
    """
    job_addresses = job_addresses or os.environ.get("KERAS_DISTRIBUTION_JOB_ADDRESSES", "")
    if not job_addresses:
        if num_processes > 1 or process_id > 0:
            raise ValueError(
                "`num_processes` and `process_id` need `job_addresses`, HOST:PORT of the first "
                f"process. Received: num_processes={num_processes}, process_id={process_id}"
            )
        return
    if keras.backend.backend() != "jax":
        raise ValueError(
            "Several processes need the JAX backend. Received: "
            f"job_addresses={job_addresses}, backend={keras.backend.backend()}"
        )
    if process_id < 0:
        process_id = _integer("KERAS_DISTRIBUTION_PROCESS_ID", -1)
    num_processes = num_processes or _integer("KERAS_DISTRIBUTION_NUM_PROCESSES", 0)
    if not 0 <= process_id < num_processes:
        raise ValueError(
            "`job_addresses` needs `num_processes` and a `process_id` from 0 to num_processes - 1. "
            f"Received: num_processes={num_processes}, process_id={process_id}"
        )
    import jax

    if not jax.distributed.is_initialized():
        keras.distribution.initialize(job_addresses, num_processes, process_id)


def scope(strategy="auto", virtual_devices=0):
    """The context in which a model is built and trained.

    Args:
        strategy: `"none"`, one device; `"mirrored"`, one replica for each GPU (or virtual device)
            under `tf.distribute.MirroredStrategy`; `"auto"`, all GPUs on TensorFlow, all devices of
            all processes on JAX.
        virtual_devices: split the CPU into this many devices first.

    Returns:
        A context manager.

    Raises:
        ValueError: if the backend does not have what is asked for, or the CPU was in use before it
            could be split.
    """
    backend = keras.backend.backend()
    if strategy == "mirrored" and backend != "tensorflow":
        raise ValueError(
            "`strategy='mirrored'` needs the TensorFlow backend; on JAX, `strategy='auto'` trains "
            f"on all devices under keras.distribution.DataParallel. Received: backend={backend}"
        )
    if backend == "tensorflow":
        return _tensorflow_scope(strategy, virtual_devices)
    if backend == "jax":
        return _jax_scope(strategy, virtual_devices)
    if virtual_devices:
        raise ValueError(
            "`virtual_devices` needs the TensorFlow or the JAX backend. "
            f"Received: virtual_devices={virtual_devices}, backend={backend}"
        )
    return contextlib.nullcontext()


def _tensorflow_scope(strategy, virtual_devices):
    import tensorflow as tf

    if virtual_devices:
        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * virtual_devices
        with contextlib.suppress(RuntimeError):  # in use already
            tf.config.set_logical_device_configuration(cpu, parts)
        _check_devices(virtual_devices, len(tf.config.list_logical_devices("CPU")))
    if strategy == "mirrored":
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        names = [device.name for device in tf.config.list_logical_devices(kind)]
        return tf.distribute.MirroredStrategy(names).scope()
    if strategy == "auto" and len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy().scope()
    return contextlib.nullcontext()


def _jax_scope(strategy, virtual_devices):
    import jax

    if virtual_devices:
        with contextlib.suppress(RuntimeError):  # in use already
            jax.config.update("jax_num_cpu_devices", virtual_devices)
        _check_devices(virtual_devices, len(jax.local_devices(backend="cpu")))
    if strategy == "none" and processes() > 1:
        raise ValueError(
            "`strategy='none'` is one device; several processes need `strategy='auto'`. "
            f"Received: {processes()} processes"
        )
    if strategy == "none" or jax.device_count() == 1:
        return contextlib.nullcontext()
    # Every process reads its own part of each batch, see data.pipeline.training_images.
    return keras.distribution.DataParallel(auto_shard_dataset=False).scope()


def _check_devices(wanted, found):
    if found != wanted:
        raise ValueError(
            "`virtual_devices` must be set before the backend computes; the CPU is already "
            f"{found} device(s). Received: virtual_devices={wanted}"
        )


def _integer(variable, default):
    text = os.environ.get(variable, default)
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{variable} must be an integer. Received: {text}") from None


def replicas():
    """Number of devices that share a batch, in the scope of a strategy; 1 without one."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.get_strategy().num_replicas_in_sync
    distribution = keras.distribution.distribution()
    return distribution.num_model_replicas if distribution else 1


def replica():
    """Number of the replica whose step is being traced; 0 where the batch axis is global."""
    context = _several()
    return context.replica_id_in_sync_group if context else 0


def gather(x):
    """The rows of every replica, in order: of `[n, d]` on each, `[N, d]` on all.

    Gradients flow to the replicas that the rows came from; the static shape is lost. Where the
    batch axis is global already, or there is one replica, x itself.
    """
    context = _several()
    return context.all_gather(x, axis=0) if context else x


def total(x):
    """The sum of x over the replicas; x itself where the batch axis is global, or with one."""
    context = _several()
    return context.all_reduce("SUM", x) if context else x


def own_rows(x):
    """This replica's equal part of `[n, ...]`, n a multiple of the replicas; x itself with one."""
    context = _several()
    if context is None:
        return x
    n = x.shape[0] // replicas()
    first = context.replica_id_in_sync_group * n
    return x[first : first + n]


def _several():
    """TensorFlow's replica context where it has several replicas, else None."""
    if keras.backend.backend() != "tensorflow" or replicas() == 1:
        return None
    import tensorflow as tf

    return tf.distribute.get_replica_context()  # None while a model is built


def spread():
    """Whether variables lie on several devices that can only compute together (JAX)."""
    return keras.distribution.distribution() is not None


def processes():
    """Number of processes of the run."""
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return jax.process_count()


def process():
    """Number of this process, from 0; the first one writes."""
    if keras.backend.backend() != "jax":
        return 0
    import jax

    return jax.process_index()


def feed(make_batches):
    """What `fit` takes: a generator, or the tf.data data set that MirroredStrategy can divide.

    Keras would make such a data set of a generator by itself, but reads its first batches twice.

    Args:
        make_batches: function without arguments to a generator of batches, all of the same shapes.
    """
    if keras.backend.backend() != "tensorflow" or replicas() == 1:
        return make_batches()
    import tensorflow as tf

    signature = keras.tree.map_structure(
        lambda x: tf.TensorSpec(x.shape, x.dtype), next(make_batches())
    )
    return tf.data.Dataset.from_generator(make_batches, output_signature=signature)


@contextlib.contextmanager
def alone():
    """Within this context a model belongs to this process alone, on its first device."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def check_agreement(value, name):
    """Checks that every process has the same value.

    Args:
        value: an integer.
        name: what it is, for the error.

    Raises:
        ValueError: if they differ.
    """
    if processes() == 1:
        return
    from jax.experimental import multihost_utils

    found = multihost_utils.process_allgather(np.asarray(value)).tolist()
    if len(set(found)) > 1:
        raise ValueError(
            f"{name} must be the same in every process; --run_dir must be a folder that all see. "
            f"Received: {found}"
        )


@contextlib.contextmanager
def noticing_lost_processes():
    """Turns what a backend raises when another process is gone into a sentence.

    Raises:
        ProcessLost: if that is what happened; other errors pass.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if processes() == 1 or not any(word in str(error) for word in LOST):
            raise
        raise ProcessLost(
            f"another of the {processes()} processes of this run has ended; see what it said. "
            "Start all of them again with the same flags to go on from the last checkpoint"
        ) from error


def synchronize(model):
    """Lets batch normalization use the statistics of the global batch, as the paper does.

    Decided here and nowhere else: with several replicas of TensorFlow, every such layer of the
    model averages its moments over them; with one, none does. JAX needs nothing, its batch axis is
    global.

    Args:
        model: a `keras.Model`.
    """
    several = keras.backend.backend() == "tensorflow" and replicas() > 1
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = several
