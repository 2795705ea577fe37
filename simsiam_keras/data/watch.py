"""What `fit` is given, looked at without reading it twice where that can be avoided."""

import types

import keras
import numpy as np


def watched(x, look, check_arrays, refusal):
    """What stands in the place of `x` in `fit`: the same batches, each of at least two images.

    Of a `tf.data.Dataset` or a generator the first batch is looked at when it is read, of a
    `PyDataset` or torch's `DataLoader` an item is read once more. Integers need no look.

    Args:
        x: anything that `fit` takes.
        look: function of the arrays of a batch, a list.
        check_arrays: function of the arrays that `x` is, if it is.
        refusal: what to say of a batch of one image.

    Returns:
        `x`, or a data set or generator of the same batches.

    Raises:
        ValueError: at once or when it is read, if a batch has one image.
    """
    if hasattr(x, "element_spec") and hasattr(x, "enumerate"):
        return _watched_dataset(x, look, refusal)
    if isinstance(x, types.GeneratorType):
        return _watched_generator(x, look, refusal)
    if isinstance(x, keras.utils.PyDataset):
        look(_arrays(x[0]))
        if x.num_batches:
            _refuse_one(_arrays(x[x.num_batches - 1]), refusal)
    elif hasattr(x, "dataset") and hasattr(x, "drop_last"):
        _look_at_loader(x, look, refusal)
    elif x is not None and not hasattr(x, "__next__") and _arrays(x):
        check_arrays(_arrays(x))
        look(_arrays(x))
    return x


def floats(arrays):
    """Those of some arrays or tensors that are of floats."""
    return [a for a in arrays if "float" in str(getattr(a, "dtype", ""))]


def _arrays(batch):
    return [a for a in keras.tree.flatten(batch) if len(getattr(a, "shape", ())) > 0]


def _refuse_one(arrays, refusal):
    if arrays and arrays[0].shape[0] == 1:
        raise ValueError(refusal)


def _watched_generator(batches, look, refusal):
    for i, batch in enumerate(batches):
        arrays = _arrays(batch)
        _refuse_one(arrays, refusal)
        if i == 0:
            look(arrays)
        yield batch


def _look_at_loader(loader, look, refusal):
    if not hasattr(loader.dataset, "__len__"):
        return
    n, batch_size = len(loader.dataset), loader.batch_size
    if not loader.drop_last and batch_size and n % batch_size == 1:
        raise ValueError(refusal)
    if n:
        look([np.asarray(a)[None] for a in _arrays(loader.dataset[0])])


def _watched_dataset(dataset, look, refusal):
    import tensorflow as tf

    specs = [s for s in tf.nest.flatten(dataset.element_spec) if isinstance(s, tf.TensorSpec)]
    if not specs or not specs[0].shape.rank:  # nothing that has batches
        return dataset
    if specs[0].shape[0] == 1:
        raise ValueError(refusal)
    if specs[0].shape[0] is not None and not floats(specs):
        return dataset

    def seen(*arrays):
        look(list(arrays))
        return np.True_

    def watch(number, batch):
        tensors = [t for t in tf.nest.flatten(batch) if isinstance(t, tf.Tensor)]
        enough = tf.debugging.assert_greater(tf.shape(tensors[0])[0], 1, message=refusal)
        looked = tf.cond(
            number == 0,
            lambda: tf.numpy_function(seen, floats(tensors), tf.bool),
            lambda: True,
        )
        with tf.control_dependencies([enough, looked]):
            return tf.nest.map_structure(tf.identity, batch)

    return dataset.enumerate().map(watch)
