"""Backbones that other libraries define: images with values 0..255 in, pooled features out.

Each one normalizes images as it was trained to.
"""

import inspect

import keras
import numpy as np

from simsiam_keras import settings

LAST = "channels_last"


def application(name, input_shape=(224, 224, 3), weights=None):
    """Any model of `keras.applications` without its classifier, and with its own preprocessing.

    Args:
        name: the constructor's name, such as `"EfficientNetV2B0"`.
        input_shape: `(height, width, 3)`; each model has a smallest size of its own, and its
            preprocessing is of RGB. With None for height and width, any size; some models then pad
            an odd side by a pixel less than those made for it, and NASNet leaves some layers out.
        weights: `"imagenet"`, which Keras downloads; default None, at random.

    Returns:
        A functional `keras.Model`, images with values 0..255 to average-pooled features.

    Raises:
        ValueError: if there is no such model, the images have other channels than 3, or the weights
            cannot be had.
    """
    if input_shape[-1] != 3:
        raise ValueError(
            "`keras.applications` has models of 3 channels; take another encoder, such as "
            f"resnet18, or --channels=3. Received: input_shape={input_shape}"
        )
    constructor = getattr(keras.applications, name, None)
    if not inspect.isfunction(constructor):
        known = sorted(n for n, f in vars(keras.applications).items() if inspect.isfunction(f))
        raise ValueError(f"`keras.applications` has no model {name!r}. Known: {', '.join(known)}")
    with settings.changed(image_data_format="channels_last"):
        backbone = _downloaded(
            lambda: constructor(
                include_top=False, weights=weights, pooling="avg", input_shape=input_shape
            ),
            f"the weights of keras.applications:{name}",
        )
    images = keras.Input(input_shape, name="images")
    return keras.Model(images, backbone(_as_trained(images, constructor)), name="encoder")


def hub(preset, input_shape=(224, 224, 3), weights=True):
    """The backbone of a preset of KerasHub, with the preset's own preprocessing.

    Feature maps are averaged over space; of a transformer's tokens the first is taken, its class
    token.

    Args:
        preset: what `keras_hub.models.Backbone.from_preset` takes: a name, a `kaggle://` or `hf://`
            handle, or a local folder.
        input_shape: `(height, width, 3)`, as far as the backbone allows; with None for height and
            width, any size.
        weights: False for the architecture at random.

    Returns:
        A functional `keras.Model`, images with values 0..255 to features.

    Raises:
        ValueError: if the preset cannot be had, is of no images, or not for images of this shape.
        ImportError: if KerasHub is not installed.
    """
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            "--encoder=keras_hub:PRESET needs KerasHub: pip install -r requirements-weights.txt"
        ) from error
    what = f"the preset {preset}"
    backbone = _downloaded(
        lambda: keras_hub.models.Backbone.from_preset(
            preset, load_weights=weights, image_shape=input_shape
        ),
        what,
    )
    shape = getattr(backbone, "output_shape", None)
    if len(backbone.inputs) != 1 or not isinstance(shape, tuple) or len(shape) not in (2, 3, 4):
        raise ValueError(f"{what} is no encoder of images. Received: outputs of shape {shape}")
    images = keras.Input(input_shape, name="images")
    converter = _downloaded(lambda: keras_hub.layers.ImageConverter.from_preset(preset), what)
    scale, offset = (1.0 if x is None else x for x in (converter.scale, converter.offset or 0.0))
    x = keras.layers.Rescaling(scale, offset, name="preprocessing")(images)
    # Its layers without the class around them, which only KerasHub could load.
    x = keras.Model(backbone.inputs[0], backbone.output)(x)
    if len(shape) == 4:
        x = keras.layers.GlobalAveragePooling2D(data_format=LAST, name="features")(x)
    return keras.Model(images, x[:, 0] if len(shape) == 3 else x, name="encoder")


def _downloaded(make, what):
    """What a library makes of what it downloads, whose errors have nothing in common."""
    try:
        return make()
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{what} cannot be had ({type(error).__name__}: {said}); check its name and the "
            "network, or give a local copy (--weights=FILE, --encoder=keras_hub:FOLDER)"
        ) from error


def _as_trained(images, constructor):
    """Images as a family of `keras.applications` was trained on them, by stock layers.

    `preprocess_input` of each family multiplies and shifts the channels, and some turn RGB round.
    """
    if "include_preprocessing" in inspect.signature(constructor).parameters:
        return images
    prepare = inspect.getmodule(constructor).preprocess_input
    shift = prepare(np.zeros([1, 3], "float32"), data_format=LAST)[0]
    slope = prepare(np.eye(3, dtype="float32"), data_format=LAST) - shift
    if np.count_nonzero(np.diag(slope)) < 3:
        images, slope = keras.ops.flip(images, axis=-1), slope[::-1]
    mean, variance = -shift / np.diag(slope), np.diag(slope) ** -2.0
    return keras.layers.Normalization(
        mean=mean.tolist(), variance=variance.tolist(), name="normalization"
    )(images)
