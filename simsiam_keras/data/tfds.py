"""TensorFlow data sets, read as encoded images: Pillow decodes them like any others."""

import difflib
from pathlib import Path

import numpy as np
from absl import logging

from simsiam_keras.data.base import NoSuchSplit, digest
from simsiam_keras.data.decoding import CHUNK, from_encoded, memory_bytes
from simsiam_keras.data.found import Found


def load(name, data_dir, split, value_range, channels=3):
    """Reads the encoded images and the labels of one split into memory.

    Args:
        name: as TFDS spells it.
        data_dir: where it is or will be prepared; None for TFDS's own place.
        split: TFDS's split syntax.
        value_range: as in `sources.load`.
        channels: as in `sources.load`.

    Returns:
        A `Source`.

    Raises:
        NoSuchSplit: if it has no such split.
        ValueError: if there is no such data set, it cannot be prepared, has no image, or does not
            fit into half of the memory.
        ImportError: if TensorFlow or tensorflow-datasets is missing.
    """
    tf, tfds = _modules(name)
    builder = _builder(tfds, name, data_dir)
    if not builder.is_prepared():
        try:
            builder.download_and_prepare()
        except Exception as error:
            raise ValueError(
                f"TFDS could not download and prepare {name}; prepare it in a folder and pass that "
                f"as `data_dir`. Received: {type(error).__name__}: {error}"
            ) from error
    try:
        bytes_on_disk = builder.info.splits[split].num_bytes
    except (KeyError, ValueError) as error:
        raise NoSuchSplit(name, split, tuple(builder.info.splits)) from error
    _check_memory(name, bytes_on_disk or 0)
    image, label = _features(tfds, name, builder.info.features)
    dataset = builder.as_dataset(
        split=split,
        decoders={image: tfds.decode.SkipDecoding()},
        # One shard after another: the order, and with it every seed, is then the same anywhere.
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )
    dataset = dataset.map(lambda e: (e[image], e[label] if label else tf.constant(-1, tf.int64)))
    items, labels, held = [], [], 0
    for some_items, some_labels in dataset.batch(CHUNK).as_numpy_iterator():
        items.extend(some_items)
        labels.append(some_labels)
        held += sum(map(len, some_items))
        _check_memory(name, held)  # The size on disk is not always known beforehand.
    labels = np.concatenate(labels).astype(np.int64) if labels else np.zeros(0, np.int64)
    labelled = len(labels) and labels.min() >= 0  # TFDS writes -1 where a test set hides its labels
    classes = tuple(builder.info.features[label].names) if labelled else None
    known = Found(name, split, tuple(builder.info.splits))
    labels = labels if labelled else None
    options = {"value_range": value_range, "found": known, "channels": channels}
    return from_encoded(name, items, labels, classes, digest(items), **options)


def splits(name, data_dir):
    """Names of the splits of a TensorFlow data set."""
    return tuple(_builder(_modules(name)[1], name, data_dir).info.splits)


def _modules(name):
    try:
        import tensorflow as tf
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"`{name}` is read as a TensorFlow data set, which needs tensorflow and "
            "tensorflow-datasets: install them, or use `folder:PATH`, `npz:PATH` or `digits`."
        ) from error
    leave_accelerators_alone(tf)
    return tf, tfds


def _builder(tfds, name, data_dir):
    try:
        return tfds.builder(name, data_dir=data_dir or None)
    except Exception as error:  # ValueError, AssertionError, ImportError: TFDS has no one kind.
        raise ValueError(
            "`dataset` must be digits, folder:PATH, npz:PATH or the name of a TensorFlow data set. "
            f"Received: dataset={name}{_hint(tfds, name, error)}"
        ) from error


def _hint(tfds, name, error):
    if Path(name).is_dir():
        return f"; did you mean folder:{name}?"
    if name.endswith(".npz"):
        return f"; did you mean npz:{name}?"
    known = tfds.list_builders(with_community_datasets=False)
    if name.split("/")[0].split(":")[0] in known:
        return f"; TFDS says: {error}"
    close = difflib.get_close_matches(name.lower(), known, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _check_memory(name, size):
    if size > memory_bytes() // 2:
        raise ValueError(
            f"{name} must fit into half of the memory: {size / 2**30:.1f} GiB of "
            f"{memory_bytes() / 2**30:.1f} GiB. Write its images into class folders and use "
            "`folder:PATH`, which reads them from the disk."
        )


def _features(tfds, name, features):
    images = [k for k, feature in features.items() if type(feature) is tfds.features.Image]
    if "image" in images:
        images = ["image"]
    if len(images) != 1:
        raise ValueError(
            f"`dataset` must have an image feature named `image`, or just one. Received: "
            f"dataset={name}, features: {', '.join(features)}"
        )
    labelled = "label" in features and isinstance(features["label"], tfds.features.ClassLabel)
    return images[0], "label" if labelled else None


def leave_accelerators_alone(tf):
    """Hides the GPUs from TensorFlow when another backend trains."""
    # TensorFlow takes all of a GPU's memory at its first operation; on another backend it only
    # reads files here, and the memory is the model's.
    import keras

    if keras.config.backend() != "tensorflow":
        try:
            tf.config.set_visible_devices([], "GPU")
        except RuntimeError:
            logging.warning("TensorFlow was in use before and may hold memory of the GPU.")
