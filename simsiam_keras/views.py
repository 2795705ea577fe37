"""Which engine makes the views, and what is shown and measured of them."""

import dataclasses
import math

import keras
import numpy as np

from simsiam_keras import devices, plots
from simsiam_keras.augment.recipe import needed_side
from simsiam_keras.data import pipeline
from simsiam_keras.data.decoding import is_photograph
from simsiam_keras.data.images import on_canvas

# Photographs of various sizes travel to the device, which crops from them, on a canvas of this many
# times a view's side, so that one of 3 : 2 has it filled; the wide ones lie on their side.
DEVICE_CANVAS = (2.25, 1.5)
# Images whose two views are measured for collapse after each epoch, in 3 % of an epoch's time on
# the 1,437 digits and less on any larger set. An effective rank cannot exceed it.
DIAGNOSED = 200
# Pairs of views of each of them, for LiDAR; the other measures are of the first pair.
PAIRS = 2
BATCH, OF_PHOTOGRAPHS = 128, 32  # images whose pairs are made at a time; the latter are read whole


def canvas(source, recipe):
    """Height and width of the canvas on which images lie for the device; None: they have none.

    They need none where they have one size of no more than two megapixels.
    """
    if source.image_shape and not is_photograph(source.image_shape):
        return None
    return tuple(math.ceil(times * recipe.size) for times in DEVICE_CANVAS)


def min_side(cfg, source, recipe):
    """The short side that images are read with for training; None: they are read as they are."""
    if cfg.augment == "host":
        return needed_side(recipe)
    place = canvas(source, recipe)
    return place and place[1]


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


def sample_pairs(cfg, recipe, source, pairs=1):
    """Pairs of views of the first epoch's first images, made by the engine that trains.

    Args:
        cfg: a configuration with `augment` and `seed`.
        recipe: the augmentation recipe.
        source: a `data.Source`.
        pairs: how many of the same images; default 1, that of the first step.

    Returns:
        A list of `2 * pairs` arrays, uint8 `[n, size, size, channels]`.
    """
    n = min(DIAGNOSED, len(source))
    recipe = dataclasses.replace(recipe, small_views=0)
    first = pipeline.epoch_order(len(source), cfg.seed, 0)[:n]
    order = {"seed": cfg.seed, "order": lambda epoch: first}  # of every epoch, for other draws
    if cfg.augment == "host":
        made = pipeline.training_views(source, host(recipe), n, epochs=pairs, **order)
        return [uint8(x) for pair in made for x in pair]
    (batch,) = next(pipeline.training_images(source, n, canvas(source, recipe), **order))
    with devices.on_host():
        engine = device(recipe, cfg.seed)  # not the model's layer, which counts steps
        return [x for _ in range(pairs) for x in made_of(engine, batch)]


def many_pairs(cfg, recipe, source, images):
    """Pairs of views of many images, in batches, by the engine that trains.

    Args:
        cfg: a configuration with `augment` and `seed`.
        recipe: the augmentation recipe.
        source: a `data.Source`.
        images: how many, at most those of the source; a last incomplete batch is left out.

    Yields:
        `(x1, x2)`, each uint8 `[m, size, size, channels]`.
    """
    m = min(OF_PHOTOGRAPHS if canvas(source, recipe) else BATCH, len(source))
    recipe = dataclasses.replace(recipe, small_views=0)
    count = max(1, min(images, len(source)) // m) * m
    first = pipeline.epoch_order(len(source), cfg.seed, 0)[:count]
    order = {"seed": cfg.seed, "order": lambda epoch: first}
    if cfg.augment == "host":
        for pair in pipeline.training_views(source, host(recipe), m, **order):
            yield tuple(map(uint8, pair))
        return
    engine = device(recipe, cfg.seed)
    for (batch,) in pipeline.training_images(source, m, canvas(source, recipe), **order):
        yield made_of(engine, batch)


def made_of(engine, batch):
    """The views of a batch by the device's engine, outside of a model.

    Large images are taken a few at a time: operation by operation, 200 pairs of 224 px would fill
    9 GiB. Each few are a step of the engine, with draws of its own.

    Args:
        engine: from `device`.
        batch: of `pipeline.training_images`, images or a dict of what the engine takes.

    Returns:
        A tuple of arrays, uint8 `[n, size, size, channels]`.
    """
    batch = batch if isinstance(batch, dict) else {"images": batch}
    shape = batch["images"].shape
    pieces = max(1, math.ceil(shape[0] / devices.images_at_a_time(shape)))
    split = {name: np.array_split(value, pieces) for name, value in batch.items()}
    made = []
    for i in range(pieces):
        few = {name: values[i] for name, values in split.items()}
        made.append([uint8(view) for view in engine(**few, training=True)])
    return tuple(np.concatenate(same) for same in zip(*made, strict=True))


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
    images = pipeline.sample_images(source, pairs, cfg.seed, min_side(cfg, source, recipe))
    if cfg.augment == "host":
        engine = host(recipe)
        batches = [np.stack(images)] if source.image_shape else [x[None] for x in images]
        made = [engine(batch, (cfg.seed, number)) for number, batch in enumerate(batches)]
    else:
        place = canvas(source, recipe)
        extent = None
        if place:
            images, extent = zip(*(on_canvas(image, place) for image in images), strict=True)
            extent = np.stack(extent)
        with devices.on_host():
            made = [device(recipe, cfg.seed)(np.stack(images), extent)]
    x1, x2, *small = (np.concatenate([uint8(x) for x in same]) for same in zip(*made, strict=True))
    x1, x2, *small = map(plots.shown, (x1, x2, *small))
    return plots.pair_grid(x1, x2, small, zoom=max(1, 96 // recipe.size))


def uint8(x):
    """A tensor of values 0..255 as a uint8 array, rounded."""
    return np.rint(keras.ops.convert_to_numpy(x)).astype("uint8")
