"""Views on the device: the recipe in `keras.ops`, compiled with the training step.

The formulas are those of `host.py`, written again because tf.data runs TensorFlow's ops whatever
the backend.
"""

import dataclasses
import itertools

import keras
from keras import ops

from simsiam_keras import distribute
from simsiam_keras.augment.device_ops import ATTEMPTS, blur, crop, crop_boxes, jitter, luma
from simsiam_keras.augment.recipe import Recipe, named
from simsiam_keras.augment.threefry import uniform


@keras.saving.register_keras_serializable("simsiam_keras")
class Views(keras.layers.Layer):
    """Make two random views, or more, of every image of a batch, inside the training step.

    Full views come first; the small views that the recipe asks for follow, smaller tensors in the
    same tuple. All are drawn independently.

    The views are a function of the image's place in the batch, `seed` and the layer's `step`, the
    number of batches augmented in training so far. The step is a weight, so it is saved with the
    model, and a restored layer goes on with the views that the interrupted one would have made.
    Draws are integer arithmetic: the same on every backend.

    Called with `training=False` the layer makes the views of the present step and stays there.
    Whatever the dtype policy, it computes in float32 and returns that, unrounded; the encoder
    normalizes and casts.

    Args:
        recipe: a `Recipe`, or the name of one in `RECIPES`.
        size: side of a full view in pixels; default the recipe's.
        seed: an integer within [0, 2**32).
        views: number of full views of each image, at least 1; default 2.
        **kwargs: further arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if no recipe has the name, `size`, `seed` or `views` is out of its range, or a
            batch is not `[n, h, w, channels]` with h and w known.

    Example:
    >>> views = Views("cifar", size=24)
    >>> x1, x2 = views(ops.zeros([4, 40, 48, 3], "uint8"), training=True)
    >>> tuple(x1.shape), int(views.step)
    ((4, 24, 24, 3), 1)
    """

    value_range = (0, 255)  # of the images

    def __init__(self, recipe, size=None, seed=0, views=2, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise ValueError(f"`seed` must be an integer within [0, 2**32). Received: seed={seed}")
        if views < 1:
            raise ValueError(f"`views` must be at least 1. Received: views={views}")
        self.recipe, self.seed, self.views = named(recipe, size), seed, views
        # "int" is what Keras gives optimizer.iterations: int64 where int32 has no place on a GPU.
        self.step = self.add_weight(
            (), "zeros", "int", trainable=False, aggregation="only_first_replica", name="step"
        )
        self.built = True

    def call(self, images, training=False):
        channels = self.recipe.channels
        if len(images.shape) != 4 or None in images.shape[1:] or images.shape[3] != channels:
            raise ValueError(
                f"`images` must be [n, h, w, {channels}] with h and w known. "
                f"Received: shape={tuple(images.shape)}"
            )
        total = self.views + self.recipe.small_views
        count = total * sum(widths(self.recipe).values())
        n = ops.shape(images)[0]
        # A replica continues the rows of the one before it, as if there were one large batch.
        first = distribute.replica() * n
        draws = ops.split(uniform(self.seed, self.step, n, count, first), total, axis=1)
        views = several(images, draws[: self.views], self.recipe)
        if self.recipe.small_views:
            views += several(images, draws[self.views :], self.recipe.small)
        if training:
            self.step.assign_add(1)
        return views

    def get_config(self):
        return {
            **super().get_config(),
            "recipe": dataclasses.asdict(self.recipe),
            "size": self.recipe.size,
            "seed": self.seed,
            "views": self.views,
        }

    @classmethod
    def from_config(cls, config):
        recipe = {
            name: tuple(value) if isinstance(value, (list, tuple)) else value
            for name, value in config["recipe"].items()
        }
        return cls(**{**config, "recipe": Recipe(**recipe)})


TwoViews = Views  # its name in 0.1


def widths(recipe):
    """Uniform draws that a view needs, `{operation: number}` in the order of the operations."""
    numbers = {"crop": 2 * ATTEMPTS + 2}
    if recipe.jitter_probability and any(recipe.jitter):
        numbers["jitter"] = 1 + 2 * sum(strength > 0 for strength in recipe.jitter)
    if recipe.grayscale:
        numbers["grayscale"] = 1
    if recipe.blur:
        numbers["blur"] = 2
    if recipe.flip:
        numbers["flip"] = 1
    return numbers


def several(images, draws, recipe):
    """Make as many views of each image as there are `draws`, all alike, as a tuple."""
    views = augment(ops.concatenate([images] * len(draws)), ops.concatenate(draws), recipe)
    return tuple(ops.split(views, len(draws)))


def augment(images, draws, recipe):
    """Make one view of each image.

    Args:
        images: `[n, h, w, channels]`, values 0..255.
        draws: uniform in [0, 1), `[n, total]`; total is the sum of `widths(recipe)`.
        recipe: a `Recipe`.

    Returns:
        float32 `[n, size, size, channels]`, values 0..255.
    """
    draws = split(draws, widths(recipe))
    boxes = crop_boxes(draws["crop"], images.shape[1:3], recipe)
    flipped = draws["flip"] < recipe.flip if "flip" in draws else None
    views = crop(images, boxes, recipe.size, flipped)
    if "jitter" in draws:
        views = jitter(views, draws["jitter"], recipe)
    if "grayscale" in draws:
        grey = draws["grayscale"] < recipe.grayscale
        views = ops.where(grey[:, :, None, None], luma(views), views)
    if "blur" in draws:
        views = blur(views, draws["blur"], recipe)
    return ops.transpose(views, (0, 2, 3, 1))


def split(draws, numbers):
    """Columns of `draws`, `{operation: [n, number]}` for `{operation: number}`."""
    ends = itertools.accumulate(numbers.values())
    return {
        name: draws[:, end - numbers[name] : end] for name, end in zip(numbers, ends, strict=True)
    }
