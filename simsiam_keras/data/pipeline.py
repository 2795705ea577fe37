"""From a source to batches: the order and the seeds are functions of (seed, epoch) alone."""

import numpy as np

from simsiam_keras.augment.recipe import LEAST_EVAL_CROP, needed_side
from simsiam_keras.data.base import ArraySource
from simsiam_keras.data.batches import decoded, read_batches, read_canvases
from simsiam_keras.data.tfds import leave_accelerators_alone


def steps_per_epoch(n, batch_size):
    """Number of full batches in an epoch: `n // batch_size`.

    Args:
        n: number of images.
        batch_size: images in a batch, within [1, n].

    Returns:
        An integer, at least 1.

    Raises:
        ValueError: if there is not one full batch.
    """
    if not 1 <= batch_size <= n:
        raise ValueError(
            f"`batch_size` must be between 1 and the number of images, {n}. "
            f"Received: batch_size={batch_size}"
        )
    return n // batch_size


def epoch_order(n, seed, epoch):
    """The permutation in which an epoch visits the images.

    Args:
        n: number of images.
        seed: integer >= 0.
        epoch: integer >= 0.

    Returns:
        int64 `[n]`, the same for the same arguments.

    Example:
    >>> epoch_order(5, seed=0, epoch=1).tolist() == epoch_order(5, seed=0, epoch=1).tolist()
    True
    """
    return np.random.default_rng([seed, epoch]).permutation(n)


def training_views(
    source,
    views,
    batch_size,
    seed=0,
    first_epoch=0,
    epochs=1,
    with_index=False,
    order=None,
    with_labels=False,
    first_step=0,
):
    """Batches of two views for `model.fit`, for every epoch from `first_epoch` on.

    One data set over all epochs, so that nothing waits where one ends; give `fit` the
    `steps_per_epoch`. Each epoch is a new permutation without its incomplete last batch, unless
    `order` says otherwise. Both views of a pair come out of the same read. The augmentation is
    seeded by (seed, number since the beginning of training), of the batch, or of the image when
    they are decoded on the fly: a run resumed at an epoch sees what the uninterrupted run would
    have seen.

    Args:
        source: a `Source` of n images.
        views: callable, (uint8 `[m, h, w, c]`, int64 seed `[2]`) to a pair, or another number, of
            uint8 `[m, size, size, c]` tensors. With an attribute `recipe`, images far larger than
            its crops need are decoded at a fraction of their size.
        batch_size: images in a batch, within [1, n].
        seed: integer >= 0; default 0.
        first_epoch: number of the first epoch; default 0.
        epochs: number after the last epoch; default 1.
        with_index: also give the number of each image in `source`; default False.
        order: function of an epoch's number to the images that it visits, int64 `[steps *
            batch_size]` with as many steps in every epoch, such as
            `lambda epoch: balanced_order(labels, batch_size, classes, seed, epoch)`; default None,
            the permutation.
        with_labels: also give the label of each image; default False.
        first_step: batches of the first epoch to leave out, unread; default 0.

    Returns:
        A `tf.data.Dataset` of (x1, x2), each uint8 `[batch_size, size, size, c]`; with the index
        or the labels, of `{"views": (x1, x2), "index": int64 [batch_size], "labels": likewise}`.

    Raises:
        ValueError: if there is not one full batch, an epoch of `order` is no whole number of
            batches, `seed` is negative, or labels are asked of a source that has none.
        ImportError: if TensorFlow is missing.
    """
    steps, order = ordered(source, batch_size, seed, first_epoch, order, with_labels)
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(
            "Augmentation on the host needs tensorflow: install it, or augment on the device."
        ) from error
    leave_accelerators_alone(tf)
    in_memory = isinstance(source, ArraySource)
    rows = [steps, batch_size] if in_memory else [steps * batch_size]

    def epoch_rows(epoch):
        def read(epoch):
            return order(int(epoch))

        indices = tf.numpy_function(read, [epoch], tf.int64, stateful=False)
        indices = tf.reshape(indices, rows)
        numbers = epoch * rows[0] + tf.range(rows[0], dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((indices, numbers))

    def example(pair, index):
        batch = {"views": tuple(pair)}
        if with_index:
            batch["index"] = index
        if with_labels:
            batch["labels"] = tf.gather(source.labels, index)
        return batch if len(batch) > 1 else batch["views"]

    def batch_views(indices, number):
        images = tf.numpy_function(source.images.__getitem__, [indices], tf.uint8, stateful=False)
        images.set_shape([batch_size, *source.image_shape])
        return example(views(images, tf.stack([tf.cast(seed, tf.int64), number])), indices)

    recipe = getattr(views, "recipe", None)
    min_side = needed_side(recipe) if recipe else None

    def image_views(index, number):
        def read(index):
            return source.read(int(index), min_side)

        image = tf.numpy_function(read, [index], tf.uint8, stateful=False)
        image.set_shape([None, None, source.channels])
        pair = views(image[None], tf.stack([tf.cast(seed, tf.int64), number]))
        return example([x[0] for x in pair], index)

    dataset = tf.data.Dataset.range(first_epoch, epochs).flat_map(epoch_rows)
    dataset = dataset.skip(first_step * (rows[0] // steps))
    dataset = dataset.map(
        batch_views if in_memory else image_views,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    if not in_memory:
        dataset = dataset.batch(batch_size, drop_remainder=True)
    total = steps * max(0, epochs - first_epoch) - first_step
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(total))
    return dataset.prefetch(tf.data.AUTOTUNE)


def training_images(
    source,
    batch_size,
    size=None,
    seed=0,
    first_epoch=0,
    epochs=1,
    with_index=False,
    part=(0, 1),
    order=None,
    with_labels=False,
    first_step=0,
):
    """Batches of plain images, for a model that augments inside its training step.

    NumPy and Pillow only. The order is that of `training_views`.

    Args:
        source: a `Source` of n images.
        batch_size: images in a batch, within [1, n].
        size: default None, images as they are, which must then have one size. A number: the short
            side is scaled to it and the centre cropped to a square. `(height, width)`, the height
            no less than the width: a canvas on which the whole image lies with its aspect, see
            `augment.Views`, for which its place is beside it as `"extent"`. Images of at least
            twice the number, or the width, are decoded at a fraction of their size.
        seed: integer >= 0; default 0.
        first_epoch: number of the first epoch; default 0.
        epochs: number after the last epoch; default 1.
        with_index: also give the number of each image in `source`; default False.
        part: `(i, k)` for the i-th of the k equal parts of each batch, one for each process of a
            run; default the whole batch.
        order: as in `training_views`.
        with_labels: also give the label of each image; default False.
        first_step: as in `training_views`.

    Yields:
        `(images,)`, uint8 `[m, height, width, c]` with m = batch_size / k; with the index or the
        labels, `({"images": images, "index": int64 [m], "labels": likewise},)`; on a canvas
        `({"images": images, "extent": int32 [m, 2], ...},)`.

    Raises:
        ValueError: if there is not one full batch, k does not divide it, an epoch of `order` is no
            whole number of batches, `seed` is negative, sizes vary and `size` is None, or labels
            are asked of a source that has none.
    """
    steps, order = ordered(source, batch_size, seed, first_epoch, order, with_labels)
    i, k = part
    if batch_size % k:
        raise ValueError(
            f"`batch_size` must be a multiple of the {k} parts. Received: batch_size={batch_size}"
        )
    if size is None and source.image_shape is None:
        raise ValueError("`size` must be given where the sizes of the images vary. Received: None")

    def batches():
        for epoch in range(first_epoch, epochs):
            rows = order(epoch).reshape(steps, k, batch_size // k)[:, i]
            rows = rows[first_step if epoch == first_epoch else 0 :]
            batches = read_images(source, rows.ravel(), size, batch_size // k)
            for batch, index in zip(batches, rows, strict=True):
                if with_index:
                    batch["index"] = index
                if with_labels:
                    batch["labels"] = source.labels[index]
                yield (batch if len(batch) > 1 else batch["images"],)

    return batches()


def read_images(source, order, size, batch_size):
    """Yields `{"images": images}`, with `"extent"` on a canvas, in an order; see `training_images`.

    Args:
        source: a `Source`.
        order: int64 `[n]`, numbers of images.
        size: as in `training_images`.
        batch_size: images in a batch; the last may have fewer.
    """
    if isinstance(size, tuple):
        for images, extent in read_canvases(source, order, size, batch_size):
            yield {"images": images, "extent": extent}
    else:
        for images in read_batches(source, order, size, 1.0, batch_size, min_side=size):
            yield {"images": images}


def evaluation_batches(source, size, eval_crop=1.0, batch_size=256):
    """Images in order and un-augmented, for features, kNN and probes.

    The short side is scaled to `round(size / eval_crop)`, bilinear with antialiasing, and the
    centre is cropped; an image that has this size already is not resampled. One whose short side is
    eight times that or more is decoded at a fraction, four times that at least. NumPy and Pillow
    only.

    Args:
        source: a `Source`.
        size: side of the images, at least 1.
        eval_crop: fraction of the short side that is kept, in [.1, 1]; default 1.
        batch_size: at least 1; default 256.

    Yields:
        (uint8 `[m, size, size, c]`, labels `[m]` or None) with m = `batch_size`, less in the last.
        An image that cannot be decoded is left out and in `source.missing`; `source.rows()` has
        the numbers of the others.

    Raises:
        ValueError: if an argument is out of its range, or ten images in a row cannot be decoded.
    """
    for name, value in (("size", size), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"`{name}` must be >= 1. Received: {name}={value}")
    if not LEAST_EVAL_CROP <= eval_crop <= 1:
        raise ValueError(
            f"`eval_crop` must be within [{LEAST_EVAL_CROP}, 1]. Received: eval_crop={eval_crop}"
        )

    def batches():
        for part, images in decoded(source, size, eval_crop, batch_size):
            yield images, None if source.labels is None else source.labels[part]

    return batches()


def sample_images(source, count, seed=0, min_side=None):
    """Some images, for previews.

    Args:
        source: a `Source` of n images.
        count: number of images; at most n are returned.
        seed: integer >= 0; default 0.
        min_side: as in `Source.read`.

    Returns:
        A list of uint8 `[height, width, channels]` arrays, no image twice.
    """
    order = epoch_order(len(source), seed, 0)[:count]
    return [source.read(i, min_side) for i in order.tolist()]


def ordered(source, batch_size, seed, first_epoch, order, with_labels):
    """The steps of an epoch, and the function of its number to its images.

    Arguments and errors are those of `training_views`.
    """
    steps, order = _steps_and_order(source, batch_size, seed, first_epoch, order)
    if seed < 0:
        raise ValueError(f"`seed` must be >= 0. Received: seed={seed}")
    if with_labels and source.labels is None:
        raise ValueError(
            f"`with_labels` needs a source with labels. Received: {source.name}, without labels"
        )
    return steps, order


def _steps_and_order(source, batch_size, seed, first_epoch, order):
    if order is None:
        steps = steps_per_epoch(len(source), batch_size)
        return steps, lambda epoch: epoch_order(len(source), seed, epoch)[: steps * batch_size]
    visited = len(order(first_epoch))
    if batch_size < 1 or visited < 1 or visited % batch_size:
        raise ValueError(
            "`order` must visit a multiple of `batch_size` images. "
            f"Received: {visited} images in epoch {first_epoch}, batch_size={batch_size}"
        )
    return visited // batch_size, order
