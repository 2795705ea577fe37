"""What a method is given, looked at where it is given: models at construction, images once."""

import inspect
import warnings

import keras
import numpy as np

from simsiam_keras.errors import Caution

ONE_IMAGE = (
    "A training batch must have at least 2 images, for batch normalization and the losses compare "
    "them. Received: a batch of 1 image; drop it (`drop_remainder=True`, `drop_last=True`) or take "
    "another `batch_size`"
)
SETTERS = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)
FIRST = 64  # images of the first batch that are looked at


def check_encoder(encoder):
    """Raises unless a model maps one tensor of images to features `[n, width]`."""
    _check_shapes("encoder", encoder, "keras.Input((height, width, 3))")
    shape = encoder.output_shape
    if len(shape) != 2:
        raise ValueError(
            "`encoder` must give features [n, width]: pool or flatten its output, as by "
            f"keras.layers.GlobalAveragePooling2D(). Received: output_shape={shape}"
        )
    if shape[1] is None:
        raise ValueError(
            "`encoder` must give features of a known width; flattened ones need images of a known "
            f"size. Received: output_shape={shape}"
        )
    half = {v.dtype for v in encoder.trainable_variables} & {"float16", "bfloat16"}
    if half:
        warnings.warn(
            f"The encoder's weights are {half.pop()}, in which most updates are lost to rounding; "
            "build it under keras.config.set_dtype_policy('mixed_float16') or 'mixed_bfloat16'",
            Caution,
            stacklevel=4,
        )


def check_head(name, head, input_dim):
    """Raises unless a model maps `[n, input_dim]` to `[n, width]`."""
    _check_shapes(name, head, f"keras.Input(({input_dim},))")
    if len(head.output_shape) != 2:
        raise ValueError(
            f"`{name}` must give outputs [n, width]. Received: output_shape={head.output_shape}"
        )
    if head.input_shape[-1] not in (None, input_dim):
        raise ValueError(
            f"`{name}` must take the {input_dim} values that come before it. "
            f"Received: input_shape={head.input_shape}"
        )


def check_augmenter(augmenter):
    """Raises unless there is none or it is a layer."""
    if augmenter is not None and not isinstance(augmenter, keras.layers.Layer):
        raise ValueError(
            "`augmenter` must be a keras.layers.Layer that makes views inside the training step, "
            "as `augment.Views`; what works on the host belongs into the data set. "
            f"Received: {augmenter!r}"
        )


def check_takes(augmenter, extent):
    """Raises where images lie on a canvas and an augmenter does not ask where."""
    parameters = inspect.signature(augmenter.call).parameters if extent else {}
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if extent and "extent" not in parameters and not anything:
        raise ValueError(
            "`augmenter` must have an argument `extent` for images on a canvas, as `augment.Views` "
            "has; give `training_images` a number as `size` for squares without one. Received: "
            f"{type(augmenter).__name__} {augmenter.name!r}"
        )


def check_made(views, augmenter):
    """Raises unless an augmenter has made a tuple of views."""
    if not isinstance(views, (tuple, list)):
        raise ValueError(
            "`augmenter` must give a tuple of views, as `augment.Views` does; a layer that makes "
            "one view is called twice within a layer of your own. Received: "
            f"{type(views).__name__} of {type(augmenter).__name__} {augmenter.name!r}"
        )


def check_views(views, encoder):
    """Raises unless views are what the encoder takes, as far as shapes are known."""
    wanted = encoder.input_shape
    for x in views:
        found = tuple(x.shape)
        known = zip(found[1:], wanted[1:], strict=False)
        if len(found) != len(wanted) or any(None not in p and p[0] != p[1] for p in known):
            raise ValueError(
                f"`encoder` must take the views that it gets, {wanted}; build it for theirs, or "
                f"with None for a height and width that vary. Received: views of shape {found}"
            )


def check_compiled(method, **given):
    """Raises where `compile` is given what compares predictions with targets.

    Args:
        method: the class's name.
        **given: arguments of `compile` by name.
    """
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"`{name}` must be left out of `compile`: {method} has its own loss, reports it "
                "with `z_std`, and has no targets to compare predictions with; measure features "
                f"in a callback, or with `evaluation.knn_accuracy`. Received: {name}={value!r}"
            )


def check_rate(optimizer, callbacks):
    """Raises where a callback would set a learning rate that a schedule sets."""
    schedule = getattr(optimizer, "_learning_rate", None)
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return
    every = getattr(callbacks, "callbacks", callbacks)  # of a CallbackList
    for callback in keras.tree.flatten(every or ()):
        if isinstance(callback, SETTERS):
            raise ValueError(
                f"{type(callback).__name__} sets the learning rate, which the optimizer has from "
                f"the schedule {type(schedule).__name__}: give the optimizer a number, or leave "
                "the callback out"
            )


def check_batch(images):
    """Raises where a batch is known to be of one image."""
    if images.shape[0] == 1:
        raise ValueError(ONE_IMAGE)


def check_arrays(images, batch_size, validation_split=0.0):
    """Raises where `fit` would end an epoch over arrays with a batch of one image."""
    n = int(images[0].shape[0] * (1 - validation_split))
    batch_size = batch_size or 32
    if n % batch_size == 1 or (batch_size == 1 and n):
        raise ValueError(
            "`batch_size` must leave no single image for the last batch, which has none to be "
            f"compared with; take another, or leave an image out. Received: {n} images, "
            f"batch_size={batch_size}"
        )


def takes_pixels(encoder, augmenter):
    """Whether images must have values 0..255.

    They must for an augmenter whose `value_range` says so, as that of `augment.Views`, and for an
    encoder that normalizes them itself: by a `Normalization` whose mean is above 1, as ours do, or
    a `Rescaling` by less than a half, as many of `keras.applications`. Of another encoder nothing
    is known.
    """
    if getattr(augmenter, "value_range", None) == (0, 255):
        return True
    for layer in encoder._flatten_layers():
        if isinstance(layer, keras.layers.Normalization) and layer.mean is not None:
            if np.max(np.abs(keras.ops.convert_to_numpy(layer.mean))) > 1:
                return True
        if isinstance(layer, keras.layers.Rescaling) and np.max(np.abs(layer.scale)) < 0.5:
            return True
    return False


def warn_of_range(images, what):
    """Warns where images for 0..255 have other values: 0..1, standardized, or 16 bits."""
    low, high = float(np.min(images)), float(np.max(images))
    if max(-low, high) > 4 and high < 1000:
        return
    cure = "multiply them by 255" if 0 <= low and high <= 1 else "scale them to 0..255"
    warnings.warn(
        f"{what} must have values 0..255, which the encoder or the augmenter here normalizes "
        f"itself; {cure}. Received: {low:.3g}..{high:.3g} in the first batch. Otherwise loss and "
        "z_std look healthy while all features point the same way",
        Caution,
        stacklevel=4,
    )


def _check_shapes(name, model, example):
    shapes = [getattr(model, key, None) for key in ("input_shape", "output_shape")]
    if None in shapes:
        raise ValueError(
            f"`{name}` must be a Keras model that knows its shapes; make one of a layer, a "
            f"subclassed model or a Sequential without an Input: inputs = {example}; "
            f"keras.Model(inputs, yours(inputs)). Received: {model!r}"
        )
    for key, shape in zip(("input", "output"), shapes, strict=True):
        if not all(size is None or isinstance(size, int) for size in shape):
            raise ValueError(f"`{name}` must have one {key}. Received: {key}_shape={shape}")
