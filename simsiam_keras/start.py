"""Where training starts: the encoder that the flags describe, at random or with known weights."""

import hashlib
import inspect
from pathlib import Path

import keras
import numpy as np

from simsiam_keras import encoders, export, torch_weights
from simsiam_keras.errors import sentence

IMAGENET = "imagenet"
HUB, APPLICATIONS = "keras_hub", "keras.applications"
H5 = ".weights.h5"
FILE = "start.keras"  # in a run folder, the encoder as training began from known weights


def architecture(cfg, size):
    """The encoder that the flags describe, at random.

    Args:
        cfg: a `config.Pretrain`.
        size: pixels of a side of the square images; None: of any.

    Returns:
        A functional `keras.Model`, images with values 0..255 to features.

    Raises:
        ValueError: if there is no such encoder.
    """
    shape = (size, size, cfg.channels)
    kind, _, name = cfg.encoder.partition(":")
    if not cfg.encoder:
        return _of_weights(Path(cfg.weights), shape)
    if kind == APPLICATIONS:
        return encoders.application(name, shape)
    if kind == HUB:
        return encoders.hub(name, shape, weights=False)
    if cfg.encoder not in encoders.ENCODERS:
        known = ", ".join(encoders.ENCODERS)
        raise ValueError(
            f"--encoder must be one of {known}, {APPLICATIONS}:NAME or {HUB}:PRESET. "
            f"Received: {cfg.encoder}"
        )
    flags = {"stem": cfg.stem, "width": cfg.width, "zero_init_residual": cfg.zero_init_residual}
    return _named(cfg.encoder, shape, flags)


def _named(name, shape, flags):
    make = encoders.ENCODERS[name]
    taken = inspect.signature(make).parameters  # the twin has neither stem nor residual
    return make(shape, **{flag: value for flag, value in flags.items() if flag in taken})


def _of_weights(path, shape):
    path = file_of(path)
    if path.suffix == ".keras":
        return reshaped(export.keras_model(path), shape, path)
    if path.name.endswith(H5):
        raise ValueError(
            f"{path} holds weights without their architecture; name it by --encoder, --stem and "
            "--width"
        )
    found = torch_weights.architecture(path)
    return _named(found.pop("encoder"), shape, {n: v for n, v in found.items() if n != "channels"})


def file_of(path):
    """The file of weights that a path of `--weights` names: itself, or a run folder's encoder.

    Raises:
        ValueError: if there is none.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "encoder.keras").is_file():
            return path / "encoder.keras"
        if any(path.glob("checkpoints/epoch_*.npz")):
            raise ValueError(
                f"{path} has not finished and so holds no encoder yet; end it with its own "
                f"command, or write its last checkpoint by `export --run_dir={path} --output=NEW`"
            )
        raise ValueError(f"--weights={path} holds no encoder.keras; give the folder of a run")
    if not path.is_file():
        raise ValueError(
            f"--weights={path} does not exist; give a run folder, encoder.keras, *{H5}, a PyTorch "
            f"file, or {IMAGENET} with --encoder={APPLICATIONS}:NAME"
        )
    return path


def load(cfg, encoder):
    """Gives an encoder the weights that the flags name; all of them or none.

    Args:
        cfg: a `config.Pretrain` with `known`.
        encoder: from `architecture`.

    Returns:
        What was loaded, a sentence.

    Raises:
        ValueError: if they are not those of this encoder.
    """
    kind, _, name = cfg.encoder.partition(":")
    size = encoder.input_shape[1]
    shape = (size, size, cfg.channels)
    if cfg.weights == IMAGENET:
        _assign(encoder, encoders.application(name, shape, IMAGENET), cfg.encoder)
        return f"Starts from the ImageNet weights of {cfg.encoder}."
    if not cfg.weights:
        _assign(encoder, encoders.hub(name, shape), cfg.encoder)
        return f"Starts from the weights of {cfg.encoder}."
    path = file_of(cfg.weights)
    if path.suffix == ".keras":
        _assign(encoder, export.keras_model(path), path)
    elif path.name.endswith(H5):
        _assign(encoder, _from_h5(encoder, path), path)
    else:
        return _from_torch(encoder, path)
    return f"Starts from the weights of {path}."


def fingerprints(cfg):
    """What tells the weights of a file from others, by what a sentence calls them."""
    if cfg.weights in ("", "none", IMAGENET):
        return {}
    with open(file_of(cfg.weights), "rb") as file:
        return {f"--weights={cfg.weights}": hashlib.file_digest(file, "sha256").hexdigest()[:16]}


def freeze_batch_norm(encoder):
    """Has an encoder's batch normalization keep its statistics, scale and shift."""
    for layer in encoder._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def _from_h5(encoder, path):
    other = keras.models.clone_model(encoder)
    try:
        other.load_weights(path)
    except Exception as error:  # h5py and Keras raise a dozen kinds
        raise ValueError(
            f"{path} is not of this encoder, or damaged ({sentence(error)[:200]}); name the "
            "architecture that it was saved from by --encoder, --stem and --width"
        ) from error
    return other


def _from_torch(encoder, path):
    channels, own = encoder.input_shape[-1], torch_weights.architecture(path)["channels"]
    if channels == own:
        return torch_weights.load(encoder, path)
    other = reshaped(encoder, (*encoder.input_shape[1:3], own))
    said = torch_weights.load(other, path)
    _assign(encoder, other, path)
    return f"{said} Its first kernel of {own} channels is spread over {channels}."


def reshaped(model, shape, name="the encoder"):
    """The same architecture for images of another size or number of channels, at random.

    Args:
        model: a functional `keras.Model` from images to features.
        shape: `(height, width, channels)`; None for a size: any.
        name: what a sentence calls it.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: if it is for one size, or for one number of channels.
    """
    old = model.input_shape[1:]
    if old[-1] != shape[-1] and not _begins_with_convolution(model):
        raise ValueError(
            f"{name} is for images of {old[-1]} channels; take --channels={old[-1]}. Received: "
            f"--channels={shape[-1]}"
        )
    try:
        made = keras.Model.from_config(_reshaped(model.get_config(), list(old), list(shape)))
        fits = all(
            a.shape == b.shape or i == 0 and _begins_with_convolution(model)
            for i, (a, b) in enumerate(zip(made.variables, model.variables, strict=True))
        )
    except Exception:  # whatever its layers raise
        fits = False
    if not fits:
        raise ValueError(
            f"{name} is for images of {old[0]} px alone; take --image_size={old[0]}. Received: "
            f"{shape[0] or 'several sizes'}"
        )
    return made


def _reshaped(config, old, new):
    """A model's configuration with another shape of its images."""
    if isinstance(config, list):
        return [_reshaped(part, old, new) for part in config]
    if not isinstance(config, dict):
        return config
    config = {
        name: _reshaped(part, old, new)
        for name, part in config.items()
        if name != "build_config"  # shapes that layers were built for
    }
    inner = config.get("config")
    if isinstance(inner, dict) and isinstance(inner.get("dtype"), dict):
        del inner["dtype"]  # that of the run, and not the one that was saved in
    if config.get("class_name") == "InputLayer" and list(inner["batch_shape"][1:]) == old:
        inner["batch_shape"] = [None, *new]
    if config.get("class_name") == "Normalization" and old[-1] != new[-1]:
        for name in ("mean", "variance"):
            inner[name] = [float(np.mean(inner[name]))] * new[-1]
    return config


def _begins_with_convolution(model):
    """Whether a model begins with a convolution of images that are normalized, as ours do.

    Its kernel is then the first weight, and the only one that depends on the number of channels.
    """
    before = (keras.layers.InputLayer, keras.layers.Normalization, keras.layers.ZeroPadding2D)
    first = next((layer for layer in model.layers if not isinstance(layer, before)), None)
    return type(first) is keras.layers.Conv2D and model.variables[0] is first.kernel


def _assign(encoder, other, name):
    """Gives an encoder another's weights; the first kernel for other channels where it needs so."""
    mine = [tuple(v.shape) for v in encoder.variables]
    values = [keras.ops.convert_to_numpy(v) for v in other.variables]
    theirs = [value.shape for value in values]
    first = encoder.input_shape[-1]
    if (
        mine
        and theirs
        and mine[0] != theirs[0]
        and mine[1:] == theirs[1:]
        and _begins_with_convolution(encoder)
    ):
        values[0] = in_channels(values[0], first)
        theirs[0] = values[0].shape
    if mine != theirs:
        differ = next((pair for pair in zip(mine, theirs, strict=False) if pair[0] != pair[1]), "")
        shapes = f", shape {list(differ[1])} instead of {list(differ[0])}" if differ else ""
        raise ValueError(
            f"the weights of {name} are of another architecture: {len(theirs)} arrays instead of "
            f"{len(mine)}{shapes}. Leave out --encoder to take the file's own, or name its "
            "architecture by --encoder, --stem and --width"
        )
    for variable, value in zip(encoder.variables, values, strict=True):
        variable.assign(value)


def in_channels(kernel, channels):
    """A first convolution's kernel for images of another number of channels.

    Each channel gets the mean over the old ones, times their number by the new: on images that are
    alike in all channels it answers as before.

    Args:
        kernel: `[height, width, old channels, filters]`.
        channels: the new number.

    Returns:
        `[height, width, channels, filters]`.
    """
    old = kernel.shape[2]
    mean = kernel.mean(axis=2, keepdims=True) * (old / channels)
    return np.repeat(mean, channels, axis=2)
