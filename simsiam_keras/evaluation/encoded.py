"""A loaded encoder's features of whole sources, through files, so that any number fits."""

import dataclasses
import math

import numpy as np
from rich.progress import Progress

from simsiam_keras.data import pipeline
from simsiam_keras.evaluation.features import features_to_file

PIXEL_SIDE = 32  # the largest side of pixels that are compared as they are


def pixels(encoder, images, limit):
    """The pixels themselves in the place of an encoder's features, made smaller where many.

    Args:
        encoder: an `export.LoadedEncoder`, of whose images they are.
        images: how many there will be.
        limit: bytes that all may take in float32; no side is below 8 for it.

    Returns:
        A function with the attributes of an `export.LoadedEncoder`.
    """
    side = pixel_side(encoder.image_size, encoder.channels, images, limit)
    return dataclasses.replace(
        encoder,
        image_size=side,
        dim=side * side * encoder.channels,
        path="the pixels",
        _features=flat,
    )


def pixel_side(size, channels, images, limit):
    """The side of pixels that are compared as they are: at most 32, and of an image of `size`."""
    fitting = math.isqrt(limit // (4 * channels * max(1, images)))
    return min(size, PIXEL_SIDE, max(8, fitting))


def flat(images):
    """Pixels as features: each image's values in [0, 1], `[n, height * width * channels]`."""
    return np.asarray(images, "float32").reshape(len(images), -1) / 255


def mapped(encoder, source, batch_size, run_dir, console):
    """The features as a memory map, so that more of them than memory holds can be evaluated.

    Returns:
        The features and the labels of their rows.
    """
    path = run_dir / ".features.npy"
    found = write(path, encoder, source, batch_size, console)
    try:
        path.unlink()  # the map keeps the content until it is closed, however the process ends
    except PermissionError:  # Windows, where a file cannot go before its map
        found = np.array(found)
        path.unlink()
    return found, source.labels[source.rows()]


def write(path, encoder, source, batch_size, console):
    """Writes the features of a source to a .npy file, with a bar; returns them as a memory map."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"features of {source.name}", total=len(source))
        return features_to_file(
            path,
            encoder,
            source,
            encoder.image_size,
            encoder.eval_crop,
            batch_size,
            on_batch=lambda done: bar.advance(task, done),
        )


def fingerprint(encoder, source):
    """The features of a few images, by which a changed encoder is told."""
    batch = next(
        pipeline.evaluation_batches(source, encoder.image_size, encoder.eval_crop, batch_size=16)
    )[0]
    return encoder(batch)
