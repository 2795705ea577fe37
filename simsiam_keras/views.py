"""Which engine makes the views, and what is shown and measured of them."""

import dataclasses
import math

import keras
import numpy as np

from simsiam_keras import devices, plots
from simsiam_keras.augment.recipe import needed_side
from simsiam_keras.data import pipeline
from simsiam_keras.data.decoding import is_photograph

# Photographs of various sizes become squares of this many times a view's side before they travel to
# the device, which crops from them.
DEVICE_CANVAS = 1.5
# Images whose two views are measured for collapse after each epoch, in 3 % of an epoch's time on
# the 1,437 digits and less on any larger set. An effective rank cannot exceed it.
DIAGNOSED = 200


def canvas(source, recipe):
    """Side of the squares that images become before the device crops; None: they stay.

    They stay where they have one size of no more than two megapixels.
    """
    if source.image_shape and not is_photograph(source.image_shape):
        return None
    return math.ceil(DEVICE_CANVAS * recipe.size)


def min_side(cfg, source, recipe):
    """The short side that images are read with for training; None: they are read as they are."""
    return needed_side(recipe) if cfg.augment == "host" else canvas(source, recipe)


def host(recipe, count=2):
    """The host's augmentation engine.

    Raises:
        ImportError: without TensorFlow or keras_cv.
    """
    try:
        from simsiam_keras.augment.host import Views
    except ImportError as error:
        raise ImportError(
            f"--augment=host needs tensorflow and keras-cv ({error.name} is not installed): "
            "install requirements.txt, or use --augment=device"
        ) from error
    return Views(recipe, views=count)


def device(recipe, seed, count=2):
    """The device's augmentation engine."""
    from simsiam_keras.augment.device import Views

    return Views(recipe, seed=seed, views=count)


def sample_pairs(cfg, recipe, source):
    """Two views of the first epoch's first images, made by the engine that trains, uint8."""
    n = min(DIAGNOSED, len(source))
    recipe = dataclasses.replace(recipe, small_views=0)
    order = {"seed": cfg.seed, "epochs": 1}
    if cfg.augment == "host":
        views = next(iter(pipeline.training_views(source, host(recipe), n, **order)))
    else:
        side = canvas(source, recipe)
        (images,) = next(pipeline.training_images(source, n, side, **order))
        with devices.on_host():
            views = device(recipe, cfg.seed)(images)  # not the model's layer, which counts steps
    return [_uint8(x) for x in views]


def preview(cfg, recipe, source, pairs):
    """A picture of the views of some images, made by the engine that will train.

    Args:
        cfg: a configuration with `augment` and `seed`.
        recipe: the augmentation recipe.
        source: a `data.Source`.
        pairs: number of images, at most those of the source.

    Returns:
        A uint8 image.
    """
    engine = host(recipe) if cfg.augment == "host" else device(recipe, cfg.seed)

    def views(batch, number):
        if cfg.augment == "host":
            return engine(batch, (cfg.seed, number))
        with devices.on_host():
            return engine(batch, training=True)  # each call is another step

    side = min_side(cfg, source, recipe)
    images = pipeline.sample_images(source, pairs, cfg.seed, side)
    batches = [np.stack(images)] if source.image_shape else [x[None] for x in images]
    made = [views(batch, number) for number, batch in enumerate(batches)]
    x1, x2, *small = (np.concatenate([_uint8(x) for x in same]) for same in zip(*made, strict=True))
    x1, x2, *small = map(plots.shown, (x1, x2, *small))
    return plots.pair_grid(x1, x2, small, zoom=max(1, 96 // recipe.size))


def _uint8(x):
    return np.rint(keras.ops.convert_to_numpy(x)).astype("uint8")
