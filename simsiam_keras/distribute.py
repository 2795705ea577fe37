"""Where the step runs, and the one decision on synchronized batch normalization."""

import contextlib

import keras


def scope(strategy="auto", virtual_devices=0):
    """The context in which a model is built and trained.

    Args:
        strategy: `"none"`; `"mirrored"`, one replica for each GPU (or virtual device) under
            `tf.distribute.MirroredStrategy`; `"auto"`, mirrored where there are several GPUs.
        virtual_devices: on TensorFlow, split the CPU into this many devices first.

    Returns:
        A context manager.

    Raises:
        ValueError: if the backend is not TensorFlow and a strategy is asked for, or the CPU was in
            use before it could be split.
    """
    if keras.backend.backend() != "tensorflow":
        if strategy == "mirrored" or virtual_devices:
            raise ValueError(
                "`strategy='mirrored'` and `virtual_devices` need the TensorFlow backend. "
                f"Received: backend={keras.backend.backend()}"
            )
        return contextlib.nullcontext()
    import tensorflow as tf

    if virtual_devices:
        _split_cpu(tf, virtual_devices)
    if strategy == "mirrored":
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        devices = [d.name for d in tf.config.list_logical_devices(kind)]
        return tf.distribute.MirroredStrategy(devices).scope()
    if strategy == "auto" and len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy().scope()
    return contextlib.nullcontext()


def replicas():
    """Number of replicas of the strategy in scope; 1 without one."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def devices():
    """Names of the devices that the backend sees, such as `gpu:0` or `cpu:0`."""
    if keras.backend.backend() == "torch":  # Keras does not list torch's
        import torch

        return [f"gpu:{i}" for i in range(torch.cuda.device_count())] or ["cpu:0"]
    return [str(device) for device in keras.distribution.list_devices()]


def synchronize(model):
    """Lets batch normalization use the statistics of the global batch, as the paper does.

    Decided here and nowhere else: with several replicas, every such layer of the model averages its
    moments over them; with one, none does. JAX needs nothing, its batch axis is global.

    Args:
        model: a `keras.Model`.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = replicas() > 1


def _split_cpu(tf, count):
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError:
        found = len(tf.config.list_logical_devices("CPU"))
        if found != count:
            raise ValueError(
                f"`virtual_devices` must be set before TensorFlow is used; the CPU is already "
                f"{found} devices. Received: virtual_devices={count}"
            ) from None
