"""Backbones: images with values 0..255 in, pooled features `[n, width]` out.

Every encoder begins with its own normalization, so that an exported one needs no recipe beside it.
What pools globally takes images of any size when `input_shape` is `(None, None, 3)`.
"""

import os
import warnings

import keras

from simsiam_keras.backbones import application, hub
from simsiam_keras.heads import batch_norm

# ImageNet's channel statistics in units of pixel values, the field's convention for any photograph.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)

LAST = "channels_last"  # whatever Keras is set to: images are [n, height, width, channels]

STEMS = ("imagenet", "cifar", "stride2")

# Channels that oneDNN computes at once on the widest CPUs (AVX-512). Given fewer, its weight
# gradient of a strided 1x1 convolution leaves its memory: the process dies, or, with AVX2 and fewer
# than 8, the gradient is wrong. https://github.com/uxlfoundation/oneDNN/issues/6035
ONEDNN_BLOCK = 16


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
        input_shape: `(height, width, channels)` of the images; with None for height and width, any
            size, and on each the features of the encoder made for it.
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

    Example:
    >>> encoder = resnet10((None, None, 3), width=2)
    >>> tuple(encoder(keras.ops.zeros([4, 32, 32, 3])).shape)
    (4, 16)
    >>> tuple(encoder(keras.ops.zeros([4, 12, 20, 3])).shape)
    (4, 16)

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
        x = keras.layers.ZeroPadding2D(1, data_format=LAST, name="pool_pad")(
            x
        )  # after ReLU, zero is no maximum
        x = keras.layers.MaxPooling2D(3, 2, data_format=LAST, name="pool")(x)
    for i, depth in enumerate(depths):
        for j in range(depth):
            stride = 2 if i > 0 and j == 0 else 1
            x = block(x, width * 2**i, stride, zero_init_residual, name=f"stage_{i + 1}_{j + 1}")
    x = keras.layers.GlobalAveragePooling2D(data_format=LAST, name="features")(x)
    return keras.Model(images, x, name="encoder")


def twin(input_shape=(16, 16, 3), width=64):
    """The small twin of supervised siamese networks: one convolution, ReLU, 2x2 max-pooling.

    The normalized channels are averaged to one, a plain mean rather than a luma. The 3x3
    convolution is padded and keeps the resolution; the pooling halves it, without the last row or
    column of an odd one. The features are flattened, not averaged over space: 4,096 of 16x16
    pixels, 65,536 of 64x64, so that it is a network for small images.

    Args:
        input_shape: `(height, width, channels)` of the images, at least 2x2; both known, for they
            set the width of the features.
        width: channels of the convolution; default 64.

    Returns:
        A functional `keras.Model` named `encoder`: `[n, *input_shape]` with values 0..255, of any
        dtype, to features `[n, (h // 2) * (w // 2) * width]` of h x w pixels.

    Raises:
        ValueError: if `width` is below 1, or height or width of the images is unknown.

    Example:
    >>> twin((16, 16, 3), width=64).output_shape
    (None, 4096)
    """
    if width < 1:
        raise ValueError(f"`width` must be at least 1. Received: width={width}")
    if None in input_shape[:2]:
        raise ValueError(
            "`input_shape` must have a known height and width, for the twin flattens its features. "
            f"Received: input_shape={input_shape}"
        )
    images = keras.Input(input_shape, name="images")
    x = _normalization(input_shape[-1])(images)
    x = keras.ops.mean(x, axis=-1, keepdims=True)
    x = keras.layers.Conv2D(
        width,
        3,
        padding="same",
        data_format=LAST,
        # torch.nn.Conv2d's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for kernel and bias.
        kernel_initializer=keras.initializers.RandomUniform(-1 / 3, 1 / 3),
        bias_initializer=keras.initializers.RandomUniform(-1 / 3, 1 / 3),
        name="conv",
    )(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.MaxPooling2D(2, data_format=LAST, name="pool")(x)
    x = keras.layers.Flatten(data_format=LAST, name="features")(x)
    return keras.Model(images, x, name="encoder")


def narrow_strided(model):
    """Names of the convolutions of a model that oneDNN miscalculates, for want of channels.

    Args:
        model: a built `keras.Model`, with any models in it.

    Returns:
        A list: the strided 1x1 convolutions of fewer than 16 channels.
    """
    return [
        layer.name
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Conv2D) and layer.built and layer.groups == 1
        if set(layer.kernel_size) == {1} and set(layer.strides) != {1}
        if layer.kernel.shape[-2] < ONEDNN_BLOCK
    ]


def warn_of_onednn(model):
    """Warns of an encoder made elsewhere that may end the process; the ones above avoid it."""
    onednn = {"tensorflow": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0", "torch": True}
    names = narrow_strided(model) if onednn.get(keras.backend.backend()) else []
    if names:
        warnings.warn(
            f"The encoder's strided 1x1 convolutions of fewer than {ONEDNN_BLOCK} channels "
            f"({', '.join(names)}) crash or have wrong gradients on x86 CPUs, by a fault of "
            "oneDNN. Put `keras.layers.AveragePooling2D(1, strides)` before each and give it "
            "strides of 1.",
            stacklevel=3,
        )


__all__ = ["application", "hub", "resnet10", "resnet18", "resnet34", "resnet50", "twin"]

ENCODERS = {
    "resnet10": resnet10,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "twin": twin,
}


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
        x = keras.layers.ZeroPadding2D(kernel // 2, data_format=LAST, name=f"{name}_pad")(x)
    if kernel == 1 and stride > 1 and x.shape[-1] < ONEDNN_BLOCK:
        # The same pixels, taken first: means of one. A slice takes the step twice the time.
        x = keras.layers.AveragePooling2D(1, stride, data_format=LAST, name=f"{name}_pick")(x)
        stride = 1
    x = keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="valid" if stride > 1 else "same",
        data_format=LAST,
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        name=f"{name}_conv",
    )(x)
    return batch_norm(gamma_initializer="zeros" if zero_init else "ones", name=f"{name}_norm")(x)
