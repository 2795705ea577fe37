"""Backbones: images with values 0..255 in, pooled features `[n, width]` out.

Every encoder begins with its own normalization, so that an exported one needs no recipe beside it.
"""

import functools
import inspect

import keras

from simsiam_keras.heads import batch_norm

# ImageNet's channel statistics in units of pixel values, the field's convention for any photograph.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)

STEMS = ("imagenet", "cifar", "stride2")


def resnet18(input_shape=(224, 224, 3), stem="imagenet", width=64, zero_init_residual=False):
    """ResNet-18: 2-2-2-2 basic blocks, features `[n, 8 * width]`. See `resnet`."""
    return resnet((2, 2, 2, 2), _basic_block, input_shape, stem, width, zero_init_residual)


def resnet34(input_shape=(224, 224, 3), stem="imagenet", width=64, zero_init_residual=False):
    """ResNet-34: 3-4-6-3 basic blocks, features `[n, 8 * width]`. See `resnet`."""
    return resnet((3, 4, 6, 3), _basic_block, input_shape, stem, width, zero_init_residual)


def resnet50(input_shape=(224, 224, 3), stem="imagenet", width=64, zero_init_residual=False):
    """ResNet-50: 3-4-6-3 bottleneck blocks, features `[n, 32 * width]`. See `resnet`."""
    return resnet((3, 4, 6, 3), _bottleneck_block, input_shape, stem, width, zero_init_residual)


def resnet10(input_shape=(32, 32, 3), stem="stride2", width=32, zero_init_residual=False):
    """ResNet-10, the small net for CPUs: 1-1-1-1 basic blocks, features `[n, 8 * width]`.

    See `resnet`.
    """
    return resnet((1, 1, 1, 1), _basic_block, input_shape, stem, width, zero_init_residual)


def resnet(depths, block, input_shape, stem, width, zero_init_residual):
    """A residual network without its classifier.

    Args:
        depths: number of blocks in each stage; stages after the first halve the resolution.
        block: function `(x, width, stride, zero_init, name) -> x`.
        input_shape: `(height, width, channels)` of the images.
        stem: `"imagenet"` (7x7 stride 2, then max-pooling), `"cifar"` (3x3 stride 1, no pooling) or
            `"stride2"` (3x3 stride 2, no pooling).
        width: channels of the first stage, doubled in each later one; 64 in the paper.
        zero_init_residual: start the last normalization of every block at gamma = 0, so that each
            block begins as the identity (the ImageNet recipe).

    Returns:
        A functional `keras.Model` named `encoder`: `[n, *input_shape]` with values 0..255, of any
        dtype, to features `[n, channels of the last stage]`.

    Raises:
        ValueError: if `stem` is unknown or `width` is below 1.

    Reference:
        He et al., Deep Residual Learning, https://arxiv.org/abs/1512.03385; downsampling in the
        3x3 convolution and the initialization as in torchvision, which the paper's code uses.
    """
    if stem not in STEMS:
        raise ValueError(f"`stem` must be one of {STEMS}. Received: stem={stem!r}")
    if width < 1:
        raise ValueError(f"`width` must be at least 1. Received: width={width}")
    images = keras.Input(input_shape, name="images")
    x = _normalization(input_shape[-1])(images)
    kernel, stride = {"imagenet": (7, 2), "cifar": (3, 1), "stride2": (3, 2)}[stem]
    x = _conv_norm(x, width, kernel, stride, name="stem")
    x = keras.layers.ReLU(name="stem_relu")(x)
    if stem == "imagenet":
        x = keras.layers.ZeroPadding2D(1, name="pool_pad")(x)  # after ReLU, zero is no maximum
        x = keras.layers.MaxPooling2D(3, 2, name="pool")(x)
    for i, depth in enumerate(depths):
        for j in range(depth):
            stride = 2 if i > 0 and j == 0 else 1
            x = block(x, width * 2**i, stride, zero_init_residual, name=f"stage_{i + 1}_{j + 1}")
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(images, x, name="encoder")


def application(name, input_shape=(224, 224, 3)):
    """Any model of `keras.applications`, randomly initialized, without its classifier.

    Args:
        name: the constructor's name, such as `"EfficientNetV2B0"`.
        input_shape: `(height, width, 3)`; each model has a smallest size of its own.

    Returns:
        A functional `keras.Model`, images with values 0..255 to average-pooled features.

    Raises:
        ValueError: if there is no such model.
    """
    constructor = getattr(keras.applications, name, None)
    if not inspect.isfunction(constructor):
        known = sorted(n for n, f in vars(keras.applications).items() if inspect.isfunction(f))
        raise ValueError(f"`keras.applications` has no model {name!r}. Known: {', '.join(known)}")
    backbone = constructor(include_top=False, weights=None, pooling="avg", input_shape=input_shape)
    images = keras.Input(input_shape, name="images")
    own_preprocessing = "include_preprocessing" in inspect.signature(constructor).parameters
    x = images if own_preprocessing else _normalization(input_shape[-1])(images)
    return keras.Model(images, backbone(x), name="encoder")


def at_size(encoder, size):
    """The encoder for images of another size: a model of the same layers and the same weights.

    A Keras model takes only the image size it was made with, although convolutions and global
    pooling need none. The result has no variables of its own: training it trains `encoder`, and
    both move the same running statistics. Layers stay as they are; some of keras.applications pad
    by the size they were made for, a pixel more or less than they would for the new one.

    A method keeps the result inside a function,
    `self.encode_small = lambda x, training: small(x, training=training)`. Of an attribute, Keras
    would list the layers once more and file the encoder's weights under either name.

    Args:
        encoder: a built functional or sequential `keras.Model` of one input,
            `[n, height, width, channels]`, and of layers that take any height and width: every one
            that this module makes but NASNet, none that flattens its maps into a dense layer.
        size: side of the images in pixels, an integer >= 1.

    Returns:
        A `keras.Model`, `[n, size, size, channels]` to features as wide as those of `encoder`;
        `encoder` itself where that is its size.

    Raises:
        ValueError: if `size` is below 1 or `encoder` cannot take it.

    Example:
    >>> encoder = resnet10((32, 32, 3), width=2)
    >>> small = at_size(encoder, 12)
    >>> small.input_shape, small.output_shape
    ((None, 12, 12, 3), (None, 16))
    >>> small.get_layer("stem_conv").kernel is encoder.get_layer("stem_conv").kernel
    True
    """
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"`size` must be an integer >= 1. Received: size={size}")
    shapes = [x.shape for x in getattr(encoder, "inputs", None) or ()]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise ValueError(
            "`encoder` must be a built functional or sequential model of one input "
            f"[n, height, width, channels]. Received: encoder={encoder}, with inputs {shapes}"
        )
    if shapes[0][1:3] == (size, size):
        return encoder
    try:
        resized = _on_shape(encoder, (size, size, shapes[0][3]))
        if resized.output_shape != encoder.output_shape:
            raise ValueError(f"features {resized.output_shape}, not {encoder.output_shape}")
    except ValueError as error:
        raise ValueError(
            "`encoder` must take images of any size, as convolutions with global pooling do. "
            f"Received: encoder={encoder}, and at size={size}: {error}"
        ) from error
    return resized


def twin(input_shape=(16, 16, 3), width=64):
    """The small twin of supervised siamese networks: one convolution, ReLU, 2x2 max-pooling.

    The normalized channels are averaged to one, a plain mean rather than a luma. The 3x3
    convolution is padded and keeps the resolution; the pooling halves it, without the last row or
    column of an odd one. The features are flattened, not averaged over space: 4,096 of 16x16
    pixels, 65,536 of 64x64, so that it is a network for small images.

    Args:
        input_shape: `(height, width, channels)` of the images, at least 2x2.
        width: channels of the convolution; default 64.

    Returns:
        A functional `keras.Model` named `encoder`: `[n, *input_shape]` with values 0..255, of any
        dtype, to features `[n, (h // 2) * (w // 2) * width]` of h x w pixels.

    Raises:
        ValueError: if `width` is below 1.

    Example:
    >>> twin((16, 16, 3), width=64).output_shape
    (None, 4096)
    """
    if width < 1:
        raise ValueError(f"`width` must be at least 1. Received: width={width}")
    images = keras.Input(input_shape, name="images")
    x = _normalization(input_shape[-1])(images)
    x = keras.ops.mean(x, axis=-1, keepdims=True)
    x = keras.layers.Conv2D(
        width,
        3,
        padding="same",
        # torch.nn.Conv2d's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for kernel and bias.
        kernel_initializer=keras.initializers.RandomUniform(-1 / 3, 1 / 3),
        bias_initializer=keras.initializers.RandomUniform(-1 / 3, 1 / 3),
        name="conv",
    )(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.MaxPooling2D(2, name="pool")(x)
    x = keras.layers.Flatten(name="features")(x)
    return keras.Model(images, x, name="encoder")


ENCODERS = {
    "resnet10": resnet10,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "twin": twin,
}


def _on_shape(model, shape):
    """The layers of `model`, and those of the models in it, called on an input of `shape`."""

    def call(layer, x, *args, **kwargs):
        if isinstance(layer, keras.Model) and layer.input_shape != x.shape:
            layer = _on_shape(layer, x.shape[1:])  # a model would refuse the shape
        return layer(x, *args, **kwargs)

    old = model.inputs[0]
    x = keras.Input(shape, dtype=old.dtype, name=old.name)
    if isinstance(model, keras.Sequential):
        features = functools.reduce(lambda x, layer: call(layer, x), model.layers, x)
        return keras.Model(x, features, name=model.name)
    inputs = keras.tree.pack_sequence_as(model.input, [x])
    return keras.models.clone_model(
        model, inputs, clone_function=lambda layer: layer, call_function=call
    )


def _normalization(channels):
    mean, std = (MEAN, STD) if channels == 3 else ((127.5,) * channels, (64.0,) * channels)
    return keras.layers.Normalization(
        mean=mean, variance=[s * s for s in std], name="normalization"
    )


def _basic_block(x, width, stride, zero_init, name):
    shortcut = x
    if stride != 1 or x.shape[-1] != width:
        shortcut = _conv_norm(x, width, 1, stride, name=f"{name}_shortcut")
    x = _conv_norm(x, width, 3, stride, name=f"{name}_a")
    x = keras.layers.ReLU(name=f"{name}_a_relu")(x)
    x = _conv_norm(x, width, 3, 1, name=f"{name}_b", zero_init=zero_init)
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _bottleneck_block(x, width, stride, zero_init, name):
    shortcut = x
    if stride != 1 or x.shape[-1] != 4 * width:
        shortcut = _conv_norm(x, 4 * width, 1, stride, name=f"{name}_shortcut")
    x = _conv_norm(x, width, 1, 1, name=f"{name}_a")
    x = keras.layers.ReLU(name=f"{name}_a_relu")(x)
    x = _conv_norm(x, width, 3, stride, name=f"{name}_b")
    x = keras.layers.ReLU(name=f"{name}_b_relu")(x)
    x = _conv_norm(x, 4 * width, 1, 1, name=f"{name}_c", zero_init=zero_init)
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _conv_norm(x, filters, kernel, stride, name, zero_init=False):
    if kernel > 1 and stride > 1:
        # PyTorch pads both sides alike; Keras's "same" pads a strided convolution on one side only.
        x = keras.layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    x = keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="valid" if stride > 1 else "same",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        name=f"{name}_conv",
    )(x)
    return batch_norm(gamma_initializer="zeros" if zero_init else "ones", name=f"{name}_norm")(x)
