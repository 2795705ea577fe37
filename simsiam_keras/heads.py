"""Projection and prediction heads: a head is a table of rows, one row for each linear layer."""

import math
from typing import NamedTuple

import keras

from simsiam_keras import checks
from simsiam_keras.family import SimSiamFlags

# Whether the hidden and the output layers of a head are normalized. Table 3 of the paper.
BATCH_NORM = {
    "none": {"projector": (False, False), "predictor": (False, False)},
    "hidden": {"projector": (True, False), "predictor": (True, False)},
    "default": {"projector": (True, True), "predictor": (True, False)},
    "all": {"projector": (True, True), "predictor": (True, True)},
}


class Row(NamedTuple):
    """One linear layer of a head and what follows it.

    Attributes:
        units: output width; `None` means the width of the head's input.
        norm: batch normalization after the linear layer, which then has no bias.
        affine: whether that normalization learns a scale and an offset.
        relu: ReLU at the end.
    """

    units: int | None
    norm: bool = True
    affine: bool = True
    relu: bool = True


def projector(
    dim=SimSiamFlags.output_dim,
    *,
    layers=SimSiamFlags.projector_layers,
    hidden=None,
    output_affine=SimSiamFlags.output_affine,
    batch_norm=SimSiamFlags.batch_norm,
):
    """The projection MLP's table.

    "The projection MLP (in f) has BN applied to each fully-connected layer, including its output
    fc. Its output fc has no ReLU. The hidden fc is 2048-d. This MLP has 3 layers." (section 3;
    2 layers on CIFAR-10, appendix D.) The output normalization learns no scale and offset, as in
    the authors' code, which the text does not say.

    Args:
        dim: width d of the output z, and of every layer where `hidden` is not given.
        layers: number of linear layers, at least 1.
        hidden: width of the hidden layers; default None, as the output; the
            relatives' hidden layers are wider than their output.
        output_affine: whether the output normalization learns a scale and an offset.
        batch_norm: which layers are normalized, a key of `BATCH_NORM` (section 4.4).

    Returns:
        A tuple of `Row`.

    Raises:
        ValueError: if `layers`, `dim` or `hidden` is below 1, `batch_norm` is unknown, or
            `output_affine` is asked of an output without normalization.

    Example:
    >>> [row.relu for row in projector(512, layers=3)]
    [True, True, False]

    Reference:
        Chen & He, https://arxiv.org/abs/2011.10566, section 3 and appendix D
    """
    hidden = dim if hidden is None else hidden
    if min(layers, dim, hidden) < 1:
        raise ValueError(
            "`layers` and `dim`, and `hidden` where given, must be at least 1. "
            f"Received: layers={layers}, dim={dim}, hidden={hidden}"
        )
    hidden_norm, output_norm = _normalized("projector", batch_norm)
    if output_affine and not output_norm:
        raise ValueError(
            "`output_affine` must be False where the output is not normalized. "
            f"Received: output_affine={output_affine}, batch_norm={batch_norm!r}"
        )
    output = Row(dim, norm=output_norm, affine=output_affine, relu=False)
    return (Row(hidden, norm=hidden_norm),) * (layers - 1) + (output,)


def predictor(hidden=SimSiamFlags.predictor_hidden, *, batch_norm=SimSiamFlags.batch_norm):
    """The prediction MLP's table.

    "The prediction MLP (h) has BN applied to its hidden fc layers. Its output fc does not have BN
    or ReLU. This MLP has 2 layers. The dimension of h's input and output (z and p) is d = 2048,
    and h's hidden layer's dimension is 512, making h a bottleneck structure." (section 3)

    Args:
        hidden: width of the bottleneck, d / 4 in the paper.
        batch_norm: which layers are normalized, a key of `BATCH_NORM` (section 4.4); with `"all"`
            the output's normalization learns a scale and an offset, which the paper leaves open.

    Returns:
        A tuple of `Row`; the output is as wide as the input.

    Raises:
        ValueError: if `hidden` is below 1 or `batch_norm` is unknown.

    Reference:
        Chen & He, https://arxiv.org/abs/2011.10566, section 3
    """
    if hidden < 1:
        raise ValueError(f"`hidden` must be at least 1. Received: hidden={hidden}")
    hidden_norm, output_norm = _normalized("predictor", batch_norm)
    return (Row(hidden, norm=hidden_norm), Row(None, norm=output_norm, relu=False))


def projector_of(flags, batch_norm="default", output_affine=False):
    """The projection MLP's table that a method's `family.ProjectorFlags` describe."""
    return projector(
        flags.output_dim,
        layers=flags.projector_layers,
        hidden=flags.projector_hidden or None,
        output_affine=output_affine,
        batch_norm=batch_norm,
    )


def predictor_of(flags, batch_norm="default"):
    """The prediction MLP's table that a method's `family.PredictorFlags` describe."""
    return predictor(flags.predictor_hidden, batch_norm=batch_norm)


def build(head, input_dim, name):
    """Builds a table of rows as a Keras model; a Keras layer is returned as it is.

    Args:
        head: a sequence of `Row`, empty for the identity, or a `keras.layers.Layer`.
        input_dim: width of the head's input.
        name: name of the model, which its layers' names begin with.

    Returns:
        A functional `keras.Model`, `[n, input_dim] -> [n, last width]`, or `head`.

    Raises:
        ValueError: if `head` is a layer of unknown or of other shapes.

    Example:
    >>> build(projector(64), input_dim=32, name="projector").output_shape
    (None, 64)
    """
    if isinstance(head, keras.layers.Layer):
        checks.check_head(name, head, input_dim)
        return head
    z = inputs = keras.Input((input_dim,))
    for i, row in enumerate(head, start=1):
        units = input_dim if row.units is None else row.units
        z = _linear(z.shape[-1], units, use_bias=not row.norm, name=f"{name}_linear_{i}")(z)
        if row.norm:
            z = batch_norm(center=row.affine, scale=row.affine, name=f"{name}_norm_{i}")(z)
        if row.relu:
            z = keras.layers.ReLU(name=f"{name}_relu_{i}")(z)
    return keras.Model(inputs, z, name=name)


def build_predictor(head, projector):
    """Builds a predictor on a built projector, and checks that p is as wide as z.

    Args:
        head: as in `build`.
        projector: a built `keras.Model`.

    Returns:
        As `build` does.

    Raises:
        ValueError: if their outputs are not equally wide.
    """
    d = projector.output_shape[-1]
    predictor = build(head, d, name="predictor")
    if predictor.output_shape[-1] != d:
        raise ValueError(
            "`predictor` must be as wide as `projector`. Received output shapes: "
            f"predictor={predictor.output_shape}, projector={projector.output_shape}"
        )
    return predictor


def freeze(head):
    """Keeps a head's weights where they are, while its batch normalization goes on.

    `head.trainable = False` would also put batch normalization in inference mode, so the variables
    are frozen one by one. Neither gradients nor weight decay reach them; running statistics move.

    Args:
        head: a built `keras.layers.Layer`.
    """
    for variable in head.trainable_variables:
        variable.trainable = False


def batch_norm(**kwargs):
    """`BatchNormalization` with the constants that PyTorch, and so the paper, use.

    PyTorch's momentum of .1 is Keras's .9; epsilon is 1e-5. Statistics are those of the global
    batch wherever more than one replica trains (see `distribute.synchronize`).
    """
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **kwargs)


def _normalized(head, batch_norm):
    if batch_norm not in BATCH_NORM:
        raise ValueError(
            f"`batch_norm` must be one of {tuple(BATCH_NORM)}. Received: batch_norm={batch_norm!r}"
        )
    return BATCH_NORM[batch_norm][head]


def _linear(fan_in, units, use_bias, name):
    # torch.nn.Linear's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for kernel and bias; the paper
    # warns that other initializations may not converge.
    bound = 1 / math.sqrt(fan_in)
    return keras.layers.Dense(
        units,
        use_bias=use_bias,
        kernel_initializer=keras.initializers.RandomUniform(-bound, bound),
        bias_initializer=keras.initializers.RandomUniform(-bound, bound),
        name=name,
    )
