"""What `fit` is given: the views or images of the next epochs, wherever they are made."""

import dataclasses
import functools
import math

from simsiam_keras import distribute, resident, views
from simsiam_keras.data import balanced, pipeline, rows


def recipe_in(cfg, recipe, epoch):
    """The recipe of an epoch: views are small at first, if that is asked for."""
    if epoch >= cfg.early_epochs:
        return recipe
    return dataclasses.replace(recipe, size=cfg.early_size)


def last(cfg, epoch):
    """The number after the last of the epochs that are like this one, and so are one program.

    Their views have one size, and the encoder is trained in all of them or in none.
    """
    ends = (cfg.early_epochs, cfg.freeze_encoder_epochs, cfg.epochs)
    return min(end for end in ends if epoch < end)


def enter(cfg, recipe, model, on_device, epoch):
    """Readies a model for an epoch and those like it."""
    if model.augmenter is not None:
        model.augmenter.recipe = recipe_in(cfg, recipe, epoch)
    model.encoder_frozen = epoch < cfg.freeze_encoder_epochs
    # Or the step would be the one that was compiled for other views, or without the encoder.
    if epoch in (cfg.early_epochs, cfg.freeze_encoder_epochs):
        model.train_function = None
    if on_device and model.train_function is None:
        model.train_function = resident.train_function(model)


def kept(cfg, recipe, source):
    """A function without arguments to the images on the device, or None where none are."""
    size = views.canvas(source, recipe)
    if not resident.wanted(cfg, source, size):
        return None
    return functools.cache(lambda: resident.put(source, size))


def batches(cfg, recipe, source, batch_size, model, images, first_epoch=0, first_step=0):
    """Batches for `fit`: views made on the host, or images for the model's augmenter."""
    # That of the last epochs, which a cache keeps and which would lie on the device.
    size = views.canvas(source, recipe)
    recipe = recipe_in(cfg, recipe, first_epoch)
    options = {"seed": cfg.seed, "first_epoch": first_epoch, "epochs": last(cfg, first_epoch)}
    options["first_step"] = first_step
    options["with_index"] = cfg.remembers
    if cfg.member.supervised:
        options["with_labels"] = True
        options["order"] = functools.partial(
            balanced.balanced_order, source.labels, batch_size, cfg.classes_per_batch, cfg.seed
        )
    if cfg.augment == "host":
        made = views.host(recipe, cfg.full_views)
        return pipeline.training_views(source, made, batch_size, **options)
    if images is not None:
        steps = pipeline.steps_per_epoch(len(source), batch_size)
        asked = resident.steps_per_execution(cfg.steps_per_execution, steps)
        model.steps_per_execution = math.gcd(asked, steps - first_step)
        chunk = model.steps_per_execution
        return resident.batches(images(), rows.training_rows(source, batch_size, chunk, **options))
    part = (distribute.process(), distribute.processes())
    return distribute.feed(
        functools.partial(pipeline.training_images, source, batch_size, size, **options, part=part)
    )
