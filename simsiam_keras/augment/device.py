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

    Pictures of various sizes come in the top left corner of a canvas, with their own heights and
    widths beside them, `extent`; crops are drawn within these and read nothing else. A picture that
    is wider than high is stored transposed, so that one upright canvas serves wide and high ones.
    `data.training_images` makes both.

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
        ValueError: if no recipe has the name, `size`, `seed` or `views` is out of its range, a
            batch is not `[n, h, w, channels]` with h and w known, or its extent not `[n, 2]`.

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

    def call(self, images, extent=None, training=False):
        channels = self.recipe.channels
        if len(images.shape) != 4 or None in images.shape[1:] or images.shape[3] != channels:
            raise ValueError(
                f"`images` must be [n, h, w, {channels}] with h and w known. "
                f"Received: shape={tuple(images.shape)}"
            )
        if extent is not None and (len(extent.shape) != 2 or extent.shape[1] != 2):
            raise ValueError(
                "`extent` must be [n, 2], the height and width of each picture in `images`. "
                f"Received: shape={tuple(extent.shape)}"
            )
        small, width = self.recipe.small_views, sum(widths(self.recipe).values())
        n = ops.shape(images)[0]
        # A replica continues the rows of the one before it, as if there were one large batch.
        first = distribute.replica() * n
        draws = uniform(self.seed, self.step, n, (self.views + small) * width, first)
        full = self.views * width
        views = several(images, draws[:, :full], self.recipe, self.views, extent)
        if small:
            views += several(images, draws[:, full:], self.recipe.small, small, extent)
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


def several(images, draws, recipe, count, extent=None):
    """Make `count` views of each image, all alike, of draws `[n, count * total]`, as a tuple."""
    draws = ops.reshape(draws, (-1, draws.shape[1] // count))
    views = augment(images, draws, recipe, extent, count)
    views = ops.reshape(views, (-1, count, *views.shape[1:]))
    return tuple(views[:, i] for i in range(count))


def augment(images, draws, recipe, extent=None, count=1):
    """Make `count` views of each image.

    Args:
        images: `[n, h, w, channels]`, values 0..255.
        draws: uniform in [0, 1), `[n * count, total]`, those of an image one after another; total
            is the sum of `widths(recipe)`.
        recipe: a `Recipe`.
        extent: height and width of each picture, integers `[n, 2]`, see `Views`; default None,
            those of `images`.
        count: default 1.

    Returns:
        float32 `[n * count, size, size, channels]`, values 0..255.
    """
    draws = split(draws, widths(recipe))
    image_size, lying = images.shape[1:3], None
    if extent is not None:
        each = ops.reshape(ops.tile(ops.cast(extent, "float32"), (1, count)), (-1, 2))
        image_size = each[:, :1], each[:, 1:]
        lying = each[:, 1:] > each[:, :1]
    boxes = crop_boxes(draws["crop"], image_size, recipe)
    flipped = draws["flip"] < recipe.flip if "flip" in draws else None
    views = crop(images, boxes, recipe.size, flipped, lying, count)
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
