"""A network on several views, each of which batch normalization sees alone."""

import keras
from keras import ops

from simsiam_keras import devices, distribute


def apart(layer, views, training):
    """A layer's outputs of several views, as if one pass followed the other.

    On JAX and a GPU equal views go side by side, in one program over all of them: it has the work
    of one large batch, while every view has batch statistics of its own. Elsewhere, and where more
    than batch normalization keeps something of a pass, they are passes one after the other; on a
    CPU that is faster.

    Args:
        layer: a built `keras.layers.Layer`.
        views: K tensors `[n, ...]`.
        training: whether batch normalization takes the statistics of the view, and keeps them.

    Returns:
        A list of K tensors.
    """
    if not training or not side_by_side(layer, views):
        return [layer(x, training=training) for x in views]
    import jax

    trainable = [v.value for v in layer.trainable_variables]
    before = [v.value for v in layer.non_trainable_variables]

    def alone(x):
        return layer.stateless_call(trainable, before, x, training=True)

    outputs, after = jax.vmap(alone)(ops.stack(views))
    kept = _momentum(layer)
    for variable, old, new in zip(layer.non_trainable_variables, before, after, strict=True):
        # m x + (1 - m) s of one view's statistics s after the other, from those of each alone.
        shares = kept[id(variable)] ** ops.arange(len(views) - 1, -1, -1, dtype=variable.dtype)
        variable.assign(old + ops.tensordot(shares, new - old, 1))
    return list(outputs)


def side_by_side(layer, views):
    """Whether `apart` can run all views in one program."""
    return (
        keras.backend.backend() == "jax"
        and devices.on_accelerator()
        and distribute.replicas() == 1
        and len({tuple(x.shape) for x in views}) == 1
        and all(_known(part) for part in layer._flatten_layers())
        and {id(v) for v in layer.non_trainable_variables} <= _momentum(layer).keys()
    )


def _known(layer):
    """Keras's own layers keep nothing of a call but what they have variables for."""
    known = type(layer).__module__.startswith("keras.")
    return known and not layer.losses and layer.activity_regularizer is None


def _momentum(layer):
    """Momentum of the moving statistics, by the `id` of their variables: paths may repeat."""
    return {
        id(variable): part.momentum
        for part in layer._flatten_layers()
        if isinstance(part, keras.layers.BatchNormalization)
        for variable in (part.moving_mean, part.moving_variance)
    }
