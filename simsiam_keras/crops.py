"""Features of random crops of images, anew in each epoch: the paper's linear protocol."""

import math
from pathlib import Path

import numpy as np

from simsiam_keras import cards, devices, flagfile, views
from simsiam_keras.augment.recipe import RECIPES, Recipe
from simsiam_keras.data import pipeline
from simsiam_keras.errors import reading


def features(encoder, source, flip, seed, batch_size, min_crop=0.08):
    """A function of an epoch to the features of a random crop of each image.

    Random resized crops and mirroring, no colours, as the authors' `main_lincls.py` has it.

    Args:
        encoder: an `export.LoadedEncoder`.
        source: a `data.Source` of n images whose rows of features are known.
        flip: whether crops are mirrored at random.
        seed: of the crops.
        batch_size: images in a forward step.
        min_crop: smallest crop as a share of the area; default .08, theirs.

    Returns:
        A function of a number >= 0 to float32 `[rows, d]`, the rows of `source.rows()`.
    """
    recipe = Recipe(
        size=encoder.image_size,
        crop_area=(min_crop, 1.0),
        flip=0.5 if flip else 0.0,
        jitter=(0.0, 0.0, 0.0, 0.0),
        grayscale=0.0,
        channels=encoder.channels,
    )
    rows = source.rows()
    m = min(batch_size, len(rows))
    padded = np.resize(rows, math.ceil(len(rows) / m) * m)

    def of(epoch):
        with devices.on_host():
            engine = views.device(recipe, seed + epoch, 1)
        place = views.canvas(source, recipe)
        batches = pipeline.training_images(source, m, place, order=lambda _: padded)
        found = []
        for (batch,) in batches:
            (view,) = views.made_of(engine, batch)
            found.append(encoder(view))
        return np.concatenate(found)[: len(rows)]

    return of


def mirrored(flip, path):
    """Whether crops are mirrored at random: as the views of the run were, where there is one.

    Args:
        flip: "on", "off", or "auto".
        path: of an encoder; beside it may be the `flags.cfg` of its run.
    """
    if flip != "auto":
        return flip == "on"
    path = Path(path)
    flags = path.with_name("flags.cfg")
    if path.name not in cards.PLAIN or not flags.is_file():
        return True
    with reading(flags, "restore it, or say --flip=on or --flip=off"):
        recipe = flagfile.values(flags).get("recipe")
    return RECIPES[recipe].flip > 0 if recipe in RECIPES else True
