"""Training a copy of an encoder with a linear layer on few labelled images."""

import keras
import numpy as np

from simsiam_keras import devices
from simsiam_keras.augment.device import Views
from simsiam_keras.augment.recipe import Recipe

MOMENTUM = 0.9  # of batch normalization: a fit may have no more than a hundred steps
_ROWS, _FEWEST = 256, 32  # images in a forward step, a multiple of the latter


def random_like(encoder, seed):
    """A model of the same layers at random initialization.

    The statistics of `Normalization` layers, which belong to the preprocessing, are taken over.

    Args:
        encoder: a `keras.Model`.
        seed: of the weights.

    Returns:
        Another `keras.Model`.
    """
    keras.utils.set_random_seed(seed)
    with devices.on_host():
        made = keras.models.clone_model(encoder)
        pairs = zip(encoder._flatten_layers(), made._flatten_layers(), strict=True)
        for old, new in pairs:
            if isinstance(old, keras.layers.Normalization) and old.weights:
                new.set_weights(old.get_weights())
                new.finalize_state()  # it computes with what this makes of its weights
    return made


class Network:
    """An encoder's copy with a linear layer, trained again and again from given weights.

    It is compiled once: a step always has `batch_size` views, and where there are fewer images each
    comes several times, every time as another view.

    Args:
        encoder: a `keras.Model`, images to features; its weights are never changed.
        classes: number of classes.
        flip: whether views are mirrored at random.
        min_crop: smallest crop of a view as a share of the area.
        learn_statistics: whether batch normalization learns, statistics included; otherwise it
            stays as the encoder has it.
        batch_size: views in a step.
        seed: of the views.
        optimizer: function of the encoder's copy and the linear layer to what trains them; default
            None, an Adam whose rate `fit` sets.
    """

    def __init__(
        self,
        encoder,
        classes,
        flip,
        min_crop,
        learn_statistics,
        batch_size,
        seed,
        optimizer=None,
    ):
        self.batch_size, self.shape = batch_size, encoder.input_shape[1:]
        with devices.on_host():
            self.encoder = random_like(encoder, seed)
            self.encoder.trainable = True
            for layer in self.encoder._flatten_layers():
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = learn_statistics
                    layer.momentum = MOMENTUM
            self.head = keras.layers.Dense(classes, kernel_initializer="zeros", name="classes")
            self.views = Views(_recipe(self.shape, flip, min_crop), seed=seed, views=1)
            images = keras.Input(self.shape)
            (view,) = self.views(images)
            self.trained = keras.Model(images, self.head(self.encoder(view)))
            self.tested = keras.Model(images, self.head(self.encoder(images)))
            if optimizer is None:
                self.optimizer = keras.optimizers.Adam(1e-3)
            else:
                self.optimizer = optimizer(self.encoder, self.head)
            self.optimizer.build(self.trained.trainable_variables)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        jit = devices.jit_compile("auto")
        self.trained.compile(self.optimizer, loss, jit_compile=jit)
        self.tested.compile(jit_compile=jit)

    def fit(self, start, head, images, labels, steps, rate, seed, on_step=None):
        """Trains from a start, by Adam with a cosine to 0.

        Args:
            start: weights of the encoder, as `get_weights` gives them.
            head: weights `[d, classes]` and bias `[classes]` to begin with, or None for zeros.
            images: uint8 `[n, side, side, channels]`.
            labels: numbers of the classes `[n]`.
            steps: number of steps.
            rate: learning rate at the first one.
            seed: of the order.
            on_step: function without arguments, called after each step; default None.
        """
        self.encoder.set_weights(start)
        kernel, bias = head or (np.zeros(self.head.kernel.shape), np.zeros(self.head.bias.shape))
        self.head.set_weights([kernel, bias])
        self.views.step.assign(0)
        for variable in self.optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))
        order = orders(len(images), np.random.default_rng(seed), self.batch_size)
        for step in range(steps):
            self.optimizer.learning_rate = rate * (1 + np.cos(np.pi * step / steps)) / 2
            rows = next(order)
            self.trained.train_on_batch(np.asarray(images[rows]), labels[rows])
            if on_step:
                on_step()

    def logits(self, images):
        """Logits `[n, classes]` of images as they are."""
        most = min(_ROWS, devices.images_at_a_time(np.shape(images)))
        found, size = [], max(1, min(most, -(-len(images) // _FEWEST) * _FEWEST))
        for first in range(0, len(images), size):
            part = np.asarray(images[first : first + size])
            rows = np.arange(size) % len(part)  # of one shape, so compiled once
            found.append(np.asarray(self.tested.predict_on_batch(part[rows]))[: len(part)])
        return np.concatenate(found)

    def predict(self, images):
        """The numbers of the classes of images, `[n]`."""
        return self.logits(images).argmax(-1)


def _recipe(shape, flip, min_crop):
    return Recipe(
        size=shape[0],
        crop_area=(min_crop, 1.0),
        flip=0.5 if flip else 0.0,
        jitter=(0.0, 0.0, 0.0, 0.0),
        grayscale=0.0,
        channels=shape[-1],
    )


def orders(n, random, batch_size):
    """Yields rows of batches: permutations of all rows, one after another."""
    waiting = np.empty(0, np.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, random.permutation(n)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]
