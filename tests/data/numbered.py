"""Sources whose image i has the value i in every pixel, and what a pipeline makes of them."""

import time

import numpy as np

from simsiam_keras.data import base, pipeline

N, BATCH, SIZE = 23, 5, 4
LABELS = np.arange(N) % 3


def numbered(labels=LABELS):
    """Images of 6 x 8 in memory."""
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    images = np.broadcast_to(images, (len(labels), 6, 8, 3))
    return base.ArraySource("numbers", images.copy(), labels)


class OnTheFly(base.EncodedSource):
    """Images of various sizes, read in unpredictable time, with the `min_side` asked for."""

    def __init__(self, labels=LABELS):
        super().__init__("various", list(range(len(labels))), labels, None, None, "0")
        self.asked = set()

    def decode(self, index, min_side=None):
        self.asked.add(min_side)
        time.sleep((index * 7 % 5) / 1000)
        return np.full((6 + index % 3, 8, 3), index, np.uint8)


def same(images, seed):
    return images[:, :SIZE, :SIZE], images[:, :SIZE, :SIZE]


def marked(images, seed):
    """Writes a draw from the seed over all but the first column, as an augmentation would."""
    import tensorflow as tf

    n = tf.shape(images)[0]
    draws = tf.random.stateless_uniform([2, n, SIZE, SIZE - 1, 3], seed, 0, 256, tf.int32)
    first = images[:, :SIZE, :1]
    return tuple(tf.concat([first, tf.cast(d, tf.uint8)], axis=2) for d in tf.unstack(draws))


def take(dataset):
    return [tuple(np.asarray(x) for x in views) for views in dataset]


def numbers(batches):
    """Which image each view came from, `[batches, 2, batch]`."""
    return np.array([[x[:, 0, 0, 0] for x in pair] for pair in batches])


def default(source, first_epoch=0, epochs=3, views=marked, seed=1):
    return pipeline.training_views(source, views, BATCH, seed, first_epoch, epochs)
